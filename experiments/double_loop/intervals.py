"""Paired comparisons over tasks and seeds: ratios, differences, their intervals and tests."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


DRAWS = 10_000  # of the bootstrap, as protocol.yaml says
Table = dict[str, dict[int, float]]  # task -> seed -> value
Pairs = list[NDArray[np.float64]]  # of each task, over its paired seeds


def logs(one: Table, other: Table, tasks: Iterable[str]) -> Pairs:
    """Of each task, log ratios over paired seeds."""
    return [
        np.log([one[t][s] / other[t][s] for s in sorted(one[t].keys() & other[t].keys())])
        for t in tasks
        if t in one and t in other
    ]


def differences(one: Table, other: Table, tasks: Iterable[str]) -> Pairs:
    return [
        np.array([one[t][s] - other[t][s] for s in sorted(one[t].keys() & other[t].keys())])
        for t in tasks
        if t in one and t in other
    ]


def interval(by_task: Pairs) -> tuple[float, float, float]:
    """Mean of the tasks' means, and 95 % by a bootstrap of tasks, then of seeds."""
    rng = np.random.default_rng(0)
    by_task = [one for one in by_task if len(one)]
    draws = np.empty(DRAWS)
    for draw in range(len(draws)):
        tasks = rng.integers(len(by_task), size=len(by_task))
        draws[draw] = np.mean([rng.choice(by_task[t], len(by_task[t])).mean() for t in tasks])
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(np.mean([one.mean() for one in by_task])), float(low), float(high)


def ratio(one: Table, other: Table, tasks: Iterable[str]) -> str:
    """Geometric mean ratio with its interval and wins over pairs."""
    by_task = logs(one, other, tasks)
    if not by_task:
        return "no runs"
    mean, low, high = (math.exp(value) for value in interval(by_task))
    pairs = np.concatenate(by_task)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}], {int((pairs < 0).sum())}/{len(pairs)} better"


def points(one: Table, other: Table, tasks: Iterable[str]) -> str:
    """Mean difference in points with its interval."""
    by_task = differences(one, other, tasks)
    if not by_task:
        return "no runs"
    mean, low, high = (100 * value for value in interval(by_task))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def sign_test(pairs: NDArray[np.float64]) -> float:
    """Two-sided, ties left out."""
    wins, losses = int((pairs < 0).sum()), int((pairs > 0).sum())
    count = wins + losses
    if not count:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1)) / 2**count
    return min(1.0, 2 * tail)


def holm(values: dict[str, float]) -> dict[str, float]:
    """Adjusted p-values."""
    adjusted, least = {}, 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(values) - rank) * p))
        adjusted[name] = least
    return adjusted
