"""Weights for a tower from any safetensors file, with a report of what fitted and what did not."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmnet.errors import UserError, first_line


log = logging.getLogger(__name__)

SHOWN = 5  # names of each kind in a report
Tensors = dict[str, Tensor]
Adapt = Callable[[Tensors], Tensors]  # a library's own: renames, resamples what depends on sizes


class Report(NamedTuple):
    """What came of loading weights."""

    matched: list[str]  # tensors of the tower that were found, reshaped ones included
    missing: list[str]  # tensors of the tower that the source lacks
    unexpected: list[str]  # tensors of the source that the tower has no place for
    reshaped: list[str]  # "pos_embed [1, 197, 192] -> [1, 17, 192]"

    @property
    def text(self) -> str:
        """Counts, and some names of each kind."""
        parts = [f"{len(self.matched)} tensors taken over"]
        for what, names in (
            ("resampled to this tower's sizes", self.reshaped),
            ("of the tower's not found", self.missing),
            ("not used", self.unexpected),
        ):
            if names:
                parts.append(f"{len(names)} {what} ({some(names)})")
        return ", ".join(parts)

    def settle(self, source: str) -> None:
        """Log it. Raises UserError when more than half of the tower was not found."""
        if len(self.missing) > len(self.matched):
            of_it = f"; it has {some(self.unexpected)}" if self.unexpected else ""
            raise UserError(
                f"{source}: not the weights of this tower: {len(self.matched)} of its "
                f"{len(self.matched) + len(self.missing)} tensors found, not "
                f"{some(self.missing)}{of_it}"
            )
        log.info("%s: %s", source, self.text)


def some(names: Collection[str]) -> str:
    """The first few."""
    shown = ", ".join(list(names)[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown


def check_source(modality: str, pretrained: str | None) -> None:
    """Refuse what is neither null, hub nor a safetensors file that is there. Raises UserError."""
    if pretrained in (None, "hub"):
        return
    key = f"encoder.{modality}.pretrained={pretrained}"
    if not str(pretrained).endswith(".safetensors"):
        raise UserError(f"{key}: expected null, hub or a .safetensors file")
    if not Path(str(pretrained)).is_file():
        raise UserError(f"{key}: no such file")


def load(
    tower: nn.Module, file: str, modality: str, own: str = "", adapt: Adapt | None = None
) -> Report:
    """Fill `tower` with what `file` holds of it.

    The file may be of the tower's library, its names with or without a prefix, or of a run of
    mmnet (model.safetensors). `own`: where the library's module sits in the tower, "body.".
    `adapt`: the library's own way to bring a file into the shape of that module.

    Raises UserError for a file that cannot be read, holds another network, or tensors of
    other sizes that nothing resamples.
    """
    source = f"encoder.{modality}.pretrained={file}"
    found = in_names_of(tower, read(file, source, modality), modality, own)
    before = {name: tuple(value.shape) for name, value in found.items()}
    sizes = {value.numel() for value in found.values()}
    if adapt is not None:
        found = adapted(found, own, adapt, source)
    wanted = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
    matched = [name for name in wanted if name in found]
    for name in matched:
        if tuple(found[name].shape) != wanted[name]:
            raise UserError(
                f"{source}: {name} is {list(found[name].shape)} there and {list(wanted[name])} "
                f"in this tower, whose sizes are others"
            )
    reshaped = [
        f"{name} {list(before.get(name, ('?',)))} -> {list(wanted[name])}".replace("'", "")
        for name in matched
        if before.get(name, wanted[name]) != wanted[name] or found[name].numel() not in sizes
    ]
    report = Report(
        matched,
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
        reshaped,
    )
    report.settle(source)
    tower.load_state_dict({name: found[name] for name in matched}, strict=False)
    return report


def read(file: str, source: str, modality: str) -> Tensors:
    """The tensors of a file. Raises UserError, for LoRA adapters as well."""
    try:
        tensors: Tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{source}: cannot be read: {first_line(error)}") from error
    mine = [name for name in tensors if name.startswith(f"encoders.{modality}.")]
    adapters = [name for name in mine or tensors if ".lora_A." in name]
    if adapters:
        raise UserError(
            f"{source}: holds LoRA adapters ({some(adapters)}), which only a tower with the same "
            f"adapters can take over: resume that run, or train from its base weights"
        )
    return tensors


def in_names_of(tower: nn.Module, tensors: Tensors, modality: str, own: str) -> Tensors:
    """The same tensors under the names that `tower` gives them, as far as they are its own."""
    run = f"encoders.{modality}."
    if any(name.startswith(run) for name in tensors):
        return {n.removeprefix(run): v for n, v in tensors.items() if n.startswith(run)}
    names = [name.removeprefix(own) for name in tower.state_dict() if name.startswith(own)]
    prefix = common_prefix(tensors, set(names))
    bare = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
    if 2 * sum(name in bare for name in names) < len(names):
        bare = tensors  # in names of its own, which `adapt` may know
    return {f"{own}{name}": value for name, value in bare.items()}


def common_prefix(tensors: Mapping[str, object], names: Collection[str]) -> str:
    """What stands before most of `names` in a file: "", "bert.", "visual.trunk.", ..."""
    prefixes: Counter[str] = Counter({"": 0})
    for key in tensors:
        words = key.split(".")
        for place in range(len(words)):
            if ".".join(words[place:]) in names:
                prefixes["".join(f"{word}." for word in words[:place])] += 1
    return prefixes.most_common(1)[0][0]


def adapted(found: Tensors, own: str, adapt: Adapt, source: str) -> Tensors:
    """The library's own tensors as its module wants them, the others as they are."""
    inner = {name.removeprefix(own): v for name, v in found.items() if name.startswith(own)}
    others = {name: value for name, value in found.items() if not name.startswith(own)}
    try:
        inner = adapt(inner)
    # A library that looks for its own names in a foreign file fails as it likes.
    except Exception as error:
        raise UserError(
            f"{source}: not the weights of this tower: {first_line(error)} ({some(found)})"
        ) from error
    return others | {f"{own}{name}": value for name, value in inner.items()}
