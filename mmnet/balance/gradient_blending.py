"""Gradient blending: losses of each modality and of both, weighed by what generalises."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmnet.balance.unimodal import Unimodal
from mmnet.bounds import PositiveFloat, PositiveInt
from mmnet.interfaces import Batch
from mmnet.outer import Plan


JOINT = "joint"
SMOOTH = 0.9  # of the training losses that are compared


class GradientBlending:
    """A loss that gained much on held-out samples for little over-fitting counts more.

    Wang et al., arXiv 1905.12681, online: every `every` steps each loss is compared with what it
    was then, on training samples and on the meta-batch. With G what the held-out loss fell and O
    what the gap between the two grew, the weight is G / O^2, normalised to a sum of 1 over the
    modalities' own classifiers and the network's head.
    """

    labels: ClassVar[bool] = True
    meta_batch: int | None = None

    def __init__(self, every: PositiveInt, head_lr: PositiveFloat) -> None:
        self.every, self.head_lr = every, head_lr

    def begin(self, plan: Plan) -> None:
        self.unimodal = Unimodal(plan, self.head_lr)
        self.meta = plan.meta
        self.names = [JOINT, *self.unimodal.heads]
        self.weights = {name: 1 / len(self.names) for name in self.names}
        self.trained: dict[str, float] = {}  # training loss, mean over the last steps
        self.before: dict[str, tuple[float, float]] = {}  # training and held-out loss
        self.seen: dict[str, Tensor] = {}  # of this step
        self.step = 0

    def loss(self, joint: Tensor, batch: Batch, share: float) -> Tensor:
        """The weighted sum over what a micro-batch has; `share`: of the step's samples."""
        losses = {JOINT: joint}
        for name in self.unimodal.heads:
            if name in batch.inputs:
                losses[name] = self.unimodal.loss(name, batch)
        for name, loss in losses.items():
            self.seen[name] = self.seen.get(name, 0) + share * loss.detach()
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()

    def modulate(self) -> None:
        pass

    def stepped(self) -> None:
        """After the optimizer's step."""
        self.unimodal.step()
        self.step += 1
        values = dict(zip(self.seen, torch.stack(list(self.seen.values())).tolist(), strict=True))
        self.seen = {}
        for name, value in values.items():
            old = self.trained.get(name, value)
            self.trained[name] = SMOOTH * old + (1 - SMOOTH) * value
        if self.step % self.every == 1 % self.every:
            self.weigh()

    @torch.no_grad()
    def weigh(self) -> None:
        """Compare with the last time."""
        held = {JOINT: float(self.meta.loss())}
        batch = self.meta.batches[self.meta.turn]
        for name in self.unimodal.heads:
            held[name] = float(self.unimodal.loss(name, batch, detached=True))
        self.meta.next()
        now = {name: (self.trained.get(name, math.nan), held[name]) for name in self.names}
        if self.before:
            found = {}
            for name, (train, val) in now.items():
                train_before, val_before = self.before[name]
                gained = max(val_before - val, 0.0)
                over = (val - train) - (val_before - train_before)
                found[name] = gained / (over * over + 1e-4)
            total = sum(found.values())
            if math.isfinite(total) and total > 0:
                self.weights = {name: value / total for name, value in found.items()}
        self.before = now

    def state_dict(self) -> dict[str, Any]:
        return {
            "unimodal": self.unimodal.state_dict(),
            "weights": dict(self.weights),
            "trained": dict(self.trained),
            "before": {name: list(pair) for name, pair in self.before.items()},
            "step": self.step,
            "turn": self.meta.turn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.unimodal.load_state_dict(state["unimodal"])
        self.weights, self.trained = dict(state["weights"]), dict(state["trained"])
        self.before = {name: (one, other) for name, (one, other) in state["before"].items()}
        self.step = state["step"]
        self.meta.turn = state["turn"]
