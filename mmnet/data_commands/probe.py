"""What a training step waits for: reading its data, or computing."""

import itertools
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

from mmnet.assembly import assemble
from mmnet.compose import make
from mmnet.config import Run
from mmnet.data.loader import TrainStep, train_steps
from mmnet.data_commands.options import Probe
from mmnet.data_commands.table import aligned
from mmnet.errors import UserError, first_line
from mmnet.job import Job
from mmnet.loop import Parameters, advance


WARM_UP = 3  # steps before the clock starts: buffers, kernels, workers
EQUAL = 1.15  # neither side is the bottleneck where one is no faster than so


class Rates(NamedTuple):
    """Samples a second."""

    reading: float  # alone
    computing: float  # steps on one batch that is there
    together: float


def probe(run: Run, asked: Probe) -> Iterator[str]:
    """The rates, what is the bottleneck, and what to change. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="mmnet-probe-") as folder:
        try:
            job = assemble(run, Path(folder))
        except torch.OutOfMemoryError as problem:
            raise UserError(f"not even the network fits: {first_line(problem)}") from problem
        rates = measured(job, asked.steps)
    yield f"{run.name} on {job.machine.device}, {job.machine.precision}: {asked.steps} steps each of "
    yield f"{run.trainer.batch_size} samples, hardware.num_workers={run.hardware.num_workers}"
    each = run.trainer.batch_size
    rows = [("", "samples/s", "ms a step")]
    for what, rate in zip(("reading alone", "computing alone", "together"), rates, strict=True):
        rows.append((what, f"{rate:,.0f}", f"{1000 * each / rate:,.1f}"))
    yield from aligned(rows, right=(1, 2))
    yield from verdict(run, job, rates)


def measured(job: Job, steps: int) -> Rates:
    """Samples a second of each side. Raises UserError when nothing can be read."""
    job.model.train()
    network = torch.compile(job.model) if job.run.hardware.compile else job.model
    parameters = Parameters(job.model)

    with closing(reads(job, steps)) as data:
        batch = next(one for one in data if one.batches)
        for _ in range(WARM_UP - 1):
            next(data)
        began = time.perf_counter()
        read = sum(one.samples for one in itertools.islice(data, steps))
        reading = read / (time.perf_counter() - began)

    def step(one: TrainStep) -> None:
        advance(job, network, parameters, one)
        job.counters.step += 1

    for _ in range(WARM_UP):
        step(batch)
    began = time.perf_counter()
    for _ in range(steps):
        step(batch)
    computing = steps * batch.samples / (time.perf_counter() - began)

    with closing(reads(job, steps)) as data:
        for one in itertools.islice(data, WARM_UP):
            step(one)
        began, samples = time.perf_counter(), 0
        for one in itertools.islice(data, steps):
            step(one)
            samples += one.samples
        together = samples / (time.perf_counter() - began)
    if not read or not samples:
        raise UserError("none of the samples that were tried could be read: mmnet.data verify")
    return Rates(reading, computing, together)
