"""A network as an ONNX graph: named tensors in, named tensors out, any batch size."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmnet.interfaces import Inputs
from mmnet.model import Multimodal


class Flat(nn.Module):
    """The network with a flat list of tensors for its inputs and its answers.

    Of each modality, in the order of the encoders: its values; its mask, where it has one; and
    `present`, where the network has another modality to answer from.
    """

    def __init__(self, network: Multimodal, example: dict[str, Inputs]) -> None:
        super().__init__()
        self.network = network
        several = len(network.encoders) > 1
        self.slots = [
            (name, field)
            for name in network.encoders
            for field in Inputs._fields
            if field == "values"
            or (field == "mask" and example[name].mask is not None)
            or (field == "present" and several)
        ]

    @property
    def names(self) -> list[str]:
        """Of the graph's inputs: image, text, text_mask, image_present, ..."""
        return [name if field == "values" else f"{name}_{field}" for name, field in self.slots]

    def arguments(self, inputs: dict[str, Inputs]) -> tuple[Tensor, ...]:
        """A batch as the graph takes it."""
        found = []
        for name, field in self.slots:
            value = getattr(inputs[name], field)
            if value is None:  # all of them are there
                value = torch.ones(len(inputs[name].values), dtype=torch.bool)
            found.append(value)
        return tuple(found)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given: dict[str, dict[str, Tensor]] = {}
        for (name, field), tensor in zip(self.slots, tensors, strict=True):
            given.setdefault(name, {})[field] = tensor
        inputs = {
            name: Inputs(one["values"], one.get("mask"), one.get("present"))
            for name, one in given.items()
        }
        answers = self.network(inputs)
        return (answers,) if isinstance(answers, Tensor) else tuple(answers.values())


class Exported(NamedTuple):
    """An ONNX file and what its inputs and outputs are called."""

    path: Path
    inputs: list[str]
    outputs: list[str]


def to_onnx(network: Multimodal, example: dict[str, Inputs], path: Path) -> Exported:
    """Write `network` to `path`; `example` is a batch of two or more samples to trace it with.

    Batch and token dimensions are free. Raises what torch.onnx.export raises.
    """
    network = network.eval()
    flat = Flat(network, example)
    arguments = flat.arguments(example)
    with torch.no_grad():
        answers = network(example)
    # Their own names may be those of inputs: an embedding of the image is called image.
    named = [] if isinstance(answers, Tensor) else [name.replace("/", "_") for name in answers]
    outputs = [f"answer_{name}" for name in named] or ["answer"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            flat,
            arguments,
            path,
            input_names=flat.names,
            output_names=outputs,
            dynamo=True,
            dynamic_shapes=(shapes(arguments),),
            verbose=False,
        )
    return Exported(path, flat.names, outputs)


def shapes(arguments: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    """Which dimensions of each input are free: the batch, and the length of token sequences."""
    free: list[dict[int, Any]] = []
    for tensor in arguments:
        dims: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
        if tensor.ndim in (2, 3):
            dims[1] = torch.export.Dim.DYNAMIC
        free.append(dims)
    return tuple(free)
