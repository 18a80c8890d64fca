"""Settings carried out on a config, as Hydra carries them out, but in plain containers.

OmegaConf would follow references on the way, and a config can be made so that this never ends.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override, OverrideType

from mmnet.overrides import shown_line
from mmnet.redact import shown


class Applied(NamedTuple):
    """What came of carrying settings out."""

    problems: list[str]
    added: list[str]  # words that set what was not there: Hydra wants a + before those


def apply(settings: Sequence[Override], config: dict[str, Any]) -> Applied:
    """Carry settings out on an unresolved config, in place and in order."""
    done = Applied([], [])
    for override in settings:
        keys = re.findall(r"[^.\[\]]+", override.key_or_group)
        if override.type is OverrideType.CHANGE and not _there(config, keys, override.value()):
            done.added.append(str(override.input_line))
        problem = _apply(override, keys, config)
        if problem:
            word = shown(override.input_line)
            done.problems.append(shown_line(f"{word} (command line): {problem}"))
    return done


def _there(config: Any, parents: list[str], value: Any) -> bool:
    """Whether the key is there, and all keys that a section of settings sets in it."""
    for word in parents:
        if not _has(config, word):
            return False
        config = config[_index(config, word)]
    if not (isinstance(config, dict) and isinstance(value, dict)):
        return True
    return all(_there(config, [str(key)], inner) for key, inner in value.items())


def _apply(override: Override, keys: list[str], config: dict[str, Any]) -> str | None:
    *parents, last = keys
    value = override.value()
    here: Any = config
    for word in parents:
        inside = here[_index(here, word)] if _has(here, word) else None
        if isinstance(inside, str) and "${" in inside:
            return f"{word} is a reference, {inside}: set what it refers to"
        if not isinstance(inside, dict | list):
            if override.is_delete():
                return "there is nothing to leave out"
            if isinstance(here, list):
                return f"the list has no item {word}"
            inside = here[_key(here, word)] = {}
        here = inside
    if override.is_delete():
        if not _has(here, last):
            return "there is nothing to leave out"
        present = here[_index(here, last)]
        if override.value_type is not None and present != value:
            return f"it is not that but {shown(present, last)}"
        del here[_index(here, last)]
        return None
    if isinstance(here, list):
        if not _has(here, last):
            return f"the list has no item {last}"
        here[int(last)] = value
        return None
    key = _key(here, last)
    present = here.get(key)
    if override.type is OverrideType.ADD and present is not None and not isinstance(value, dict):
        return "it is set already: leave out the +"
    if override.is_list_extend():
        value = [*(present if isinstance(present, list) else []), *value]  # type: ignore[misc]
    here[key] = _merged(present, value)
    return None


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    merged = dict(old)
    for key, value in new.items():
        known = _key(old, str(key))
        merged[known] = _merged(old.get(known), value)
    return merged


def _has(here: Any, word: str) -> bool:
    if isinstance(here, list):
        return word.isdigit() and int(word) < len(here)
    return isinstance(here, dict) and _key(here, word) in here


def _index(here: Any, word: str) -> Any:
    return int(word) if isinstance(here, list) else _key(here, word)


def _key(here: dict[Any, Any], word: str) -> Any:
    """The key that `word` names: YAML keys may be numbers."""
    return next((key for key in here if str(key) == word), word)
