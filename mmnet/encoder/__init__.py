"""Encoders: one modality in, features out; one folder a modality, one file a family."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from mmnet.interfaces import Inputs


def padded(tensors: list[Tensor], fill: int = 0) -> Inputs:
    """[T, ...] of several samples -> one batch as long as the longest.

    Masked by length, not by content: a caption may spell out the pad token.
    """
    values = nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)
    lengths = torch.tensor([len(tensor) for tensor in tensors])
    return Inputs(values, torch.arange(values.shape[1]) < lengths[:, None])


def parameters_of(parts: Iterable[nn.Module | nn.Parameter]) -> Iterator[nn.Parameter]:
    """All parameters of a layer as `Encoder.layers` lists it."""
    for part in parts:
        if isinstance(part, nn.Parameter):
            yield part
        else:
            yield from part.parameters()
