"""A control for the double loop: every group moves by the same share of its norm."""

from typing import Literal

from mmnet.bounds import Fraction, PositiveFloat
from mmnet.controller.guard import largest_rate
from mmnet.controller.steering import Steering
from mmnet.outer import Signal


class Calibrated(Steering):
    """Each step moves a group by `rho` of its norm, risen to at first and falling to zero.

    As LAMB does by layer (You et al., arXiv 1904.00962), with a constant in place of the base
    rate, which has no effect here.
    """

    def __init__(
        self, rho: PositiveFloat, warmup_ratio: Fraction, by: Literal["parts", "blocks"]
    ) -> None:
        self.rho, self.warmup_ratio, self.by = rho, warmup_ratio, by

    def steer(self, signal: Signal) -> None:
        _, _, update, weight = self.sums(signal)
        done = (self.step + 0.5) / self.steps
        rising = done / self.warmup_ratio if self.warmup_ratio else 1.0
        rho = self.rho * min(rising, (1 - done) / (1 - self.warmup_ratio))
        self.put(largest_rate(weight, update, self.kinds.sizes, max(rho, 0.0)))
        self.step += 1
