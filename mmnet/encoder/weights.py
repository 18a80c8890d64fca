"""Weights for a tower from any safetensors file, with a report of what fitted and what did not."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmnet.encoder import parameters_of
from mmnet.errors import UserError, first_line, reason


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
    try:
        with Path(str(pretrained)).open("rb"):
            pass
    except OSError as error:
        raise UserError(f"{key}: {reason(error)}") from error


def load(tower: Any, file: str, modality: str, own: str = "", adapt: Adapt | None = None) -> Report:
    """Fill `tower` with what `file` holds of it.

    The file may be of the tower's library, its names with or without a prefix, or of a run of
    mmnet (model.safetensors). `own`: where the library's module sits in the tower, "body.".
    `adapt`: the library's own way to bring a file into the shape of that module.

    Raises UserError for a file that cannot be read, holds another network, or tensors of
    other sizes that nothing resamples.
    """
    source = f"encoder.{modality}.pretrained={file}"
    tensors = read(file, source, modality)
    wanted = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
    found: Tensors = {}
    beyond = sorted(tensors)
    for ours, others in readings(tensors, list(wanted), modality, own):
        tried = ours if adapt is None else adapted(ours, own, adapt)
        if sum(name in wanted for name in tried) > sum(name in wanted for name in found):
            found, beyond = tried, others
    for name in wanted:
        if name in found and tuple(found[name].shape) != wanted[name]:
            raise UserError(
                f"{source}: {name.removeprefix(own)} is {list(found[name].shape)} there and "
                f"{list(wanted[name])} in this tower, whose sizes are others"
            )
    matched = [name for name in wanted if name in found]
    embeddings = {id(p) for p in parameters_of(tower.layers()[0])}
    inputs = {name for name, p in tower.named_parameters() if id(p) in embeddings}
    if not inputs & set(matched):  # blocks alone look alike in many networks
        matched = []
    report = Report(
        [name.removeprefix(own) for name in matched],
        [name.removeprefix(own) for name in wanted if name not in matched],
        [name.removeprefix(own) for name in found if name not in wanted] + beyond,
        [
            f"{name.removeprefix(own)} {was} -> {list(wanted[name])}"
            for name in matched
            if (was := resampled(name.removeprefix(own), found[name], tensors))
        ],
    )
    report.settle(source)
    tower.load_state_dict({name: found[name] for name in matched}, strict=False)
    return report


def read(file: str, source: str, modality: str) -> Tensors:
    """The tensors of a file. Raises UserError, for those that are of no use here as well."""
    try:
        tensors: Tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{source}: cannot be read: {first_line(error)}") from error
    run = [name for name in tensors if name.startswith("encoders.")]
    mine = [name for name in run if name.startswith(f"encoders.{modality}.")]
    if run and not mine:
        raise UserError(f"{source}: the weights of a run without encoder/{modality}")
    adapters = [name for name in mine or tensors if ".lora_A." in name]
    if adapters:
        raise UserError(
            f"{source}: holds LoRA adapters ({some(adapters)}), which only a tower with the same "
            f"adapters can take over: resume that run, or train from its base weights"
        )
    return tensors


def readings(
    tensors: Tensors, wanted: list[str], modality: str, own: str
) -> Iterator[tuple[Tensors, list[str]]]:
    """The tensors under names as the tower gives them, in each way in which they may be meant.

    Beside them the names of those that are none of the tower's.
    """
    run = f"encoders.{modality}."
    if any(name.startswith(run) for name in tensors):
        yield {n.removeprefix(run): v for n, v in tensors.items() if n.startswith(run)}, []
        return
    library = {name.removeprefix(own) for name in wanted if name.startswith(own)}
    for prefix in dict.fromkeys((common_prefix(tensors, library), "")):
        inside = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        others = [name for name in tensors if not name.startswith(prefix)]
        yield {f"{own}{name}": value for name, value in inside.items()}, others


def common_prefix(tensors: Collection[str], names: Collection[str]) -> str:
    """What stands before most of `names` in a file: "", "bert.", "visual.trunk.", ..."""
    prefixes: Counter[str] = Counter({"": 0})
    for key in tensors:
        words = key.split(".")
        for place in range(len(words)):
            if ".".join(words[place:]) in names:
                prefixes["".join(f"{word}." for word in words[:place])] += 1
    return prefixes.most_common(1)[0][0]


def adapted(found: Tensors, own: str, adapt: Adapt) -> Tensors:
    """The library's own tensors as its module wants them, the others as they are."""
    inner = {name.removeprefix(own): v for name, v in found.items() if name.startswith(own)}
    others = {name: value for name, value in found.items() if not name.startswith(own)}
    try:
        inner = adapt(inner)
    except Exception:  # a library that looks for its own names in a foreign file fails as it likes
        return found
    return others | {f"{own}{name}": value for name, value in inner.items()}


def resampled(name: str, value: Tensor, tensors: Tensors) -> str:
    """The shape in the file of a tensor that has another size now; "" if it has the same."""
    last = name.rpartition(".")[2]
    same = [one for key, one in tensors.items() if key == name or key.endswith(f".{name}")]
    alike = same or [one for key, one in tensors.items() if key.rpartition(".")[2] == last]
    if not alike or any(one.numel() == value.numel() for one in alike):
        return ""
    return str(list(alike[0].shape))
