"""Samples of a training step lose one of their modalities, never all."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mmnet.interfaces import IGNORED, Batch


MOST = 0.9  # of the samples lose a modality, whatever the chance is multiplied with


def divided(
    chance: float, modalities: Collection[str], times: Mapping[str, float]
) -> dict[str, float]:
    """How often each modality is lost: in all, a sample loses one by `chance`.

    `times`: what that of a modality is multiplied with; 1 if it is not there.
    """
    if len(modalities) < 2:
        return {}
    each = chance / len(modalities)
    most = MOST / len(modalities)
    return {name: min(most, each * times.get(name, 1.0)) for name in modalities}


def drop(batches: list[Batch], chances: Mapping[str, float], seed: int, step: int) -> list[Batch]:
    """`chances`: how often each modality is lost. Drawn by (seed, step), for the whole step at
    once, so that splitting it into micro-batches changes nothing.

    A sample that has one modality keeps it.
    """
    if not any(chances.values()):
        return batches
    generator = torch.Generator().manual_seed(hash((seed, step)) % 2**63)
    drawn = torch.rand(sum(batch.size for batch in batches), generator=generator)
    parts = torch.split(drawn, [batch.size for batch in batches])
    return [without(batch, chances, part) for batch, part in zip(batches, parts, strict=True)]


def without(batch: Batch, chances: Mapping[str, float], drawn: Tensor) -> Batch:
    """drawn [B] in [0, 1): below the first chance the first modality is lost, and so on."""
    inputs, targets = dict(batch.inputs), dict(batch.targets)
    device = next(iter(inputs.values())).values.device
    there = {}
    for name, one in inputs.items():
        rows = one.present
        there[name] = (
            torch.ones(batch.size, dtype=torch.bool, device=device) if rows is None else rows
        )
    several = torch.stack(list(there.values())).sum(0) > 1
    drawn, low = drawn.to(device), 0.0
    for name, chance in chances.items():
        lost = (drawn >= low) & (drawn < low + chance) & several
        low += chance
        if name not in inputs:
            continue
        inputs[name] = inputs[name]._replace(present=there[name] & ~lost)
        if name == "text" and "tokens" in targets:  # there is nothing to guess them from
            targets["tokens"] = targets["tokens"].masked_fill(lost[:, None], IGNORED)
    return Batch(inputs, targets, batch.size)
