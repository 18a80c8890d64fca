"""What the runs say: the tables of README.md, losses as plainly as wins.

python experiments/double_loop/report.py --steps 300 > results/300.md
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.double_loop.intervals import (
    Table,
    holm,
    interval,
    logs,
    points,
    ratio,
    sign_test,
)
from experiments.double_loop.run import HERE, PROTOCOL, rows


JUDGED = PROTOCOL["judged"]
SEEDS = ("lstm", "lstm_seed_0", "lstm_seed_1")  # policies of three meta-seeds
NEVER = 2.0  # of the run, where a target is not reached in it


class Runs:
    """The results at one horizon, by task, arm, factor and seed."""

    def __init__(self, steps: int, folder: Path) -> None:
        self.found: dict[tuple[str, str, float], dict[int, dict[str, Any]]] = {}
        for row in rows(folder):
            if row["phase"] == "run" and row["steps"] == steps:
                key = row["task"], row["arm"], float(row["factor"])
                self.found.setdefault(key, {})[row["seed"]] = row
        self.tasks = [task for task in PROTOCOL["tasks"] if (task, "cosine", 1.0) in self.found]

    def values(
        self, arm: str, read: Callable[[dict[str, Any]], float], factors: Iterable[float] = (1.0,)
    ) -> Table:
        """log-free values of an arm; over several factors their geometric mean."""
        table: Table = {}
        for task in self.tasks:
            each = [self.found.get((task, arm, factor), {}) for factor in factors]
            for seed in set.intersection(*(set(one) for one in each)) if each else ():
                numbers = [read(one[seed]) for one in each]
                positive = all(number > 0 for number in numbers)
                table.setdefault(task, {})[seed] = (
                    float(np.exp(np.mean(np.log(numbers)))) if positive else float(np.mean(numbers))
                )
        return table


def loss(row: dict[str, Any]) -> float:
    """Final validation loss; of a run that failed, ten times what is usual."""
    value = row.get("final", {}).get("val/loss")
    return float(value) if value is not None and math.isfinite(value) else 10.0


def best_loss(row: dict[str, Any]) -> float:
    return float(row.get("best", {}).get("val/loss") or 10.0)


def metric(row: dict[str, Any], place: str = "best") -> float:
    name = PROTOCOL["tasks"][row["task"]]["metric"]
    return float(row.get(place, {}).get(f"val/{name}") or 0.0)


def time(row: dict[str, Any]) -> float:
    """CPU seconds of the whole run: what is built, read and evaluated included."""
    return float(row.get("cpu") or math.nan)


def final_metric(row: dict[str, Any]) -> float:
    return metric(row, "final")


def decades(runs: Runs, arm: str, task: str) -> tuple[float, float]:
    """Of three decades of base rate, those within 5 % of tuned cosine's; by metric, by loss."""
    cosine = (task, "cosine", 1.0)
    target = np.mean([metric(row) for row in runs.found[cosine].values()])
    bar = np.mean([best_loss(row) for row in runs.found[cosine].values()])
    good = within = total = 0
    for factor in PROTOCOL["grid"]:
        found = runs.found.get((task, arm, float(factor)), {})
        if found:
            total += 1
            good += np.mean([metric(row) for row in found.values()]) >= target / JUDGED["within"]
            within += np.mean([best_loss(r) for r in found.values()]) <= bar * JUDGED["within"]
    return (3 * good / total, 3 * within / total) if total else (math.nan, math.nan)


def steps_to(row: dict[str, Any], target: float, steps: int) -> float:
    """Share of the run after which the metric is there; NEVER if it never is."""
    name = PROTOCOL["tasks"][row["task"]]["metric"]
    for point in row.get("curve", []):
        if point.get(f"val/{name}", -math.inf) >= target:
            return float(point["step"]) / steps
    return NEVER


def arms_table(runs: Runs) -> Iterable[str]:
    """Every arm at its own rate: final loss against tuned cosine's, by task."""
    reference = runs.values("cosine", loss)
    yield "| arm | " + " | ".join(runs.tasks) + " | all |"
    yield "| --- " * (len(runs.tasks) + 2) + "|"
    for arm in PROTOCOL["arms"]:
        table = runs.values(arm, loss)
        cells = []
        for task in runs.tasks:
            found = logs(table, reference, [task])
            cells.append(f"{math.exp(found[0].mean()):.3f}" if found and len(found[0]) else "")
        if any(cells):
            yield (
                f"| `{arm}` | " + " | ".join(cells) + f" | {ratio(table, reference, runs.tasks)} |"
            )


def metrics_table(runs: Runs) -> Iterable[str]:
    """Every arm at its own rate: the metric at the best checkpoint, and at the end."""
    yield "| arm | " + " | ".join(runs.tasks) + " |"
    yield "| --- " * (len(runs.tasks) + 1) + "|"
    for arm in PROTOCOL["arms"]:
        best, final = runs.values(arm, metric), runs.values(arm, final_metric)
        cells = [
            f"{np.mean([*best[t].values()]):.1%} / {np.mean([*final[t].values()]):.1%}"
            if t in best
            else ""
            for t in runs.tasks
        ]
        if any(cells):
            yield f"| `{arm}` | " + " | ".join(cells) + " |"


def claims(runs: Runs, steps: int) -> Iterable[str]:
    """The claims, one after the other."""
    yield from no_tuning(runs)
    yield from without_tuning(runs)
    for arm in ("memoryless", "linear", "placebo"):
        told = ratio(runs.values("lstm", loss), runs.values(arm, loss), runs.tasks)
        yield f"3. LSTM over {arm}: {told}"
    yield from balance(runs)
    many = [t for t in runs.tasks if PROTOCOL["tasks"][t].get("many_passes")]
    for arm in (*SEEDS, "cosine"):
        ended = ratio(runs.values(arm, loss), runs.values("cosine", best_loss), many)
        yield f"5. Final loss of {arm} over tuned cosine's best checkpoint, many passes: {ended}"
    for arm, base in (
        ("lstm_freeze", "lstm"),
        ("lstm_grow", "lstm_deep"),
        ("lstm_drop_patches", "lstm"),
        ("lstm_online", "lstm"),
    ):
        spent = ratio(runs.values(arm, time), runs.values(base, time), runs.tasks)
        worse = ratio(runs.values(arm, loss), runs.values(base, loss), runs.tasks)
        yield f"6. {arm} over {base}: CPU time {spent}; loss {worse}"
    yield from pace(runs, steps)
    for arm in ("identity", "lstm"):
        told = ratio(runs.values(arm, time), runs.values("constant", time), runs.tasks)
        yield f"8. CPU time of {arm} over constant: {told}"
    yield from tests(runs)
    yield from failures(runs)


def no_tuning(runs: Runs) -> Iterable[str]:
    yield "1. Decades of three within 5 % of tuned cosine, metric (loss), at the best checkpoint:"
    for arm in (*SEEDS, "cosine"):
        if not runs.values(arm, loss):
            continue
        found = {task: decades(runs, arm, task) for task in runs.tasks}
        told = ", ".join(f"{t} {a:.1f} ({b:.1f})" for t, (a, b) in found.items())
        yield f"   {arm}: {told}; worst {min(a for a, _ in found.values()):.1f}"
    for arm in SEEDS:
        for factor in (0.1, 10.0):
            moved = runs.values(arm, loss, (factor,))
            told = ratio(moved, runs.values("cosine", loss), runs.tasks)
            yield f"   {arm} at x{factor:g} over tuned cosine: {told}"


def without_tuning(runs: Runs) -> Iterable[str]:
    untouched = [t for t in runs.tasks if not PROTOCOL["tasks"][t].get("looked_at")]
    cosine = runs.values("cosine", loss)
    controls = {arm: runs.values(arm, loss) for arm in PROTOCOL["without_tuning"]}
    pairs = {arm: logs(table, cosine, untouched) for arm, table in controls.items()}
    means = {arm: interval(found)[0] for arm, found in pairs.items() if found}
    if means:
        best = min(means, key=lambda arm: means[arm])
        yield f"2. At x0.1, x1, x10, untouched tasks; the best control without tuning is {best}:"
    for arm, table in controls.items():
        for policy in SEEDS:
            anywhere = runs.values(policy, loss, (0.1, 1.0, 10.0))
            yield f"   {policy} over {arm}: {ratio(anywhere, table, untouched)}"


def balance(runs: Runs) -> Iterable[str]:
    unequal = [t for t in runs.tasks if PROTOCOL["tasks"][t].get("unequal")]
    steered = runs.values("lstm", metric)
    for arm in ("cosine", "ogm_ge", "gradient_blending", "mmpareto"):
        told = points(steered, runs.values(arm, metric), unequal)
        yield f"4. Unequal towers, LSTM over {arm}, points: {told}"
    for tower in ("image", "text"):
        told = probe(runs, tower, unequal)
        yield f"   {tower}'s probe over that of the tower trained alone, points: {told}"


def pace(runs: Runs, steps: int) -> Iterable[str]:
    shares = [
        steps_to(row, final_metric(runs.found[task, "cosine", 1.0][seed]), steps)
        for task in runs.tasks
        for seed, row in runs.found.get((task, "lstm", 1.0), {}).items()
        if seed in runs.found[task, "cosine", 1.0]
    ]
    if shares:
        never = sum(share == NEVER for share in shares)
        yield (
            f"7. Steps to tuned cosine's final metric: {np.exp(np.mean(np.log(shares))):.2f} of "
            f"the run in geometric mean (never, counted as {NEVER:g}: {never} of {len(shares)})"
        )


def tests(runs: Runs) -> Iterable[str]:
    cosine, steered = runs.values("cosine", loss), runs.values("lstm", loss)
    pairs = {task: logs(steered, cosine, [task]) for task in runs.tasks}
    adjusted = holm({task: sign_test(found[0]) for task, found in pairs.items() if found})
    told = ", ".join(f"{task} {p:.3f}" for task, p in adjusted.items())
    yield f"Sign tests of LSTM against tuned cosine, final loss, Holm: {told}"


def failures(runs: Runs) -> Iterable[str]:
    failed = [row for found in runs.found.values() for row in found.values() if "error" in row]
    yield f"Runs that failed: {len(failed)}"
    for row in failed[:5]:
        yield f"   {row['task']} {row['arm']} x{row['factor']:g}: {row['error'][:120]}"


def probe(runs: Runs, tower: str, tasks: list[str]) -> str:
    def read(row: dict[str, Any]) -> float:
        return float(row.get("probes", {}).get(tower, math.nan))

    return points(runs.values("lstm", read), runs.values(f"{tower}_alone", read), tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    runs = Runs(args.steps, args.results)
    seeds = {seed for found in runs.found.values() for seed in found}
    print(f"T = {args.steps}, {len(seeds)} seeds\n\nFinal validation loss over tuned cosine's:\n")
    print("\n".join(arms_table(runs)))
    print("\nMetric at the best checkpoint / at the end:\n")
    print("\n".join(metrics_table(runs)))
    print("\n" + "\n".join(claims(runs, args.steps)))


if __name__ == "__main__":
    main()
