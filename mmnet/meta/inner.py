"""The inner loop of meta-training: P runs of one task at once, each with its own rates."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmnet.controller.features import Seen
from mmnet.controller.guard import LARGEST_DROPOUT, LARGEST_SMOOTHING
from mmnet.data.modality_dropout import MOST
from mmnet.meta.networks import Masks, cross_entropy, per_group
from mmnet.meta.tasks import Task


EPS = 1e-8
IMAGE, TEXT, FUSION, HEAD = range(4)  # places of the groups


class Settings(NamedTuple):
    """What an arm sets for one step."""

    rates: Tensor  # [P, G]
    strength: Tensor | None = None  # [P, G] what regularisation is multiplied with; None: 1


class Arm(Protocol):
    """Who sets the rates of P runs."""

    def begin(self, task: Task, runs: int) -> None: ...

    def due(self, step: int) -> bool:
        """Whether it wants to look before this step."""

    def settings(self, step: int, base: Tensor, seen: Seen | None) -> Settings:
        """base [P] rates -> what this step is taken with; `seen` is None unless due."""


class Score(NamedTuple):
    """How P runs ended, on the validation samples."""

    loss: Tensor  # [P], at most five times what knowing nothing costs
    accuracy: Tensor  # [P]


class Base(NamedTuple):
    """What P runs regularise with by their settings, [P] each."""

    dropout: Tensor
    modality_dropout: Tensor
    smoothing: Tensor
    decay: Tensor


class Regularisation:
    """Dropout, modality dropout, label smoothing and weight decay of P runs.

    The r-th copies of a data set draw the same numbers, so that they differ by their arm alone.
    """

    def __init__(self, task: Task, repeat: int) -> None:
        self.repeat = repeat
        self.base = Base(
            task.dropout.repeat(repeat),
            task.modality_dropout.repeat(repeat),
            task.smoothing.repeat(repeat),
            task.decay.repeat(repeat),
        )
        self.generator = torch.Generator(task.weights.device).manual_seed(0)
        self.set(torch.ones(len(self.base.decay), len(task.network.sizes())))

    def set(self, strength: Tensor) -> None:
        """strength [P, G]"""
        base = self.base
        self.dropout = (base.dropout[:, None] * strength).clamp_max(LARGEST_DROPOUT)
        self.dropout[:, HEAD] = 0.0
        lost = 0.5 * base.modality_dropout[:, None] * strength[:, :FUSION]
        self.lost = lost.clamp_max(MOST / 2)
        self.smoothing = (base.smoothing * strength[:, HEAD]).clamp_max(LARGEST_SMOOTHING)
        self.decay = base.decay[:, None] * strength

    def masks(self, batch: int, width: int) -> Masks:
        """For the next step."""
        networks = len(self.dropout) // self.repeat

        def chances(*shape: int) -> Tensor:
            found = torch.rand(networks, *shape, generator=self.generator)
            return found.repeat(self.repeat, *[1] * len(shape))

        def mask(group: int) -> Tensor:
            share = self.dropout[:, group, None, None]
            return (chances(batch, width) >= share) / (1 - share)

        lost = chances(batch)
        no_image = lost < self.lost[:, IMAGE, None]
        no_text = lost > 1 - self.lost[:, TEXT, None]
        return Masks(
            (mask(IMAGE) * ~no_image[:, :, None], mask(TEXT) * ~no_text[:, :, None]),
            mask(FUSION),
        )


def train(task: Task, arm: Arm, repeat: int = 1) -> Score:
    """Train by AdamW: run r * n + i is the r-th on data set i of the task."""
    network, sizes = task.network, task.network.sizes()
    weights = task.weights.repeat(repeat, 1)
    runs, groups = len(weights), len(sizes)
    base, regular = task.rate.repeat(repeat), Regularisation(task, repeat)
    beta1, beta2 = task.betas
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    update = torch.zeros_like(weights)
    # Before the first step nothing is known of it; Adam's first one has entries of size 1.
    length = torch.tensor(sizes, dtype=torch.float32).expand(runs, groups)
    unknown = torch.full((runs, groups - 2), torch.nan)
    losses: list[Tensor] = []
    looks = 0
    arm.begin(task, runs)

    def batch(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, text, labels = task.data.rows(index)
        return image.repeat(repeat, 1, 1), text.repeat(repeat, 1, 1), labels.repeat(repeat, 1)

    for step in range(task.steps):
        image, text, labels = batch(task.order[:, step])
        masks = regular.masks(labels.shape[1], network.width)
        leaf = weights.detach().requires_grad_()
        logits = network(leaf, image, text, masks=masks)
        loss = cross_entropy(logits, labels, regular.smoothing)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        losses.append(loss.detach())
        with torch.no_grad():
            seen = None
            if arm.due(step):
                held = batch(task.held(looks))
                meta, *without = [
                    cross_entropy(network(weights, *held[:2], w), held[2], regular.base.smoothing)
                    for w in (None, IMAGE, TEXT)
                ]
                looks += 1
                seen = Seen(
                    grad=per_group(grad * grad, sizes),
                    dot=per_group(grad * update, sizes),
                    update=length,
                    weight=per_group(weights * weights, sizes),
                    loss=torch.stack(losses).mean(0),
                    meta=meta,
                    without=torch.cat([torch.stack(without, 1), unknown], 1),
                    dropout=regular.dropout,
                )
                losses.clear()
            rates, strength = arm.settings(step, base, seen)
            if strength is not None and seen is not None:
                regular.set(strength)
            mean.lerp_(grad, 1 - beta1)
            square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            scale = square.sqrt().mul_((1 - beta2 ** (step + 1)) ** -0.5).add_(EPS)
            torch.div(mean, scale, out=update).mul_(1 / (1 - beta1 ** (step + 1)))
            length = per_group(update * update, sizes)
            parts = zip(torch.split(weights, sizes, 1), torch.split(update, sizes, 1), strict=True)
            for group, (weight, change) in enumerate(parts):
                rate = rates[:, group, None]
                decay = regular.decay[:, group, None]
                weight.mul_(1 - rate * decay).addcmul_(change, rate, value=-1)
    return score(task, weights, repeat)


@torch.no_grad()
def score(task: Task, weights: Tensor, repeat: int) -> Score:
    """Loss and accuracy on the validation samples, one copy of the data at a time."""
    image, text, labels = task.data.rows(task.validation)
    found = []
    for part in weights.chunk(repeat):
        logits = task.network(part, image, text)
        right = (logits.argmax(2) == labels).float().mean(1)
        found.append((cross_entropy(logits, labels), right))
    worst = 5 * task.chance
    loss = torch.cat([one for one, _ in found])
    return Score(
        torch.nan_to_num(loss, nan=worst, posinf=worst).clamp(1e-4, worst),
        torch.cat([right for _, right in found]),
    )
