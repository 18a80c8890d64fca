"""Reads an optimizer before its step: gradients, its last update, weights, as sums of squares.

The last update is rebuilt from the optimizer's own state, so that nothing is patched; all
sums stay on the device and are fp32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmnet.controller import groups


SUMS = 4  # |g|^2, <g, u>, |u|^2, |theta|^2


class AdamObserver:
    """Of torch's Adam and AdamW: u = m_hat / (sqrt(v_hat) + eps) of the step before."""

    kept = "exp_avg"  # what the optimizer has of a parameter once that was stepped

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.names = groups.names(optimizer)
        of = [(g["control"], p) for g in optimizer.param_groups for p in g["params"]]
        self.parameters: list[Tensor] = [parameter for _, parameter in of]
        self.device = self.parameters[0].device
        places = [self.names.index(name) for name, _ in of]
        self.group = torch.tensor(places, device=self.device)
        pacing = groups.pacing(self.parameters, places)
        # Updates and weights count where they set the pace, gradients everywhere.
        counted = torch.ones(len(of), SUMS)
        counted[:, 2:] = pacing[:, None].float()
        self.counted = counted.to(self.device)
        sizes = torch.tensor([float(p.numel()) for p in self.parameters]) * pacing
        self.sizes = torch.zeros(len(self.names)).index_add(0, torch.tensor(places), sizes)

    def sums(self, each: Tensor) -> Tensor:
        """[N, ...] of `each` -> [G, ...], by group."""
        zero = torch.zeros(len(self.names), *each.shape[1:], device=self.device)
        return zero.index_add(0, self.group, each)

    @torch.no_grad()
    def each(self) -> Tensor:
        """-> [N, 4] of `SUMS`, by parameter. Gradients must be unscaled; 0 where there is none.

        |u|^2 and |theta|^2 are 0 of what does not set its group's pace, see `groups.pacing`.
        """
        rows = []
        for group in self.optimizer.param_groups:
            found = torch.zeros(len(group["params"]), SUMS, device=self.device)
            # Some may have been stepped before, and others not yet.
            for stepped in (True, False):
                places = [
                    place
                    for place, p in enumerate(group["params"])
                    if p.grad is not None and (self.kept in self.optimizer.state[p]) is stepped
                ]
                if places:
                    found[places] = self.of(group, [group["params"][place] for place in places])
            rows.append(found)
        return torch.cat(rows) * self.counted

    def of(self, group: dict[str, Any], parameters: list[Tensor]) -> Tensor:
        """-> [n, 4] of some parameters of one group of the optimizer."""
        gradients: Any = [p.grad for p in parameters]
        grad, weight = squares(gradients), squares(parameters)
        updates = self.updates(group, parameters)
        if not updates:  # before the first step: Adam's has entries of size 1
            count = torch.tensor([float(p.numel()) for p in parameters], device=grad.device)
            return torch.stack([grad, torch.zeros_like(grad), count, weight], 1)
        return torch.stack([grad, dots(gradients, updates), squares(updates), weight], 1)

    def updates(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        """The last update of each, rate left out; nothing before the first step."""
        states = [self.optimizer.state[p] for p in parameters]
        if any(self.kept not in state for state in states):
            return []
        beta1, beta2 = group["betas"]
        step = states[0]["step"]
        found = torch._foreach_sqrt([state["exp_avg_sq"] for state in states])
        torch._foreach_div_(found, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(found, group["eps"])
        found = torch._foreach_div([state["exp_avg"] for state in states], found)
        torch._foreach_div_(found, 1 - beta1**step)
        return list(found)


class ScheduleFreeObserver(AdamObserver):
    """Of Schedule-Free AdamW, whose last update is not in its state.

    The way is that of the drift z - y, which is where the averaged weights are going. The size is
    what momentum would have left of this step's g / (sqrt(v_hat) + eps) if it were noise,
    sqrt((1 - beta1) / (1 + beta1)) of it, so that a relative update means as much as AdamW's.
    """

    kept = "z"

    def updates(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        states = [self.optimizer.state[p] for p in parameters]
        if any(self.kept not in state for state in states):
            return []
        beta1, beta2 = group["betas"]
        gradients: Any = [p.grad for p in parameters]
        found = torch._foreach_sqrt([state["exp_avg_sq"] for state in states])
        torch._foreach_div_(found, (1 - beta2 ** group["k"]) ** 0.5)
        torch._foreach_add_(found, group["eps"])
        found = torch._foreach_div(gradients, found)
        size = torch.stack(torch._foreach_norm(found)) * ((1 - beta1) / (1 + beta1)) ** 0.5
        drift = torch._foreach_sub([p.detach() for p in parameters], [s["z"] for s in states])
        scale = size / (torch.stack(torch._foreach_norm(drift)) + 1e-30)
        torch._foreach_mul_(drift, list(scale))
        return list(drift)


def observer_of(optimizer: Any) -> AdamObserver:
    """The one that goes with an optimizer of `Steering.optimizers`."""
    free = "train_mode" in optimizer.param_groups[0]
    return ScheduleFreeObserver(optimizer) if free else AdamObserver(optimizer)


def squares(tensors: Sequence[Tensor]) -> Tensor:
    """[n] sums of squares."""
    return torch.stack(list(torch._foreach_norm(list(tensors)))).float().square()


def dots(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """[n] dot products."""
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).float()
