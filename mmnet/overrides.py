"""The command line's `key=value` words: read, sorted into choices of files and settings.

Every word is judged by itself, so that one mistake does not hide the next.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
)
from omegaconf import OmegaConf

from mmnet.errors import nearest
from mmnet.redact import shown


LONGEST = 20_000  # characters of one word
MOST_VALUES = 1_000  # of one sweep
NOISE = ("full_key:", "reference_type=", "object_type=", "See http")  # in errors of OmegaConf


@dataclass
class Words:
    """A command line, sorted."""

    files: list[str] = field(default_factory=list)  # choices of files, and settings of Hydra
    settings: list[Override] = field(default_factory=list)
    # Word -> the values it asks to run one by one, where there are several.
    sweeps: dict[str, list[Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def hydra(self) -> list[str]:
        """Settings of Hydra itself."""
        return [word for word in self.files if re.match(r"[+~]*hydra[./=]", word)]


def read(words: Sequence[str], folders: Sequence[Path], multirun: bool) -> Words:
    """Sort `words`; groups of files are sub-folders of `folders`."""
    sorted_words = Words()
    parser = OverridesParser.create()
    for word in words:
        try:
            if len(word) > LONGEST:
                raise ValueError(f"longer than {LONGEST:,} characters")
            override = parser.parse_override(word)
            # OmegaConf reads references when a value is set, and may find them malformed.
            if not override.is_sweep_override():
                OmegaConf.create({"value": override.value()})
            problem = _sort(override, word, folders, multirun, sorted_words)
        except Exception as error:  # Hydra's grammar raises whatever it likes
            problem = _unreadable(word, error)
        if problem:
            sorted_words.problems.append(shown_line(f"{shown(word)} (command line): {problem}"))
    return sorted_words


def _sort(
    override: Override, word: str, folders: Sequence[Path], multirun: bool, into: Words
) -> str | None:
    """Put one word where it belongs, or say what is wrong with it."""
    key = override.key_or_group
    if not re.search(r"\w", key):
        return "expected key=value"
    if override.is_hydra_override() or key == "hydra":
        into.files.append(word)
        return None
    values = [override.value()]
    if override.is_sweep_override():
        if not multirun:
            return "several values: add -m to run each of them, or quote it if it is one text"
        try:
            values = _values(override, folders)
        except Exception as error:
            return f"not a range of values: {one_line(error)}"
        if not values:
            return "no value at all"
        into.sweeps[word] = values
    is_group = bool(options(key, folders) or "/" in key or groups_in(key, folders))
    if not is_group or override.is_value_path or isinstance(values[0], dict):
        override._value = values[0]
        into.settings.append(override)
        return None
    for value in values:
        problem = _choice(override, value, folders)
        if problem:
            return problem
    into.files.append(f"{override.get_key_element()}={values[0]}" if len(values) > 1 else word)
    return None


def _choice(override: Override, value: Any, folders: Sequence[Path]) -> str | None:
    """What is wrong with choosing file `value` of a group, if anything."""
    group, known = override.key_or_group, options(override.key_or_group, folders)
    if not known:
        inside = groups_in(group, folders)
        if inside:
            return f"choose one of {', '.join(f'{name}=...' for name in inside)}"
        return f"no such group{nearest(group, groups(folders))}"
    if override.is_delete():
        return None
    if (override.is_add() or override.is_force_add()) and not override.package:
        return f"{group} is chosen already: leave out the +"
    if value is None:
        if group.partition("/")[0] in ("encoder", "experiment"):
            return f"to leave this part out write ~{group}"
        return f"a run needs one: there are {', '.join(known)}"
    for name in value if isinstance(value, list) else [value]:
        if name not in known:
            return f"no such file{nearest(str(name), known)}; there are {', '.join(known)}"
    return None


def _values(override: Override, folders: Sequence[Path]) -> list[Any]:
    """What a sweep goes through; of an interval, where it starts."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [value.start]
    if isinstance(value, Glob):
        return list(value.filter(options(override.key_or_group, folders)))
    found = list(islice(override.sweep_iterator(), MOST_VALUES))
    return [item.text if isinstance(item, QuotedString) else item for item in found]


def _unreadable(word: str, error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if "=" not in word and not word.startswith("~"):
        return "expected key=value"
    group, dot, rest = word.partition("=")[0].partition(".")
    if "/" in group and dot:
        return f"a setting is written with dots: {group.replace('/', '.')}.{rest}=..."
    return f"cannot be read ({one_line(error)}); a value with special characters needs quotes"


def options(group: str, folders: Sequence[Path]) -> list[str]:
    """Names of the files of a group."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def groups_in(group: str, folders: Sequence[Path]) -> list[str]:
    """Groups one level below a group."""
    found = {
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in (folder / group).glob("*/")
        if path.is_dir()
    }
    return sorted(found)


def groups(folders: Sequence[Path]) -> list[str]:
    """All groups that hold files."""
    return sorted(
        {path.parent.relative_to(f).as_posix() for f in folders for path in f.rglob("*/*.yaml")}
    )


def one_line(error: BaseException) -> str:
    """The text of an error of Hydra or OmegaConf, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(NOISE)]
    return shown_line(" ".join(kept)) or type(error).__name__


def shown_line(text: str) -> str:
    """Printable, and not longer than a few lines of a terminal."""
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= 400 else f"{text[:397]}..."
