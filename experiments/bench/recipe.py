"""Does the default CPU recipe train as well as the naive fp32 loop, in how much of its time?

The default: bf16 autocast with attention in fp32, fused AdamW, captions padded to the
longest of their batch; the loop with everything on. With real lengths of captions also the same
with batches of about one length (trainer.bucket_batches). The naive loop: fp32, torch's AdamW as
it comes, captions padded to the limit, four lines a step. Both train the same network from
the same first weights on the same batches.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common, peers
from experiments.bench.feed import batches, make_job, ours
from experiments.bench.towers import (
    EQUAL_WORK,
    NAMED,
    SMALL,
    TWO_TOWER,
    Shape,
    coco,
    full,
    network,
    padded,
    samples,
    usual,
)
from mmnet.compose import load
from mmnet.config import Run
from mmnet.hardware import fast_bf16
from mmnet.model import Multimodal
from mmnet.optimizer import decay_groups
from mmnet.track.none import Nowhere
from mmnet.track.recorder import read


WINDOW = 24  # batches that are sorted together; as many steps are measured, one of each
PREDECESSOR_MS = 749.0  # of github.com/tim-dickey/multi-modal-neural-network, fp32


class Trained(NamedTuple):
    """What one training cost and how it went."""

    seconds: float  # of CPU, a step
    losses: list[float]


def naive(run: Run, shape: Shape, vocabulary: Path, data: list[Any]) -> Trained:
    def build() -> Multimodal:
        return network(shape, vocabulary)

    with tempfile.TemporaryDirectory() as folder:
        full_length = partial(padded, length=shape.max_length)
        job, clock = make_job(Path(folder), run, build, data, full_length)
        rule = run.optimizer
        job.optimizer = torch.optim.AdamW(  # same settings, or the losses could not be compared
            decay_groups(job.model, rule["weight_decay"]),
            lr=rule["lr"],
            betas=rule["betas"],
            eps=rule["eps"],
        )
        losses = peers.bare(job, batches(job))
    return Trained(clock.per_step(2, job.total), losses)


def default(run: Run, shape: Shape, vocabulary: Path, data: list[Any]) -> Trained:
    def build() -> Multimodal:
        return network(shape, vocabulary)

    with tempfile.TemporaryDirectory() as folder:
        job, clock = make_job(Path(folder), run, build, data)
        ours(job, Nowhere())
        losses = [line["train/loss"] for line in read(job.folder) if "train/loss" in line]
    return Trained(clock.per_step(2, job.total), losses)


def bucketed(run: Run, shape: Shape, vocabulary: Path, data: list[Any]) -> Trained:
    trainer = replace(run.trainer, bucket_batches=WINDOW)
    return default(replace(run, trainer=trainer), shape, vocabulary, data)


Recipe = Callable[[Run, Shape, Path, list[Any]], Trained]
RECIPES: dict[str, Recipe] = {"naive": naive, "default": default}
WITH_BUCKETS: dict[str, Recipe] = {**RECIPES, "bucketed": bucketed}


def settings(shape: Shape, steps: int, *more: str) -> Run:
    return load(
        "tracker=none",
        "hardware=cpu",
        "hardware.threads=1",
        f"trainer.batch_size={shape.batch_size}",
        f"trainer.steps={steps}",
        "trainer.eval_every=1_000_000",
        "trainer.checkpoint_every=1_000_000",
        *more,
    )


def speed(
    shape: Shape,
    data: list[Any],
    vocabulary: Path,
    steps: int,
    rounds: int,
    recipes: Mapping[str, Recipe] = RECIPES,
) -> dict[str, list[float]]:
    """CPU seconds a step of each recipe, in rounds."""
    run = settings(shape, steps)

    def seconds(recipe: Recipe) -> float:
        return recipe(run, shape, vocabulary, data).seconds

    return common.interleave(
        {name: partial(seconds, recipe) for name, recipe in recipes.items()}, rounds
    )


def curves(
    shape: Shape, data: list[Any], vocabulary: Path, steps: int, seeds: int
) -> dict[str, list[list[float]]]:
    """The losses of both recipes for each seed; the naive loop neither clips nor schedules."""
    plain = ("schedule=constant", "schedule.warmup_ratio=0", "trainer.grad_clip=null")
    found: dict[str, list[list[float]]] = {name: [] for name in RECIPES}
    for seed in range(seeds):
        run = settings(shape, steps, f"seed={seed}", "optimizer.lr=3e-4", *plain)
        for name, recipe in RECIPES.items():
            common.fresh_heap()
            found[name].append(recipe(run, shape, vocabulary, data).losses)
            common.say(f"seed {seed}  {name:10s} last {found[name][-1][-1]:.4f}")
    return found


def smooth(losses: list[float], window: int) -> list[float]:
    """Means of `window` losses each, one after the other."""
    return [
        statistics.fmean(losses[start : start + window])
        for start in range(0, len(losses) - window + 1, window)
    ]


def apart(one: list[float], other: list[float]) -> float:
    """Mean distance of two curves."""
    return statistics.fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def compare_curves(report: common.Report, found: dict[str, list[list[float]]]) -> None:
    """How far apart the recipes are for the same seed, and the seeds for the same recipe."""
    window = max(1, len(found["naive"][0]) // 6)
    smoothed = {name: [smooth(one, window) for one in all_] for name, all_ in found.items()}
    plain, ours_ = smoothed["naive"], smoothed["default"]
    for name, curves_ in smoothed.items():
        report.figure(f"loss, first sixth: {name}", [curve[0] for curve in curves_], "nats")
        report.figure(f"loss, last sixth: {name}", [curve[-1] for curve in curves_], "nats")
    between_recipes = [apart(a, b) for a, b in zip(plain, ours_, strict=True)]
    last = [b[-1] - a[-1] for a, b in zip(plain, ours_, strict=True)]
    report.figure("loss, last sixth: default - naive, same seed", last, "nats")
    report.figure("loss curves apart: recipes, same seed", between_recipes, "nats")
    between_seeds = [apart(a, b) for i, a in enumerate(plain) for b in plain[:i]]
    report.figure("loss curves apart: seeds, naive", between_seeds, "nats")
    noise = statistics.fmean(between_seeds)
    report.ratio(
        "loss curves apart: recipes / seeds", between_recipes, [noise] * len(plain), aim=1.0
    )


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=5)
    report = common.Report("recipe", given, ("torch", "timm", "transformers", "tokenizers"))
    report.note("precision", "bf16" if fast_bf16("cpu") else "fp32: no fast bf16 on this machine")
    torch.set_num_threads(1)
    tower, steps = (SMALL, 6) if given.quick else (TWO_TOWER, 7)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = common.vocabulary(Path(folder))
        for case, shape, length, aim in (
            ("captions of 77 tokens", tower, full, 0.60),
            ("captions of 17 tokens in the mean", tower, usual, 0.45),
        ):
            data = samples(8 * shape.batch_size, shape, length)
            found = speed(shape, data, vocabulary, steps, given.rounds)
            for name, seconds in found.items():
                report.figure(f"{case}: {name}, a step", [1000 * s for s in seconds], "ms")
            report.ratio(f"{case}: default / naive", found["default"], found["naive"], aim)

        case, steps_of_window = "captions of COCO", 6 if given.quick else WINDOW + 3
        data = samples(WINDOW * tower.batch_size, tower, coco)
        found = speed(tower, data, vocabulary, steps_of_window, given.rounds, WITH_BUCKETS)
        for name, seconds in found.items():
            report.figure(f"{case}: {name}, a step", [1000 * s for s in seconds], "ms")
        report.ratio(f"{case}: default / naive", found["default"], found["naive"])
        report.ratio(f"{case}: bucketed / naive", found["bucketed"], found["naive"], 0.45)
        report.ratio(f"{case}: bucketed / default", found["bucketed"], found["default"])

        for case, shape in (("ViT 6, text 4", NAMED), ("ViT 8, text 6", EQUAL_WORK)):
            shape = shape._replace(batch_size=2) if given.quick else shape
            data = samples(8 * shape.batch_size, shape, full)
            found = speed(shape, data, vocabulary, steps, given.rounds)
            quoted = [PREDECESSOR_MS / 1000] * given.rounds
            for name, seconds in found.items():
                report.figure(f"{case}: {name}, a step", [1000 * s for s in seconds], "ms")
            report.ratio(f"{case}: default / naive", found["default"], found["naive"])
            if not given.quick:  # at another batch size it would mean nothing
                report.ratio(f"{case}: default / predecessor", found["default"], quoted, aim=0.40)

        shape = tower._replace(batch_size=min(16, tower.batch_size))
        count = 12 if given.quick else 60
        data = samples(min(1024, count * shape.batch_size), shape, full)
        compare_curves(report, curves(shape, data, vocabulary, count, seeds=3))
    report.finish()


if __name__ == "__main__":
    main()
