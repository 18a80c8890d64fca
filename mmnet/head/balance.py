"""How the losses of several tasks share one network: three published ways of balancing them.

Gradients: a list by parameter for each task, None or 0 where it does not reach a parameter.
Parameters reached by two tasks or more are the shared ones; all else is a task's own. A factor
common to all gradients, such as that of fp16's scaler, changes no decision.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


Gradients = list[Tensor | None]  # of one task, by parameter

WEIGHT_RATE = 0.025  # of GradNorm's weights, as in the paper
LEAST_WEIGHT = 0.01  # that a step of this size does not turn one negative


class Uncertainty(nn.Module):
    """Learned log-variances s: the sum of exp(-s) L + s / 2 (Kendall et al., arXiv 1705.07115).

    A task that cannot do better than a large loss counts less, and pays s / 2 for it.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Tensor, weights: Tensor) -> Tensor:
        """losses [tasks], weighted already; -> the same, balanced."""
        return torch.exp(-self.log_variances) * losses + weights * self.log_variances / 2


class PCGrad(nn.Module):
    """Where two tasks' gradients conflict, what one has against the other is taken out of it.

    Yu et al., arXiv 2001.06782; `means` and `weights` are not used.
    """

    @torch.no_grad()
    def forward(self, gradients: list[Gradients], means: Tensor, weights: Tensor) -> Gradients:
        mixture = without_conflict(products(gradients)).sum(0)
        return mixed(gradients, shared=mixture, own=torch.ones_like(mixture))


class GradNorm(nn.Module):
    """Weights under which each task pulls about equally hard, those that lag behind harder.

    Chen et al., arXiv 1711.02257. A task's pace is its loss against its first one; its gradient
    should be as large as their mean times (its pace / the mean pace)^alpha. The norms are those
    of all shared parameters, not of the last layer alone: they are at hand anyway. Weights and
    first losses are buffers, and so in the checkpoint.
    """

    weight: Tensor
    first: Tensor

    def __init__(self, tasks: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("weight", torch.ones(tasks))
        self.register_buffer("first", torch.full((tasks,), torch.nan))

    @torch.no_grad()
    def forward(self, gradients: list[Gradients], means: Tensor, weights: Tensor) -> Gradients:
        """means [tasks] of this step's losses; both they and the gradients are weighted already."""
        combined = mixed(gradients, shared=self.weight, own=self.weight)
        norms = products(gradients).diagonal().sqrt().float() / weights
        self.follow(norms, means)
        return combined

    def follow(self, norms: Tensor, means: Tensor) -> None:
        """One step of the weights; none where a number is not finite."""
        first = means.where(self.first.isnan(), self.first)
        pace = means / first
        pulls = self.weight * norms
        goal = pulls.mean() * (pace / pace.mean()) ** self.alpha
        # The slope of |pull - goal|, the goal held fixed, in units of the mean pull.
        slope = torch.sign(pulls - goal) * norms / pulls.mean()
        weight = (self.weight - WEIGHT_RATE * slope).clamp_min(LEAST_WEIGHT)
        weight = weight * (len(weight) / weight.sum())
        sound = weight.isfinite().all() & first.isfinite().all()
        self.weight.copy_(weight.where(sound, self.weight))
        self.first.copy_(first.where(sound, self.first))


def products(gradients: list[Gradients]) -> Tensor:
    """Dot products of the tasks' gradients on the shared parameters, float64 [tasks, tasks]."""
    total = torch.zeros((), dtype=torch.float64)
    for rows in map(stacked, zip(*gradients, strict=True)):
        if rows is not None:
            product = (rows @ rows.T).double()
            total = total.to(rows.device) + product.where(is_shared(rows), 0.0)
    return total.expand(len(gradients), len(gradients))


def without_conflict(products: Tensor) -> Tensor:
    """[tasks, tasks]: what becomes of each task's gradient (row), as a mixture of all (columns).

    One after the other, in random order, each other task is looked at; if the gradient as it is
    by then points against that task's own, it is projected onto what is normal to it.
    """
    tasks = len(products)
    mixture = torch.eye(tasks, dtype=products.dtype, device=products.device)
    for row in range(tasks):
        for other in torch.randperm(tasks).tolist():
            if other != row:
                against = (mixture[row] @ products[:, other]).clamp(max=0)
                length = products[other, other]
                mixture[row, other] -= torch.where(length > 0, against / length, 0.0)
    return mixture


def mixed(gradients: list[Gradients], shared: Tensor, own: Tensor) -> Gradients:
    """The sum of the tasks' gradients, times `shared` [tasks] or, of its own parameters, `own`."""
    combined: Gradients = []
    for of_tasks in zip(*gradients, strict=True):
        rows = stacked(of_tasks)
        if rows is None:
            combined.append(None)
            continue
        factors = torch.where(is_shared(rows), shared, own).to(rows)
        shape = next(g.shape for g in of_tasks if g is not None)
        combined.append((factors @ rows).view(shape))
    return combined


def stacked(of_tasks: Sequence[Tensor | None]) -> Tensor | None:
    """The tasks' gradients of one parameter -> [tasks, its size]; None where all are."""
    some = next((g for g in of_tasks if g is not None), None)
    if some is None:
        return None
    zero = torch.zeros_like(some)
    return torch.stack([zero if g is None else g for g in of_tasks]).flatten(1)


def is_shared(rows: Tensor) -> Tensor:
    """bool []: whether two tasks or more reach a parameter, by its gradients [tasks, size].

    Asked of the numbers, since a compiled network says 0 where an eager one says None.
    """
    return rows.any(1).sum() > 1
