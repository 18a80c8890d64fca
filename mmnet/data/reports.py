"""Sections of radiology reports by the rules of their publisher (MIT-LCP/mimic-cxr)."""

import difflib
import re
from typing import Literal


Section = Literal["findings", "impression", "both", "all"]

HEADING = re.compile(r"\n ([A-Z ()/,-]+):\s")
PARAGRAPH = "\n \n"  # every line begins with a blank
SAME = {
    "conclusion": "impression",
    "conclusions": "impression",
    "findings and impression": "impression",
    "findings/impression": "impression",
    "comparisons": "comparison",
    "comparison exam": "comparison",
    "comparison film": "comparison",
    "reference exam": "comparison",
}
VIEWS = re.compile(r"\b(chest|views?|radiographs?)\b")  # "CHEST, TWO VIEWS:" heads the findings


def told(text: str, section: Section) -> str | None:
    """What a report says in a section; None if it lacks it.

    both: findings and impression, as far as they are there. all: the report as it stands. A
    report that has neither is taken for what follows the first paragraph of its last section,
    or, where there is none such, for its comparison.
    """
    if section == "all":
        return text.strip() or None
    found = sections(text)
    wanted: tuple[str, ...] = ("findings", "impression") if section == "both" else (section,)
    if not {"findings", "impression"} & found.keys():
        wanted = ("last paragraph",) if "last paragraph" in found else ("comparison",)
    return "\n".join(found[name] for name in wanted if found.get(name)) or None


def sections(text: str) -> dict[str, str]:
    """The sections of a report by their usual names; of those of one name the last.

    A heading is a line's beginning in capitals up to a colon; what directly follows a heading
    is no other one. Empty findings and impressions are none: they are titles.
    """
    parts = []
    heading = HEADING.search(text)
    name, start = "preamble", 0
    while heading is not None:
        parts.append((name, text[start : heading.start()]))
        name, start = _usual(heading[1]), heading.end()
        heading = HEADING.search(text, max(start, text.find("\n", start)))
    parts.append((name, text[start:]))
    parts = [
        (name, part)
        for name, part in parts
        if part.strip() or name not in ("findings", "impression")
    ]
    found = {name: part.strip() for name, part in parts}
    if parts and not {"findings", "impression"} & found.keys():
        name, last = parts[-1]
        before, _, after = last.partition(PARAGRAPH)
        if after.strip():
            found |= {name: before.strip(), "last paragraph": after.strip()}
    return found


def _usual(heading: str) -> str:
    name = heading.lower().strip()
    if name in SAME:
        return SAME[name]
    if VIEWS.search(name):
        return "findings"
    # Misspelt in a dozen ways: "IMPRESSON", "FINIDNGS".
    near = difflib.get_close_matches(name, ("findings", "impression"), n=1, cutoff=0.8)
    return near[0] if near else name
