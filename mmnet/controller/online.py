"""The outer loop, online: what the last step did to the meta-batch corrects the policy."""

from typing import Any

import torch
from torch import Tensor

from mmnet.bounds import PositiveFloat, PositiveInt
from mmnet.controller.guard import CHANGE
from mmnet.controller.observer import AdamObserver, dots
from mmnet.outer import Plan


TINY = 1e-30


class Online:
    """Every `every` steps, one gradient of the loss on the meta-batch; null: never.

    The last step was theta' = theta (1 - lr d) - lr u, so that the exact slope of the meta-batch's
    loss L in the log of a group's rate is

        dL/da = -lr <grad L(theta'), u + d theta>

    and in the log of its weight decay -lr d <grad L(theta'), theta>. Of either only the cosine is
    used: each correction is `rate` times it, and all of them together stay within a factor of two
    up or down. `regularisation`: correct the strength of regularisation as well.
    """

    def __init__(
        self, every: PositiveInt | None, rate: PositiveFloat, regularisation: bool
    ) -> None:
        self.every, self.rate, self.regularisation = every, rate, regularisation

    def begin(self, plan: Plan, observer: AdamObserver) -> None:
        self.meta, self.observer = plan.meta, observer
        self.bias = torch.zeros(1, len(observer.names), 2)

    def due(self, step: int) -> bool:
        """Whether this step, counted from 0, is one to look at."""
        return self.every is not None and step > 0 and step % self.every == 0

    def look(self, rates: dict[str, float]) -> Tensor:
        """-> [5 G] on the device: by group, sums of products of grad L, u + d theta, d theta.

        `rates`: those of the last step. To be called before a step is taken: weights and the
        optimizer's state are then those that the last step left.
        """
        live = [p for p in self.observer.parameters if p.grad is not None]
        gradients = dict(zip(map(id, live), self.meta.gradients(live), strict=True))
        rows = [
            row
            for group in self.observer.optimizer.param_groups
            for row in self.products(group, gradients, rates[group["control"]])
        ]
        return self.observer.sums(torch.stack(rows)).T.flatten()

    @torch.no_grad()
    def products(
        self, group: dict[str, Any], gradients: dict[int, Tensor | None], rate: float
    ) -> list[Tensor]:
        """[5] of each parameter of one group of the optimizer, 0 of those without a gradient."""
        reached = [p for p in group["params"] if gradients.get(id(p)) is not None]
        updates = self.observer.updates(group, reached) if reached else []
        nothing = torch.zeros(5, device=self.observer.device)
        if not updates:
            return [nothing] * len(group["params"])
        grad: Any = [gradients[id(p)] for p in reached]
        decay, rate = group["weight_decay"], rate * group["lr_scale"]
        # What stood before the step: theta = (theta' + lr u) / (1 - lr d).
        old = torch._foreach_add([p.detach() for p in reached], updates, alpha=rate)
        torch._foreach_mul_(old, decay / (1 - rate * decay))
        moved = torch._foreach_add(updates, old)
        found = torch.stack(
            [
                dots(grad, grad),
                dots(grad, moved),
                dots(moved, moved),
                dots(grad, old),
                dots(old, old),
            ],
            1,
        )
        by_id = dict(zip(map(id, reached), found, strict=True))
        return [by_id.get(id(p), nothing) for p in group["params"]]

    def correct(self, seen: list[float]) -> None:
        """Move the bias by what `look` brought."""
        grad, rate, rate_size, decay, decay_size = torch.tensor(seen).view(5, -1)
        cosines = torch.stack(
            [
                rate / (grad * rate_size + TINY).sqrt(),
                decay / (grad * decay_size + TINY).sqrt() * float(self.regularisation),
            ],
            1,
        )
        if cosines.isfinite().all():
            self.bias = (self.bias + self.rate * cosines).clamp(-CHANGE, CHANGE)

    def state_dict(self) -> dict[str, Any]:
        return {"bias": self.bias}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.bias = state["bias"]
