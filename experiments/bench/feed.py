"""The same samples from memory for every loop, by way of mmnet's loader, with a clock on it.

Every loop draws its batches from the same generator, so that what reading costs is in all
of them alike and a difference is the loop's own. The clock sits where a batch is made: the
time between two batches is one step, whatever surrounds it.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.bench.common import hushed
from mmnet.average import follow
from mmnet.checkpoint import Writer
from mmnet.compose import make
from mmnet.config import Run
from mmnet.data.bad import BadSamples
from mmnet.data.lengths import Numbers
from mmnet.data.loader import Reading, TrainStep, train_steps
from mmnet.hardware import choose
from mmnet.interfaces import Inputs, Names, Sample
from mmnet.job import Counters, Job, seed_everything
from mmnet.loop import train
from mmnet.model import Multimodal
from mmnet.outer import Plan
from mmnet.stop import Stop
from mmnet.track.base import Tracker
from mmnet.track.recorder import Recorder


Collate = Callable[[list[Tensor]], Inputs]


class Memory:
    """A split whose samples are there already, as tensors."""

    digest = "in memory"

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples
        self.notes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def key(self, index: int) -> str:
        return str(index)

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        made: Sample = self.samples[index]
        return made

    def lengths(self, words: Any) -> "Sizes":
        return Sizes([len(sample["text"]) for sample in self.samples])


class Sizes:
    """Of texts that are tensors already."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes

    def __call__(self, index: int, rng: random.Random | None) -> int:
        return self._sizes[index]

    def longest(self) -> Numbers:
        return np.array(self._sizes, np.int32)


class Ready:
    """Tensors to batches: a sample needs no preparing, and none lacks a modality."""

    blank = torch.zeros(0)

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, raw: Any) -> Tensor:
        tensor: Tensor = raw
        return tensor

    def collate(self, tensors: list[Tensor]) -> Inputs:
        return self._collate(tensors)


class Clock(Ready):
    """Notes the CPU time whenever a batch is made."""

    def __init__(self, collate: Collate) -> None:
        super().__init__(collate)
        self.stamps: list[float] = []

    def collate(self, tensors: list[Tensor]) -> Inputs:
        self.stamps.append(time.process_time())
        return super().collate(tensors)

    def per_step(self, warm: int, steps: int) -> float:
        """Mean CPU seconds from one batch to the next over steps warm + 1 to `steps` - 1."""
        return (self.stamps[steps - 1] - self.stamps[warm]) / (steps - 1 - warm)


def stack(tensors: list[Tensor]) -> Inputs:
    return Inputs(torch.stack(tensors), None)


def make_job(
    folder: Path,
    run: Run,
    build: Callable[[], Multimodal],
    samples: list[Any],
    batched: Callable[[Collate], Collate] = lambda collate: collate,
) -> tuple[Job, Clock]:
    """A job as mmnet.session assembles it, but for model and data, which are given.

    Captions are batched as `batched` makes it of what their encoder does, and there the
    clock sits.
    """
    machine = choose(run.hardware)
    seed_everything(run.seed)
    model = build()
    optimizer = make(run.optimizer, model=model)
    own = model.prepare()
    clock = Clock(batched(own["text"].collate))
    split = Memory(samples)
    balance, controller = make(run.balance), make(run.controller)
    for part in (balance, controller):
        part.begin(Plan(model, optimizer, run.trainer.steps or 0, 1.0, None))
    job = Job(
        run=run,
        folder=folder,
        machine=machine,
        model=model,
        reading=Reading({"image": Ready(own["image"].collate), "text": clock}, ("label",)),
        optimizer=optimizer,
        schedule=make(run.schedule),
        balance=balance,
        controller=controller,
        scaler=machine.scaler(),
        average=follow(model, optimizer, run.trainer.ema_decay),
        train=split,
        val=Memory(samples[: run.trainer.batch_size]),
        names=Names(),
        bad=BadSamples("fail", 0.0, {"train": len(split), "val": run.trainer.batch_size}),
        total=run.trainer.steps or 0,
        counters=Counters(),
    )
    return job, clock


def batches(job: Job) -> Iterator[TrainStep]:
    """What the loop of mmnet would be fed, for other loops."""
    return train_steps(
        job.train,
        job.reading,
        batch_size=job.run.trainer.batch_size,
        micro_batch_size=job.run.micro_batch_size,
        seed=job.run.seed,
        first_step=1,
        last_step=job.total,
        num_workers=0,
        device=job.machine.device,
    )


def ours(job: Job, tracker: Tracker) -> None:
    """mmnet's loop with everything on: clip, schedule, guard, recorder, live progress line."""
    with hushed(), Stop() as stop:
        recorder = Recorder(job.folder)
        writer = Writer(job.folder / "checkpoints", 2, before=recorder.sync)
        tracker.start(job.folder)
        train(job, writer, recorder, tracker, stop)
        writer.wait()
        recorder.close()
        tracker.finish("FINISHED")
