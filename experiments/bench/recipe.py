"""Does the default CPU recipe train as well as the naive fp32 loop, in how much of its time?

The default: bf16 autocast with attention in fp32, fused AdamW, captions padded to the
longest of their batch; the loop with everything on. The naive loop: fp32, torch's AdamW as
it comes, captions padded to the limit, four lines a step. Both train the same network from
the same first weights on the same batches.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common, peers
from experiments.bench.feed import Collate, batches, make_job, ours
from mmnet.compose import load
from mmnet.config import Run
from mmnet.encoder.image.vit import ViT
from mmnet.encoder.text.huggingface import HuggingFace
from mmnet.fusion.concat import Concat
from mmnet.hardware import fast_bf16
from mmnet.head.classification import Classification
from mmnet.interfaces import Inputs
from mmnet.model import Multimodal
from mmnet.optimizer import decay_groups
from mmnet.track.none import Nowhere
from mmnet.track.recorder import read


CLASSES = 10
VOCABULARY = 30522  # BERT's
CLS, SEP, FIRST_WORD = 2, 3, 5
PREDECESSOR_MS = 749.0  # a step of the predecessor in fp32, measured on a machine of this kind


class Shape(NamedTuple):
    """A network of two towers, and the batches it is given."""

    image_size: int
    image: tuple[int, int, int]  # dim, depth, heads
    text: tuple[int, int, int]
    dropout: float
    batch_size: int
    max_length: int  # tokens, special ones included


TWO_TOWER = Shape(112, (192, 12, 3), (192, 4, 3), 0.0, 32, 77)
SMALL = Shape(32, (64, 2, 2), (64, 2, 2), 0.0, 4, 16)
# ViT 6 layers, text 4, as the predecessor was measured. Its two layers of fusion, over all
# tokens of both, have no counterpart here; a network with two more layers in each tower
# pushes as many tokens through as many layers.
NAMED = Shape(64, (256, 6, 8), (256, 4, 8), 0.1, 16, 64)
EQUAL_WORK = Shape(64, (256, 8, 8), (256, 6, 8), 0.1, 16, 64)


def network(shape: Shape, vocabulary: Path) -> Multimodal:
    """This package's own parts."""
    dim, depth, heads = shape.image
    image = ViT(
        "vit_tiny_patch16_224", None, shape.image_size, 16, dim, depth, heads, shape.dropout
    )
    dim, depth, heads = shape.text
    text = HuggingFace(
        name=None,
        architecture="bert",
        tokenizer=str(vocabulary),
        pretrained=False,
        max_length=shape.max_length,
        pooling="cls",
        dim=dim,
        depth=depth,
        num_heads=heads,
        dropout=shape.dropout,
    )
    fusion = Concat({"image": image.dim, "text": text.dim}, 192, shape.dropout)
    head = Classification(fusion.dim, CLASSES, label_smoothing=0.0, dropout=0.0)
    return Multimodal({"image": image, "text": text}, fusion, head)


def full(shape: Shape, draw: torch.Generator) -> int:
    return shape.max_length


def usual(shape: Shape, draw: torch.Generator) -> int:
    """Captions as people write them: 17 tokens in the mean, one in a hundred above 40."""
    length = torch.empty(()).log_normal_(2.75, 0.41, generator=draw)
    return int(length.clamp(5, shape.max_length))


def samples(count: int, shape: Shape, length: Callable[[Shape, torch.Generator], int]) -> list[Any]:
    """Noise with a trace of the label: a tint of the picture, some words of the caption."""
    draw = torch.Generator().manual_seed(0)
    tints = torch.randint(-6, 7, (CLASSES, 3, 1, 1), generator=draw)

    def one(label: int) -> dict[str, Any]:
        size = (3, shape.image_size, shape.image_size)
        image = torch.randint(40, 216, size, generator=draw) + tints[label]
        words = torch.randint(FIRST_WORD, VOCABULARY, (length(shape, draw) - 2,), generator=draw)
        telling = torch.rand(words.shape, generator=draw) < 0.1
        words[telling] = FIRST_WORD + label * 4 + words[telling] % 4
        text = torch.cat([torch.tensor([CLS]), words, torch.tensor([SEP])])
        return {"image": image.to(torch.uint8), "text": text, "label": label}

    return [one(index % CLASSES) for index in range(count)]


def padded(collate: Collate, length: int) -> Collate:
    """Every caption as long as the longest one allowed."""

    def padded_collate(tensors: list[Tensor]) -> Inputs:
        values, mask = collate(tensors)
        assert mask is not None
        more = (0, length - values.shape[1])
        return Inputs(nn.functional.pad(values, more), nn.functional.pad(mask, more))

    return padded_collate


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


Recipe = Callable[[Run, Shape, Path, list[Any]], Trained]
RECIPES: dict[str, Recipe] = {"naive": naive, "default": default}


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
    shape: Shape, data: list[Any], vocabulary: Path, steps: int, rounds: int
) -> dict[str, list[float]]:
    """CPU seconds a step of both recipes, in rounds."""
    run = settings(shape, steps)

    def seconds(recipe: Recipe) -> float:
        return recipe(run, shape, vocabulary, data).seconds

    return common.interleave(
        {name: partial(seconds, recipe) for name, recipe in RECIPES.items()}, rounds
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
        vocabulary = Path(folder) / "vocab.txt"
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words += [f"w{number}" for number in range(len(words), VOCABULARY)]
        vocabulary.write_text("\n".join(words) + "\n")

        for case, shape, length, aim in (
            ("captions of 77 tokens", tower, full, 0.60),
            ("captions of 17 tokens in the mean", tower, usual, 0.45),
        ):
            data = samples(8 * shape.batch_size, shape, length)
            found = speed(shape, data, vocabulary, steps, given.rounds)
            for name, seconds in found.items():
                report.figure(f"{case}: {name}, a step", [1000 * s for s in seconds], "ms")
            report.ratio(f"{case}: default / naive", found["default"], found["naive"], aim)

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
