"""Wiki markup to the text that a reader sees, by mwparserfromhell."""

import multiprocessing
import os
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import mwparserfromhell
from mwparserfromhell import nodes


# What the parser would spend half of its time on, and what is dropped anyway. A reference that is
# not closed must not cost the rest of the page.
UNSEEN = re.compile(
    r"<!--.*?(?:-->|\Z)|<ref\b[^<>]*/>|<ref\b[^<>]*>.{0,5000}?</ref\s*>", re.DOTALL | re.IGNORECASE
)
QUOTES = re.compile(r"'{2,}")  # italic and bold
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
SWITCH = re.compile(r"__[A-Z]+__")  # __NOTOC__
BLANKS, GAP = re.compile(r"[ \t]*\n[ \t]*"), re.compile(r"\n{3,}")
# Tags that show no running text.
HIDDEN = frozenset(
    (
        *("categorytree", "ce", "chem", "gallery", "graph", "hiero", "imagemap", "inputbox"),
        *("mapframe", "maplink", "math", "ref", "references", "score", "section", "source"),
        *("style", "syntaxhighlight", "table", "templatestyles", "timeline"),
    )
)
DROPPED = frozenset(("category", "file", "image", "media"))  # links that show none, in any wiki

# What the parser takes quadratic time over where it stays open: minutes for 100 kB of it.
OPENED = (
    (re.compile(r"\[\["), re.compile(r"\]\]")),
    (re.compile(r"\{[{|]"), re.compile(r"[}|]\}")),
    (re.compile(r"<(?!br|hr|li)[a-z]", re.IGNORECASE), re.compile(r"</|/>")),
)
MOST_OPEN = 1000  # of each; real pages leave a few open

PAGES = 20  # of one task of another process
WAITING = 4  # tasks a process, so that a dump is not read into memory


class Page(NamedTuple):
    """An article of a dump."""

    number: str  # its id
    title: str
    text: str


def plain(text: str, dropped: frozenset[str] = DROPPED) -> str:
    """The running text: links as they read, headings on lines of their own, paragraphs apart.

    Templates, tables, references, formulas and pictures with their captions are left out.
    dropped: lower-case prefixes of links that show nothing where they stand. Raises what the
    parser does (ParserError), and ValueError for a page that it would spend minutes on.
    """
    for opening, closing in OPENED:
        if len(opening.findall(text)) - len(closing.findall(text)) > MOST_OPEN:
            raise ValueError(f"more than {MOST_OPEN} open {opening.pattern}")
    code = mwparserfromhell.parse(UNSEEN.sub("", text), skip_style_tags=True)
    seen = QUOTES.sub("", SWITCH.sub("", "".join(_seen(code, dropped))))
    return GAP.sub("\n\n", BLANKS.sub("\n", seen.replace("\xa0", " "))).strip()


def plain_pages(
    pages: Iterable[Page], dropped: frozenset[str], processes: int
) -> Iterator[tuple[Page, bool]]:
    """The pages with their text as `plain` gives it, in order; False where it cannot be parsed.

    processes: that parse side by side; 1: this one.
    """
    source = iter(pages)
    tasks = iter(lambda: list(islice(source, PAGES)), [])
    if processes == 1:
        for task in tasks:
            yield from _parsed(task, dropped)
        return
    running: deque[Future[list[tuple[Page, bool]]]] = deque()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as executor:
        try:
            for task in tasks:
                running.append(_start(executor, task, dropped))
                if len(running) > WAITING * processes:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)


def processors() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(
    executor: ProcessPoolExecutor, task: list[Page], dropped: frozenset[str]
) -> "Future[list[tuple[Page, bool]]]":
    with warnings.catch_warnings():
        # Python 3.12 and later: true, and nothing but the parser runs in them.
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        return executor.submit(_parsed, task, dropped)


def _parsed(pages: list[Page], dropped: frozenset[str]) -> list[tuple[Page, bool]]:
    parsed = []
    for page in pages:
        try:
            parsed.append((page._replace(text=plain(page.text, dropped)), True))
        except (mwparserfromhell.parser.ParserError, RecursionError, ValueError):
            parsed.append((page, False))
    return parsed


def _seen(code: Any, dropped: frozenset[str]) -> Iterator[str]:
    for node in code.nodes:
        match node:
            case nodes.Text():
                yield str(node.value)
            case nodes.Wikilink():
                prefix, colon, _ = str(node.title).partition(":")
                prefix = prefix.strip()
                if colon and (prefix.casefold() in dropped or INTERLANGUAGE.fullmatch(prefix)):
                    continue
                # A colon in front: the link itself is shown.
                shown = node.title.lstrip(":") if node.text is None else node.text
                yield shown if isinstance(shown, str) else "".join(_seen(shown, dropped))
            case nodes.Tag():
                name = str(node.tag).strip().lower()
                if name in ("br", "hr", "dd"):
                    yield "\n"
                if node.contents is not None and name not in HIDDEN:
                    yield from _seen(node.contents, dropped)
            case nodes.ExternalLink():
                if node.title is not None:
                    yield from _seen(node.title, dropped)
                elif not node.brackets:
                    yield str(node.url)
            case nodes.Heading():
                yield "\n\n"
                yield "".join(_seen(node.title, dropped)).strip()
                yield "\n\n"
            case nodes.HTMLEntity():
                yield str(node.normalize())
