"""What sets the rates of small runs: schedules, policies."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmnet.controller.clock import decisions
from mmnet.controller.features import ACTIONS, Seen, Watch
from mmnet.controller.guard import largest_rate, moved
from mmnet.controller.policy import Policy
from mmnet.meta.inner import Settings
from mmnet.meta.tasks import Task
from mmnet.schedule.constant import constant


Shape = Callable[[float], float]  # share of the run done -> factor on the rate
WARM_UP = 0.05  # of a run, where a schedule has one


def cosine(done: float) -> float:
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


class Scheduled:
    """base rate x a function of the step."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def begin(self, task: Task, runs: int) -> None:
        self.steps, self.groups = task.steps, len(task.network.sizes())

    def due(self, step: int) -> bool:
        return False

    def settings(self, step: int, base: Tensor, seen: Seen | None) -> Settings:
        rate = base * self.shape((step + 0.5) / self.steps)
        return Settings(rate[:, None].expand(-1, self.groups))


class Steered:
    """A policy for each run, or one for all of them, behind the guard."""

    def __init__(self, policy: Policy, rho_max: float) -> None:
        self.policy, self.rho_max = policy, rho_max
        self.schedule = constant(WARM_UP)  # the one on which policies act

    def begin(self, task: Task, runs: int) -> None:
        kinds = task.network.kinds()
        self.watch = Watch(kinds, task.steps, task.passes)
        self.when = set(decisions(task.steps))
        groups = len(kinds.sizes)
        self.steps = task.steps
        self.actions = torch.zeros(runs, groups, len(ACTIONS))
        hidden, cell = self.policy.start(groups)
        self.state = hidden.expand(runs, -1, -1), cell.expand(runs, -1, -1)

    def due(self, step: int) -> bool:
        return step in self.when

    def settings(self, step: int, base: Tensor, seen: Seen | None) -> Settings:
        base = base * self.schedule(step + 1, self.steps)
        if seen is not None:
            log_rate = base.log()[:, None] + self.actions[..., 0]
            features = self.watch.features(step, log_rate, self.actions, seen)
            out, self.state = self.policy.act(features, self.state)
            self.actions = moved(self.actions, out)
            sizes = self.watch.kinds.sizes
            self.limit = largest_rate(seen.weight, seen.update, sizes, self.rho_max)
        rate, strength = self.actions.exp().unbind(2)
        return Settings(torch.minimum(base[:, None] * rate, self.limit), strength)
