"""Evolution strategies over whole runs: antithetic pairs, full horizons, no short-horizon bias.

Salimans et al., arXiv 1703.03864; why not greedy: Wu et al., arXiv 1803.02021.
"""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmnet.controller.policy import Kind, from_flat
from mmnet.meta.arms import Scheduled, Steered, cosine
from mmnet.meta.inner import train
from mmnet.meta.tasks import Task, draw


@dataclass(frozen=True)
class Settings:
    """How a policy is searched for."""

    kind: Kind
    hidden: int
    pairs: int  # of opposite perturbations in a generation
    tasks: int  # problems in a generation, the pairs divided among them
    sigma: float  # of a perturbation
    rate: float  # of the search at first; falls to a tenth
    average: float  # decay of the averaged weights, which are the ones handed out
    rho_max: float
    seed: int
    device: str  # where the small runs are


def generation(flat: Tensor, number: int, settings: Settings, pool: Executor) -> Tensor:
    """An estimate of the slope [W] of the mean log loss at `flat` [W]."""
    each = settings.pairs // settings.tasks
    seeds = [settings.seed * 10_000_000 + 1000 * number + place for place in range(settings.tasks)]
    noise = [torch.randn(each, len(flat), generator=generator_of(seed)) for seed in seeds]
    gains = pool.map(gain, [flat] * len(seeds), noise, seeds, [settings] * len(seeds), chunksize=1)
    found = torch.cat(list(gains))
    slope = (found[:, None] * torch.cat(noise)).mean(0)
    return slope / found.pow(2).mean().sqrt().clamp_min(1e-6)


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gain(flat: Tensor, noise: Tensor, seed: int, settings: Settings) -> Tensor:
    """[pairs]: how much more each perturbation costs than its opposite, on the task of a seed."""
    both = torch.cat([flat + settings.sigma * noise, flat - settings.sigma * noise])
    up, down = ended(seed, len(noise), both, settings).chunk(2)
    return (up - down).clamp(-1, 1)


def ended(seed: int, members: int, flat: Tensor, settings: Settings) -> Tensor:
    """Log losses [k n] of policies on the n data sets of a task, k for each.

    flat [k n, W]; or [1, W], which is the same for all of them, and k = 1.
    """
    task, policies = at(settings.device, seed, members), flat.to(settings.device)
    steered = Steered(from_flat(settings.kind, settings.hidden, policies), settings.rho_max)
    return train(task, steered, repeat=max(1, len(flat) // members)).loss.log().cpu()


def at(device: str, seed: int, members: int) -> Task:
    """A task on a device: the same on all of them."""
    with torch.device("cpu"):
        return draw(seed, members).to(device)


@dataclass
class Search:
    """Adam on the slopes, an average of where it has been, and the best average so far."""

    flat: Tensor  # [W]
    average: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor
    best_score: float = math.inf
    number: int = 0  # generations done

    @classmethod
    def begin(cls, flat: Tensor) -> "Search":
        zero = torch.zeros_like(flat)
        return cls(flat.clone(), flat.clone(), zero, zero.clone(), flat.clone())

    def split(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Its tensors, and its numbers."""
        tensors = {n: v for n, v in vars(self).items() if isinstance(v, Tensor)}
        return tensors, {n: v for n, v in vars(self).items() if n not in tensors}

    def advance(self, settings: Settings, done: float, pool: Executor) -> None:
        """One generation; `done` is the share of the search that is over."""
        slope = generation(self.flat, self.number, settings, pool)
        self.number += 1
        self.mean.lerp_(slope, 0.1)
        self.square.lerp_(slope * slope, 0.01)
        step = self.mean / (1 - 0.9**self.number)
        scale = (self.square / (1 - 0.99**self.number)).sqrt() + 1e-8
        self.flat -= settings.rate * (1 - 0.9 * done) * step / scale
        self.average.lerp_(self.flat, 1 - min(settings.average, self.number / (self.number + 1)))


@dataclass(frozen=True)
class Yardstick:
    """Tasks with what the best cosine reaches on each of their data sets."""

    seeds: list[int]
    members: int
    best: list[Tensor]  # log loss [n] each

    def score(self, flat: Tensor, settings: Settings, pool: Executor) -> Tensor:
        """[tasks]: mean log of a policy's loss over the best cosine's; 0 is as good as tuning."""
        count = len(self.seeds)
        found = pool.map(
            ended, self.seeds, [self.members] * count, [flat[None]] * count, [settings] * count
        )
        return torch.stack([(f - b).mean() for f, b in zip(found, self.best, strict=True)])


RATES = [10 ** (-4.0 + 0.5 * i) for i in range(9)]  # of the cosines of a yardstick


def yardstick(seeds: range, members: int, device: str, pool: Executor) -> Yardstick:
    """The best of nine cosines on each data set: an oracle, hard to reach."""
    count = len(seeds)
    best = list(pool.map(best_cosine, seeds, [members] * count, [device] * count))
    return Yardstick(list(seeds), members, best)


def best_cosine(seed: int, members: int, device: str) -> Tensor:
    """Log loss [n]."""
    task = at(device, seed, members)
    losses = []
    for rate in RATES:
        task.rate = torch.full_like(task.rate, rate)
        losses.append(train(task, Scheduled(cosine)).loss)
    return torch.stack(losses).min(0).values.log().cpu()
