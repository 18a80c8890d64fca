"""What a training loop adds to a step: ours with everything on, and five others.

The micro network takes about a millisecond a step, so that microseconds show; the preset
late_fusion says what is left of them where the work is real. fp32 for everybody.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common, peers
from experiments.bench.feed import Ready, batches, make_job, ours, stack
from mmnet.compose import load
from mmnet.config import Run
from mmnet.data.loader import TrainStep
from mmnet.fusion.concat import Concat
from mmnet.head.classification import Classification
from mmnet.interfaces import Features, Inputs
from mmnet.job import Job
from mmnet.model import Multimodal, build
from mmnet.track.csv import Csv
from mmnet.track.none import Nowhere


Loop = Callable[[Job, Iterator[TrainStep]], Any]
SETTINGS = (
    "tracker=none",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "trainer.batch_size=32",
    "trainer.eval_every=1_000_000",
    "trainer.checkpoint_every=1_000_000",
)


class Pixels(nn.Module):
    """float [B, 64] -> one token, by three layers."""

    dim = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, self.dim)
        )
        self.prepare = Ready(stack)

    def forward(self, inputs: Inputs) -> Features:
        pooled = self.layers(inputs.values)
        return Features(pooled[:, None], pooled, None)


class Words(nn.Module):
    """int64 [B, 8] -> embedded tokens, three layers, the mean of them."""

    dim = 32

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, self.dim)
        self.layers = nn.Sequential(
            nn.Linear(self.dim, 64),
            nn.GELU(),
            nn.Linear(64, 64),
            nn.GELU(),
            nn.Linear(64, self.dim),
        )
        self.prepare = Ready(stack)

    def forward(self, inputs: Inputs) -> Features:
        tokens = self.layers(self.embed(inputs.values))
        return Features(tokens, tokens.mean(1), None)


def micro_network() -> Multimodal:
    fusion = Concat({"image": Pixels.dim, "text": Words.dim}, 32, "concat", 0.0)
    head = Classification(fusion.dim, 4, None, label_smoothing=0.0, focal_gamma=0, dropout=0.0)
    return Multimodal({"image": Pixels(), "text": Words()}, fusion, head)


def micro_samples(count: int) -> list[Any]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(count, 64, generator=draw)
    texts = torch.randint(100, (count, 8), generator=draw)
    return [
        {"image": image, "text": text, "label": index % 4}
        for index, (image, text) in enumerate(zip(images, texts, strict=True))
    ]


def real_samples(count: int) -> list[Any]:
    """Pictures and captions of the sizes that the shapes have."""
    draw = torch.Generator().manual_seed(0)

    def caption() -> Tensor:
        length = int(torch.randint(20, 40, (1,), generator=draw))
        return torch.randint(97, 123, (length,), generator=draw)

    return [
        {
            "image": torch.randint(256, (3, 32, 32), generator=draw, dtype=torch.uint8),
            "text": caption(),
            "label": index % 4,
        }
        for index in range(count)
    ]


def contestants(report: common.Report) -> dict[str, Loop]:
    """The loops that can run here, the plainest first."""
    loops: dict[str, Loop] = {
        "reading": read_only,
        "bare": peers.bare,
        "bare, clip, schedule": peers.with_clip_and_schedule,
        "mmnet": lambda job, steps: ours(job, Nowhere()),
        "mmnet, tracker=csv": lambda job, steps: ours(job, Csv()),
    }
    others: dict[str, tuple[str, dict[str, Loop]]] = {
        "open_clip_train": ("open_clip_torch", {"open_clip": peers.open_clip}),
        "accelerate": (
            "accelerate",
            {
                "HF Trainer, quiet": partial(peers.hf_trainer, quiet=True),
                "HF Trainer": partial(peers.hf_trainer, quiet=False),
            },
        ),
        "lightning": (
            "lightning",
            {
                "Lightning, quiet": partial(peers.lightning, quiet=True),
                "Lightning": partial(peers.lightning, quiet=False),
            },
        ),
    }
    for module, (package, found) in others.items():
        if common.installed(module):
            loops |= found
        else:
            report.missing(package)
    return loops


def cost(loop: Loop, run: Run, network: Callable[[], Multimodal], samples: list[Any]) -> float:
    """CPU seconds a step of one loop, after a quarter of the steps."""
    with tempfile.TemporaryDirectory() as folder:
        job, clock = make_job(Path(folder), run, network, samples)
        job.model.train()
        loop(job, batches(job))
        return clock.per_step(job.total // 4, job.total)


def read_only(job: Job, steps: Iterator[TrainStep]) -> None:
    """What reading costs, which is in every loop's figure."""
    for step in steps:
        peers.flat(step)


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=12)
    packages = ("torch", "open_clip_torch", "transformers", "accelerate", "lightning")
    report = common.Report("loop", given, packages)
    torch.set_num_threads(1)
    loops = contestants(report)
    late_fusion = load(*SETTINGS)
    for case, steps, network, samples in (
        ("micro", 60 if given.quick else 200, micro_network, micro_samples(512)),
        ("late_fusion", 6 if given.quick else 12, lambda: build(late_fusion), real_samples(256)),
    ):
        run = load(*SETTINGS, f"trainer.steps={steps}")
        contenders = {
            name: partial(cost, loop, run, network, samples) for name, loop in loops.items()
        }
        found = common.interleave(contenders, given.rounds)
        tell(report, case, found)
    report.finish()


def tell(report: common.Report, case: str, found: dict[str, list[float]]) -> None:
    """Each loop's step, its distance to the bare ones, and the aims."""

    def over(name: str, base: str) -> list[float]:
        return [1e6 * (a - b) for a, b in zip(found[name], found[base], strict=True)]

    for name, seconds in found.items():
        report.figure(f"{case}: {name}, a step", [1000 * s for s in seconds], "ms")
    for name in found:
        if name not in ("reading", "bare"):
            report.ratio(f"{case}: {name} / bare", found[name], found["bare"])
    if case != "micro":
        report.ratio(
            f"{case}: mmnet / bare, clip, schedule", found["mmnet"], found["bare, clip, schedule"]
        )
        return
    for name in found:
        if name not in ("reading", "bare"):
            report.figure(f"{case}: {name} over bare", over(name, "bare"), "us")
    for name in ("mmnet", "mmnet, tracker=csv"):
        report.figure(
            f"{case}: {name} over bare, clip, schedule",
            over(name, "bare, clip, schedule"),
            "us",
            aim=150,
        )
    if "HF Trainer, quiet" in found:
        report.ratio(
            f"{case}: what mmnet adds to bare / what HF Trainer, quiet, adds",
            over("mmnet", "bare"),
            over("HF Trainer, quiet", "bare"),
            aim=0.5,
        )


if __name__ == "__main__":
    main()
