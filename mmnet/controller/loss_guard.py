"""What becomes of a run whose loss blows up under the controller."""

from typing import Any, Literal

import torch
from torch import Tensor

from mmnet.controller.guard import CHANGE


WORSE = 3.0  # times the best loss
RISEN = 0.25  # and above it by this share of the first loss: near zero, three times is nothing
PATIENCE = 3  # decisions in a row
DECAY = 0.5  # of the mean over decisions

Verdict = Literal["well", "restored", "fallen back"]


class LossGuard:
    """Training loss above three times its best, for three decisions in a row, is a blow-up.

    The first time, the multipliers go back to those of the best loss, rates halved, and no rate's
    multiplier may be larger from then on. The second time the policy is dismissed for the rest of
    the run: controller=calibrated's rule takes over.
    """

    def __init__(self, groups: int) -> None:
        self.first = self.best = self.mean = float("nan")
        self.good = torch.zeros(1, groups, 2)  # the multipliers at the best loss, log
        self.ceiling = torch.full((1, groups), torch.inf)  # of the log multiplier of the rate
        self.bad = 0  # decisions in a row
        self.times = 0

    def judge(self, loss: float, actions: Tensor) -> tuple[Tensor, Verdict]:
        """The mean training loss since the last decision and the multipliers it was had with.

        -> the multipliers to go on from.
        """
        if self.first != self.first:
            self.first = self.best = self.mean = loss
        self.mean += (1 - DECAY) * (loss - self.mean)
        if self.mean <= self.best:
            self.best, self.good = self.mean, actions.clone()
        line = max(WORSE * self.best, self.best + RISEN * abs(self.first))
        self.bad = self.bad + 1 if not self.mean <= line else 0
        if self.bad < PATIENCE:
            return self.limited(actions), "well"
        self.bad, self.mean = 0, self.best  # what follows is judged anew
        self.times += 1
        if self.times > 1:
            return actions, "fallen back"
        back = self.good.clone()
        back[..., 0] -= CHANGE
        self.ceiling = back[..., 0].clone()
        return back, "restored"

    def limited(self, actions: Tensor) -> Tensor:
        """No rate's multiplier above the ceiling."""
        rate = torch.minimum(actions[..., 0], self.ceiling)
        return torch.stack([rate, actions[..., 1]], 2)

    @property
    def dismissed(self) -> bool:
        return self.times > 1

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
