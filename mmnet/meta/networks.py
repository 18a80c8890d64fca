"""Small two-tower networks, P of them side by side: row p of one flat tensor is network p."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmnet.controller.features import Kinds


HEADS = 2  # of attention


class Masks(NamedTuple):
    """What dropout multiplies with, 0 where something is dropped."""

    towers: tuple[Tensor, Tensor]  # [P, B, width] of what image and text towers say
    fused: Tensor  # [P, B, width]


@dataclass(frozen=True)
class TwoTowers:
    """An encoder for each modality, an MLP that joins them, and a linear head.

    inputs: widths of image and text; depth: further layers of image, text and fusion. tokens: 0
    makes the encoders MLPs; else they are transformers over their inputs cut into so many pieces.
    """

    inputs: tuple[int, int]
    width: int
    classes: int
    depth: tuple[int, int, int]
    residual: bool  # with layer norm, or plain
    activation: Callable[[Tensor], Tensor]
    tokens: int = 0

    def shapes(self) -> list[list[tuple[int, int]]]:
        """Of each group's weights and biases, in the order of use."""

        def linear(rows: int, columns: int, times: int = 1) -> list[tuple[int, int]]:
            return [(rows, columns), (1, columns)] * times

        width, (image, text, fusion) = self.width, self.depth

        def encoder(inputs: int, depth: int) -> list[tuple[int, int]]:
            if not self.tokens:
                return linear(inputs, width) + linear(width, width, depth)
            block = linear(width, 3 * width) + linear(width, width)
            block += linear(width, 2 * width) + linear(2 * width, width)
            positions = (self.tokens, width)
            return [*linear(inputs // self.tokens, width), positions, *block * (depth + 1)]

        return [
            encoder(self.inputs[0], image),
            encoder(self.inputs[1], text),
            linear(2 * width, width) + linear(width, width, fusion),
            linear(width, self.classes),
        ]

    def sizes(self) -> list[int]:
        """Weights in each group."""
        return [sum(math.prod(shape) for shape in group) for group in self.shapes()]

    def kinds(self) -> Kinds:
        return Kinds(
            torch.tensor(self.sizes(), dtype=torch.float32),
            tower=torch.tensor([1.0, 1.0, 0.0, 0.0]),
            fusion=torch.tensor([0.0, 0.0, 1.0, 0.0]),
        )

    def fresh(self, networks: int, generator: torch.Generator) -> Tensor:
        """[P, W]: biases 0, weights of variance 1 / inputs."""
        parts = [
            torch.zeros(networks, rows * columns)
            if rows == 1
            else torch.randn(networks, rows * columns, generator=generator) / math.sqrt(rows)
            for group in self.shapes()
            for rows, columns in group
        ]
        return torch.cat(parts, 1)

    def __call__(
        self,
        weights: Tensor,
        image: Tensor,
        text: Tensor,
        without: int | None = None,
        masks: Masks | None = None,
    ) -> Tensor:
        """weights [P, W], image and text [P, B, D] -> logits [P, B, C].

        `without` leaves out a modality, 0 or 1: what its tower says becomes zero.
        """
        networks = len(weights)
        flat = [shape for group in self.shapes() for shape in group]
        split = torch.split(weights, [math.prod(shape) for shape in flat], 1)
        parts = iter([w.view(networks, *shape) for w, shape in zip(split, flat, strict=True)])

        def linear(x: Tensor) -> Tensor:
            weight, bias = next(parts), next(parts)
            return torch.baddbmm(bias, x, weight)

        def norm(x: Tensor) -> Tensor:
            return F.layer_norm(x, (self.width,)) if self.residual else x

        def tower(x: Tensor, depth: int) -> Tensor:
            x = self.activation(linear(x))
            for _ in range(depth):
                further = self.activation(linear(norm(x)))
                x = x + further if self.residual else further
            return norm(x)

        def attended(x: Tensor) -> Tensor:
            mixed = linear(x).view(-1, self.tokens, 3, HEADS, self.width // HEADS)
            query, key, value = mixed.permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(query, key, value)
            return linear(found.transpose(1, 2).reshape(x.shape))

        def transformer(x: Tensor, depth: int) -> Tensor:
            batch = x.shape[1]
            x = linear(x.reshape(networks, batch * self.tokens, -1))
            x = x + next(parts).repeat(1, batch, 1)
            for _ in range(depth + 1):
                x = x + attended(F.layer_norm(x, (self.width,)))
                x = x + linear(self.activation(linear(F.layer_norm(x, (self.width,)))))
            pooled = x.view(networks, batch, self.tokens, self.width).mean(2)
            return F.layer_norm(pooled, (self.width,))

        encoder = transformer if self.tokens else tower
        towers = [encoder(image, self.depth[0]), encoder(text, self.depth[1])]
        if without is not None:
            towers[without] = torch.zeros_like(towers[without])
        if masks is not None:
            towers = [x * mask for x, mask in zip(towers, masks.towers, strict=True)]
        fused = tower(torch.cat(towers, 2), self.depth[2])
        return linear(fused if masks is None else fused * masks.fused)


def per_group(x: Tensor, sizes: list[int]) -> Tensor:
    """[P, W] -> sums over each group [P, G]."""
    return torch.stack([part.sum(1) for part in torch.split(x, sizes, 1)], 1)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """[P, B, C], [P, B] -> mean of each network [P]; smoothing [P]."""
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    found = each.view(labels.shape).mean(1)
    if smoothing is None:
        return found
    even = (logits.logsumexp(2) - logits.mean(2)).mean(1)
    return found + smoothing * (even - found)
