"""A control for the double loop: each group's rate follows its own slope, online."""

from typing import Any, Literal

import torch

from mmnet.bounds import PositiveFloat
from mmnet.controller.features import BOUNDS
from mmnet.controller.steering import Steering
from mmnet.outer import Plan, Signal


class Hypergradient(Steering):
    """Hypergradient descent (Baydin et al., arXiv 1703.04782), multiplicative and normalised.

    The slope of the loss in the log of the last rate is -<g, u>: each step adds `rate` times the
    cosine of gradient and last update to a group's log multiplier, which stays within 1/100 and
    100.
    """

    def __init__(self, rate: PositiveFloat, by: Literal["parts", "blocks"]) -> None:
        self.rate, self.by = rate, by

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self.action = torch.zeros(1, len(self.names))

    def steer(self, signal: Signal) -> None:
        grad, dot, update, _ = self.sums(signal)
        cosine = dot / (grad * update + 1e-30).sqrt()
        self.action = (self.action + self.rate * cosine).clamp(-BOUNDS[0], BOUNDS[0])
        self.put(signal.rate * self.action.exp())
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "action": self.action}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.action = state["action"]
