"""Prepared samples of any modalities side by side, as the encoders take them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmnet.errors import UserError
from mmnet.interfaces import Inputs, Prepare, Sample


def blanks(prepare: Mapping[str, Prepare]) -> dict[str, Tensor]:
    """What stands where a sample lacks a modality, by modality."""
    return {name: one(one.blank) for name, one in prepare.items()}


def collate(
    prepare: Mapping[str, Prepare],
    rows: Sequence[Mapping[str, Tensor]],
    blank: Mapping[str, Tensor],
) -> dict[str, Inputs]:
    """Prepared samples, each with the modalities it has -> one batch, absent rows marked."""
    inputs = {}
    for name, one in prepare.items():
        collated = one.collate([row.get(name, blank[name]) for row in rows])
        if any(name not in row for row in rows):
            collated = collated._replace(present=torch.tensor([name in row for row in rows]))
        inputs[name] = collated
    return inputs


def read(prepare: Mapping[str, Prepare], samples: Sequence[Sample]) -> dict[str, Inputs]:
    """Raw samples -> one batch. Raises UserError for a sample with nothing that is read."""
    rows = []
    for number, sample in enumerate(samples):
        raw: dict[str, Any] = dict(sample)
        rows.append({name: one(raw[name]) for name, one in prepare.items() if name in raw})
        if not rows[-1]:
            wants = " or ".join(prepare)
            raise UserError(f"sample {number} has {', '.join(raw) or 'nothing'}: expected {wants}")
    return collate(prepare, rows, blanks(prepare))
