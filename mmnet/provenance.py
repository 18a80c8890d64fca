"""Who set a key: the command line, or which line of which YAML file."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.types import RunMode


# The C parser where PyYAML has it.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Layer(NamedTuple):
    """One YAML file of a composed config and the section it fills."""

    file: Path
    section: tuple[str, ...]


class Origins:
    """Answers where a key's value comes from. Files are read when the first question comes."""

    def __init__(
        self, overrides: Sequence[Override], layers: Callable[[], Sequence[Layer]]
    ) -> None:
        self.overrides = overrides
        self._layers = layers

    @cached_property
    def layers(self) -> Sequence[Layer]:
        return self._layers()

    def __call__(self, key: str) -> str:
        """ "command line", "conf/train.yaml, line 12", or nothing when no one set it."""
        if any(sets(override, key) for override in self.overrides):
            return "command line"
        words = tuple(key.split("."))
        for layer in reversed(self.layers):
            inside = len(layer.section)
            if words[:inside] == layer.section and words[inside:]:
                line = line_of(layer.file, words[inside:])
                if line:
                    return f"{shortest(layer.file)}, line {line}"
        return ""


def sets(override: Override, key: str) -> bool:
    """Whether an override of a value (not a choice of a file) gives `key` its value."""
    name = override.key_or_group
    if override.is_delete() or "/" in name:
        return False
    if name == key:
        return True
    if not key.startswith(f"{name}."):
        return False
    value: Any = override.value()
    for word in key[len(name) + 1 :].split("."):
        if not isinstance(value, dict) or word not in map(str, value):
            return False
        value = next(v for k, v in value.items() if str(k) == word)
    return True


def layers(
    loader: ConfigLoader, name: str, overrides: list[str], folders: Sequence[Path]
) -> list[Layer]:
    """The files that a config is composed from, later ones winning."""
    composed = loader.compute_defaults_list(name, overrides, RunMode.RUN)
    found = []
    for default in composed.defaults:
        for folder in folders:
            file = folder / f"{default.config_path}.yaml"
            if file.is_file():
                package = default.package or ""
                words = tuple(w for w in package.split(".") if w and w != "_global_")
                found.append(Layer(file, words))
                break
    return found


def line_of(file: Path, words: tuple[str, ...]) -> int | None:
    """The line on which a YAML file sets the key, or None where it does not."""
    node = yaml.compose(file.read_text(encoding="utf-8"), Loader=Loader)
    line = None
    for word in words:
        if not isinstance(node, yaml.MappingNode):
            return None
        found = [(k, v) for k, v in node.value if k.value == word]
        if not found:
            return None
        key, node = found[-1]
        line = key.start_mark.line + 1
    return line


def chooser(layers: Sequence[Layer], group: str, name: str) -> str:
    """ "conf/model/x.yaml, line 4": which defaults list chooses file `name` of `group`."""
    for layer in reversed(layers):
        root = yaml.compose(layer.file.read_text(encoding="utf-8"), Loader=Loader)
        content = root.value if isinstance(root, yaml.MappingNode) else []
        listed = [value.value for key, value in content if key.value == "defaults"]
        for item in listed[0] if listed else []:
            if isinstance(item, yaml.MappingNode):
                key, value = item.value[0]
                if key.value.split()[-1].lstrip("/") == group and value.value == name:
                    return f"{shortest(layer.file)}, line {key.start_mark.line + 1}"
    return ""


def shortest(file: Path) -> str:
    """A path as one would type it: relative to here where it is below."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
