"""Freezing and thawing of the blocks of encoders, by what they still contribute."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmnet.bounds import PositiveFloat, PositiveInt, Share
from mmnet.controller.observer import AdamObserver
from mmnet.encoder import parameters_of
from mmnet.outer import Plan


DECAY = 0.8  # of means over decisions
PATIENCE = 3  # decisions before anything is frozen
GROWN = 4.0  # times its share of the gradient when it was frozen: a block thaws


class Freezing:
    """Blocks are frozen once their share of progress no longer pays for their share of the cost.

    Progress is what the last step should have gained, to first order: rate x <g, u>. Cost is
    counted in weights. Blocks freeze from the input up and are judged together, for it is where
    backward ends that saves; the last one of an encoder always learns. `pays`: freeze below this
    ratio of the two shares; `after`: not before this share of the run. At every `probe`-th decision
    frozen blocks have gradients for one step; one whose share of the squared gradient is four times
    what it was when it was frozen thaws, with all that follow it.
    """

    def __init__(
        self, enabled: bool, pays: PositiveFloat, after: Share, probe: PositiveInt
    ) -> None:
        self.enabled, self.pays, self.after, self.probe = enabled, pays, after, probe

    def begin(self, plan: Plan, observer: AdamObserver) -> None:
        """Before the first step, or before the state of a checkpoint is loaded."""
        self.steps = plan.steps
        self.towers = blocks_of(plan.model)
        self.names = [f"{t}.{i}" for t, blocks in self.towers.items() for i in range(len(blocks))]
        places = {id(p): place for place, p in enumerate(observer.parameters)}
        chosen = [block for blocks in self.towers.values() for block in blocks]
        self.places = [[places[id(p)] for p in block if id(p) in places] for block in chosen]
        sizes = torch.tensor([float(p.numel()) for p in observer.parameters])
        self.costs = [float(sizes[place].sum() / sizes.sum()) for place in self.places]
        self.groups = observer.group.tolist()
        self.frozen = dict.fromkeys(self.towers, 0)  # how many blocks, from the input up
        self.progress: dict[str, float] = {}  # share of it, mean over decisions
        self.gradient: dict[str, float] = {}  # share of its square, likewise, until frozen
        self.decided = 0
        self.measuring = False

    def decide(self, step: int, each: Tensor, rates: Tensor) -> dict[str, float]:
        """each [N, 4] of the observer on the CPU, rates [G] of the last step.

        -> what changed, for the record.
        """
        grad = each[:, 0]
        gained = each[:, 1] * rates[self.groups]
        before = dict(self.frozen)
        measured, self.measuring = self.measuring, False
        for name, place in zip(self.names, self.places, strict=True):
            share = float(grad[place].sum() / grad.sum())
            if self.is_frozen(name):
                if measured and share > GROWN * self.gradient[name]:
                    tower, _, number = name.partition(".")
                    self.frozen[tower] = min(self.frozen[tower], int(number))
                continue
            follow(self.gradient, name, share)
            if gained.sum() > 0:
                follow(self.progress, name, float(gained[place].sum() / gained.sum()))
        self.decided += 1
        if not measured and self.decided > PATIENCE and step >= self.after * self.steps:
            self.freeze()
        self.apply()
        return {
            f"{tower}/frozen": float(count)
            for tower, count in self.frozen.items()
            if count != before[tower]
        }

    def freeze(self) -> None:
        """Of each tower, the most blocks from the input up that together do not pay."""
        costs = dict(zip(self.names, self.costs, strict=True))
        for tower, blocks in self.towers.items():
            progress = cost = 0.0
            for number in range(self.frozen[tower], len(blocks) - 1):
                name = f"{tower}.{number}"
                progress += self.progress.get(name, math.inf)
                cost += costs[name]
                if progress < self.pays * cost:
                    self.frozen[tower] = number + 1

    def prepare(self, due: bool) -> None:
        """Before each step; `due`: whether there will be a decision in it."""
        if due and any(self.frozen.values()) and self.decided % self.probe == 0:
            self.measuring = True
            self.apply()

    def is_frozen(self, name: str) -> bool:
        tower, _, number = name.partition(".")
        return int(number) < self.frozen[tower]

    def apply(self) -> None:
        """Say to the weights whether they learn; a gradient of those that do not is dropped."""
        for tower, blocks in self.towers.items():
            for number, block in enumerate(blocks):
                learns = self.measuring or number >= self.frozen[tower]
                for parameter in block:
                    parameter.requires_grad_(learns)
                    if not learns:
                        parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "frozen": dict(self.frozen),
            "progress": dict(self.progress),
            "gradient": dict(self.gradient),
            "decided": self.decided,
            "measuring": self.measuring,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.apply()


def follow(means: dict[str, float], name: str, value: float) -> None:
    """An exponential mean that begins at the first value."""
    means[name] = means.get(name, value) + (1 - DECAY) * (value - means.get(name, value))


def blocks_of(model: Any) -> dict[str, list[list[nn.Parameter]]]:
    """What can learn, by encoder and by its layers from the input up.

    What follows the last block belongs to it; layers that the settings freeze are left out.
    """
    found = {}
    for name, encoder in model.encoders.items():
        *layers, after = [
            [p for p in parameters_of(layer) if p.requires_grad] for layer in encoder.layers()
        ]
        blocks = [block for block in layers if block]
        if blocks:
            blocks[-1] = [*blocks[-1], *after]
        if len(blocks) > 1:
            found[name] = blocks
    return found
