"""What controllers of groups share: the optimizer's sums by group, and rates by group."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmnet.controller import groups
from mmnet.controller.groups import By
from mmnet.controller.observer import SUMS, observer_of
from mmnet.outer import Plan, Signal


class Steering(ABC):
    """Sets a rate for each group: say in `look` when to bring sums, and in `steer` what follows."""

    optimizers: ClassVar[tuple[str, ...]] = (
        "mmnet.optimizer.adamw.adamw",
        "mmnet.optimizer.schedule_free.schedule_free",
    )
    schedules: ClassVar[tuple[str, ...]] = ("mmnet.schedule.constant.constant",)
    by: By | None
    shadow = False
    meta_batch: int | None = 0

    def begin(self, plan: Plan) -> None:
        """Before the first step, or before the state of a checkpoint is loaded."""
        self.optimizer, self.steps = plan.optimizer, plan.steps
        self.observer = observer_of(plan.optimizer)
        self.names = groups.names(plan.optimizer)
        self.kinds = groups.kinds(self.names, self.observer.sizes)
        self.step = 0  # good ones: the clock does not see those that are skipped
        self.decision: dict[str, float] = {}
        self.by_name: dict[str, float] = {}

    def losing(self) -> dict[str, float]:
        return {}

    def look(self) -> Tensor | None:
        return self.observer.sums(self.observer.each()).flatten()

    @abstractmethod
    def steer(self, signal: Signal) -> None: ...

    def sums(self, signal: Signal) -> Tensor:
        """What `look` brought, as clipped: [4, 1, G] of |g|^2, <g, u>, |u|^2, |theta|^2."""
        return as_clipped(torch.tensor(signal.seen).view(-1, SUMS), signal).T[:, None]

    def put(self, rates: Tensor) -> None:
        """[1, G] -> the optimizer's groups."""
        self.by_name = dict(zip(self.names, rates[0].tolist(), strict=True))
        self.put_again()

    def put_again(self) -> None:
        """The rates of the step before, over what the schedule says."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.by_name[group["control"]] * group["lr_scale"]

    def rates(self) -> dict[str, float]:
        return self.by_name

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "rates": dict(self.by_name)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.by_name = state["step"], dict(state["rates"])


def as_clipped(sums: Tensor, signal: Signal) -> Tensor:
    """[n, 4] of `SUMS` as they are once the gradient is clipped."""
    return sums * torch.tensor([signal.clipped**2, signal.clipped, 1.0, 1.0])
