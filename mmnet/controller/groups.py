"""Which parameters are steered together: those of an encoder, of the fusion, of the head."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmnet.config import MODALITIES
from mmnet.controller.features import Kinds
from mmnet.encoder import parameters_of


By = Literal["parts", "blocks"]


def mark(model: Any, by: By) -> None:
    """Tell every parameter its group, by which the optimizer divides them.

    parts: image, text, fusion, head; blocks: an encoder's by `Encoder.layers` as well, text.3.
    Also whether it is a matrix, see `pacing`.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for parameter in model.parameters():
        matrix = parameter.ndim > 1 and len(parameter) > 1 and id(parameter) not in tables
        setattr(parameter, "sets_pace", matrix)  # noqa: B010 (not declared)
    for name, encoder in model.encoders.items():
        put(encoder.parameters(), name)
        for number, layer in enumerate(encoder.layers() if by == "blocks" else []):
            put(parameters_of(layer), f"{name}.{number}")
    for name in ("fusion", "head"):
        put(getattr(model, name).parameters(), name)


def pacing(parameters: Sequence[Any], group: Sequence[int]) -> Tensor:
    """[N] bool: whose size a group's steps are measured against; `group` [N]: which it is in.

    Matrices: a norm's gains, all 1, and embeddings of unit variance, of which a step moves a few
    rows, would make a group look larger than it is. Of a group without a matrix, all.
    """
    paced = {g for p, g in zip(parameters, group, strict=True) if p.sets_pace}
    return torch.tensor(
        [p.sets_pace or g not in paced for p, g in zip(parameters, group, strict=True)]
    )


def put(parameters: Iterable[nn.Parameter], group: str) -> None:
    for parameter in parameters:
        setattr(parameter, "control", group)  # noqa: B010 (not declared)


def tower(group: str) -> str:
    """The modality of an encoder's group; else ""."""
    name = group.partition(".")[0]
    return name if name in MODALITIES else ""


def names(optimizer: Any) -> list[str]:
    """The groups of an optimizer's parameters, each once, in their order."""
    return list(dict.fromkeys(group["control"] for group in optimizer.param_groups))


def kinds(names: Sequence[str], sizes: Tensor) -> Kinds:
    """What groups are, for the features; sizes [G] of what sets their pace."""
    return Kinds(
        sizes,
        tower=torch.tensor([float(bool(tower(name))) for name in names]),
        fusion=torch.tensor([float(name == "fusion") for name in names]),
    )
