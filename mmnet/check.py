"""Is a composed config a run? Every problem at once, and no part is imported to find out.

Sections are held against the dataclasses of mmnet.config, each part's settings against the
constructor that its `_target_` names, and the whole against the rules of mmnet.rules.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, NamedTuple, get_type_hints

from mmnet.bounds import PartOf, PartsOf, Section
from mmnet.compatible import Constants, comparing, learnt, metrics_of, misfits, needed_by_all
from mmnet.config import MODALITIES, PACKAGES, PARTS, PASSED, Part, Run
from mmnet.errors import UserError, nearest
from mmnet.mixable import unmixable
from mmnet.rules import broken, by_length, idle_dropout, monitored, undivided, untuned
from mmnet.signature import Signature
from mmnet.trust import mark_of, trusted_signature
from mmnet.values import MISSING, Misfit, fit


UNKNOWN = object()  # a value that could not be resolved: reported where that failed


class Problem(NamedTuple):
    """What is wrong, and with the value of which key or keys."""

    keys: tuple[str, ...]
    text: str


class Checked(NamedTuple):
    """A run, or what keeps the config from being one."""

    run: Run | None
    problems: list[Problem]
    values: dict[str, Any]  # dotted key -> value, of all that is well in itself


def check(config: Mapping[str, Any]) -> Checked:
    """Hold a resolved config against what a run is."""
    checking = _Checking()
    hints = get_type_hints(Run, include_extras=True)
    checking.refuse_unknown(config, hints, "", config)
    made: dict[str, Any] = {}
    for name, hint in hints.items():
        if name == "encoder":
            made[name] = checking.encoders(config)
        elif name in PARTS:
            made[name] = checking.part(config, name, name)
        elif is_dataclass(hint) and isinstance(hint, type):
            made[name] = checking.section(config, name, hint)
        else:
            made[name] = checking.setting(config, name, hint, name)
    problems = checking.problems
    whole = not any(key.endswith("_target_") or key in PACKAGES for p in problems for key in p.keys)
    found = [*broken(checking.values), *misfits(checking.declared, whole)]
    found += idle_dropout(checking.values, needed_by_all(checking.declared))
    found += undivided(checking.values, comparing(checking.declared))
    found += unmixable(checking.values)
    if whole:
        found += untuned(checking.values)
        found += by_length(checking.values, learnt(checking.declared))
    if "head" in checking.declared:
        found += monitored(checking.values, metrics_of(checking.declared))
    problems += [Problem(keys, text) for keys, text in found]
    return Checked(Run(**made) if not problems else None, problems, checking.values)


def check_part(part: Mapping[str, Any], key: str) -> tuple[Part | None, list[Problem]]:
    """One resolved part by itself, as settings of the place `key`; and what is wrong with it."""
    checking = _Checking()
    found = checking.part({"part": part}, "part", key)
    return found, checking.problems


class _Checking:
    """Collects problems and sound values on the way through a config."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.values: dict[str, Any] = {}
        self.declared: dict[str, Constants] = {}  # by each part's class

    def add(self, key: str, text: str) -> None:
        self.problems.append(Problem((key,), text))

    def setting(self, section: Mapping[str, Any], name: str, hint: Any, key: str) -> Any:
        """One value, converted; None after a problem."""
        value = section.get(name, MISSING)
        if value is UNKNOWN:
            return None
        if value == MISSING:
            self.add(key, "must be set")
            return None
        try:
            self.values[key] = fit(value, hint)
        except Misfit as misfit:
            if isinstance(value, Mapping) and value:
                self.add(f"{key}.{next(iter(value))}", f"no such setting; {key}: {misfit}")
            else:
                self.add(key, f"{misfit}{'; this is text' if is_quoted(value) else ''}")
            return None
        return self.values[key]

    def section(self, config: Mapping[str, Any], name: str, kind: type, key: str = "") -> Any:
        """One dataclass, and those in it; None after a problem."""
        key = key or name
        section = self.mapping(config, name, key)
        if section is None:
            return None
        self.refuse_unknown(section, get_type_hints(kind), f"{key}.", config)
        before = len(self.problems)
        made = {}
        for inner, hint in get_type_hints(kind, include_extras=True).items():
            if is_dataclass(hint) and isinstance(hint, type):
                made[inner] = self.section(section, inner, hint, f"{key}.{inner}")
            else:
                made[inner] = self.setting(section, inner, hint, f"{key}.{inner}")
        return kind(**made) if len(self.problems) == before else None

    def encoders(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The encoder of each modality, at least one."""
        section = config.get("encoder", {})
        if not isinstance(section, Mapping):
            self.mapping(config, "encoder")
            return {}
        self.refuse_unknown(section, MODALITIES, "encoder.", config)
        chosen = [name for name in MODALITIES if section.get(name) is not None]
        if not chosen:
            self.add("encoder", "a network needs an encoder: encoder/image=... or encoder/text=...")
        return {name: self.part(section, name, f"encoder.{name}") for name in chosen}

    def part(self, section: Mapping[str, Any], name: str, key: str) -> dict[str, Any] | None:
        """One part: its `_target_` and its settings."""
        part = self.mapping(section, name, key)
        if part is None:
            return None
        target = part.get("_target_", MISSING)
        if target is UNKNOWN:
            return None
        if target == MISSING and part:
            choose = f"choose it with {key.replace('.', '/')}=..."
            self.add(
                f"{key}.{next(iter(part))}",
                f"nothing is chosen that this could be a setting of: {choose}",
            )
            return None
        try:
            declared = trusted_signature(target, key)
        except UserError as error:
            self.add(f"{key}._target_", str(error))
            return None
        group = key.partition(".")[0]
        self.declared[key] = {**declared.constants, "_target_": target}
        self.values[f"{key}._target_"] = target
        return {"_target_": target} | self.settings(part, declared, target, key, group)

    def settings(
        self, part: Mapping[str, Any], declared: Signature, target: str, key: str, group: str
    ) -> dict[str, Any]:
        """A part's settings, both ways: none that is not known, none missing."""
        passed = PASSED.get(group, ())
        parameters = {name: p for name, p in declared.parameters.items() if name not in passed}
        known = [name for name, parameter in parameters.items() if parameter.setting]
        made = {}
        for name in part:
            if name == "_target_":
                continue
            where = f"{key}.{name}"
            handed = name in passed and name in declared.parameters
            if handed or (name in parameters and name not in known):
                self.add(where, f"the program passes this to {target}; it cannot be set")
            elif name not in known:
                self.add(where, f"{target} has no such setting{hint(name, known)}")
            else:
                annotation = parameters[name].annotation
                match mark_of(annotation):
                    case PartsOf(group=nested):
                        made[name] = self.parts(part, name, where, nested)
                    case PartOf():
                        made[name] = self.part(part, name, where) or {}
                    case Section(fields=fields):
                        made[name] = self.inner(part, name, where, dict(fields))
                    case None:
                        made[name] = self.setting(part, name, annotation, where)
        for name, parameter in parameters.items():
            if name not in part and parameter.required:
                self.add(f"{key}.{name}", f"must be set: {target} needs it")
        return made

    def inner(
        self, part: Mapping[str, Any], name: str, key: str, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The settings within a setting, all of them and no others."""
        section = part[name]
        if section is UNKNOWN:
            return {}
        if not isinstance(section, Mapping):
            self.add(key, f"holds settings of its own: {key}.{next(iter(fields))}=...")
            return {}
        for one in section:
            if one not in fields:
                self.add(f"{key}.{one}", f"no such setting{hint(one, list(fields), f'{key}.')}")
        return {
            one: self.setting(section, one, kind, f"{key}.{one}") for one, kind in fields.items()
        }

    def parts(self, section: Mapping[str, Any], name: str, key: str, group: str) -> dict[str, Any]:
        """Parts of one group by names of their own, at least one."""
        inner = self.mapping(section, name, key)
        if inner is None:
            return {}
        chosen = [str(one) for one, part in inner.items() if part is not None]
        for one in chosen:
            if not one.isidentifier():
                self.add(f"{key}.{one}", "expected a name of letters, digits and _")
        if not chosen:
            self.add(key, f"needs at least one: +{group}@{key}.<a name>=...")
        return {one: self.part(inner, one, f"{key}.{one}") for one in chosen}

    def mapping(
        self, section: Mapping[str, Any], name: str, key: str | None = None
    ) -> Mapping[str, Any] | None:
        """A sub-section, or None and a problem."""
        key = key or name
        value = section.get(name, MISSING)
        if isinstance(value, Mapping):
            return value
        group = key.replace(".", "/")
        if value is None or value == MISSING:
            choose = f": choose one with {group}=..." if key.partition(".")[0] in PACKAGES else ""
            self.add(key, f"must be set{choose}")
        elif value is not UNKNOWN:
            to_choose = isinstance(value, str) and key.partition(".")[0] in PACKAGES
            slash = f"to choose a file write {group}={value}" if to_choose else f"{key}.<name>=..."
            self.add(key, f"expected a section of settings; {slash}")
        return None

    def refuse_unknown(
        self,
        section: Mapping[str, Any],
        known: Iterable[str],
        prefix: str,
        config: Mapping[str, Any],
    ) -> None:
        known = list(known)
        for name in section:
            if name not in known:
                elsewhere = [f"; did you mean '{key}'?" for key in _namesakes(str(name), config)]
                typed, inner = f"{prefix}{name}", section[name]
                while isinstance(inner, Mapping) and len(inner) == 1:
                    word, inner = next(iter(inner.items()))
                    typed += f".{word}"
                self.add(
                    typed,
                    f"no such setting{elsewhere[0] if elsewhere else hint(name, known, prefix)}",
                )


def is_quoted(value: Any) -> bool:
    """Whether it is text that would be something else without its quotes."""
    return isinstance(value, str) and bool(
        re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false|null", value, re.IGNORECASE)
    )


def hint(name: Any, known: list[str], prefix: str = "") -> str:
    """The nearest known name, with what stands before it, or all of them."""
    return nearest(str(name), known, prefix) or (f"; it has {', '.join(known)}" if known else "")


def keys_of(kind: type, above: str) -> Iterator[str]:
    """Dotted keys of all that a dataclass holds."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from keys_of(hint, f"{above}.{name}")
        else:
            yield f"{above}.{name}"


def _namesakes(name: str, config: Mapping[str, Any]) -> list[str]:
    """Full keys, in any section, whose last word is `name`."""
    found = []
    for section, kind in get_type_hints(Run, include_extras=True).items():
        if is_dataclass(kind) and isinstance(kind, type):
            found += [key for key in keys_of(kind, section) if key.rpartition(".")[2] == name]
        elif section in PARTS and isinstance(config.get(section), Mapping):
            found += [f"{section}.{key}" for key in config[section] if key == name]
    return found
