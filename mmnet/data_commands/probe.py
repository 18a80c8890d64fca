"""What a training step waits for: reading its data, or computing."""

import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

from mmnet.assembly import assemble
from mmnet.columns import aligned
from mmnet.config import Run
from mmnet.data.loader import TrainStep
from mmnet.data.published import Published
from mmnet.data_commands.chosen import Chosen
from mmnet.data_commands.look import evenly, look, with_pictures
from mmnet.data_commands.options import Probe
from mmnet.errors import UserError, first_line
from mmnet.job import Job
from mmnet.loop import Parameters, advance, steps_of


WARM_UP = 3  # steps before the clock starts: buffers, kernels, workers
EQUAL = 1.15  # neither side is the bottleneck where one is no faster than so
PICTURES = 32  # that are opened to see how large they are
LARGE = 3.0  # times the size the network sees; above it shrinking pictures once pays


class Rates(NamedTuple):
    """Samples a second."""

    reading: float  # alone
    computing: float  # steps on one batch that is there
    together: float


def probe(run: Run, asked: Probe) -> Iterator[str]:
    """The rates, which is the bottleneck, and what to change. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="mmnet-probe-") as folder:
        try:
            job = assemble(run, Path(folder))
            rates = measured(job, asked.steps)
        except torch.OutOfMemoryError as problem:
            raise UserError(f"memory: {first_line(problem)}; see mmnet.inspect") from problem
    each = run.trainer.batch_size
    yield (
        f"{run.name} on {job.machine.device} in {job.machine.precision}: {asked.steps} steps of "
        f"{each} samples, hardware.num_workers={run.hardware.num_workers}"
    )
    rows = [("", "samples/s", "ms a step")]
    for what, rate in zip(("reading alone", "computing alone", "together"), rates, strict=True):
        rows.append((what, f"{rate:,.0f}", f"{1000 * each / rate:,.1f}"))
    yield from aligned(rows, right=(1, 2))
    if rates.reading * EQUAL < rates.computing:
        yield f"bottleneck: reading, {rates.computing / rates.reading:.1f} times slower"
        yield from read_faster(run, rates)
    elif rates.computing * EQUAL < rates.reading:
        yield f"bottleneck: computing, {rates.reading / rates.computing:.1f} times slower"
        yield from compute_faster(run, job, rates)
    else:
        yield "no bottleneck: reading and computing are equally fast"
        yield from side_by_side(run)


def measured(job: Job, steps: int) -> Rates:
    """Of the three. Raises UserError when nothing can be read."""
    job.model.train()
    network = torch.compile(job.model) if job.run.hardware.compile else job.model
    parameters = Parameters(job.model)

    def step(one: TrainStep) -> None:
        advance(job, network, parameters, one)
        job.counters.step += 1

    # Workers hand out what they read in turns, so whole turns are timed.
    turn = max(1, job.run.hardware.num_workers)
    turns, first = -(-steps // turn) * turn, max(WARM_UP, turn)
    with closing(steps_of(job, 1, first + turns)) as data:
        warm = list(itertools.islice(data, first))
        began = time.perf_counter()
        samples = sum(one.samples for one in data)
        reading = samples / (time.perf_counter() - began)
    batch = next((one for one in warm if one.batches), None)
    if batch is None or not samples:
        raise UserError("none of the samples that were tried can be read; see mmnet.data verify")

    for _ in range(WARM_UP):
        step(batch)
    began = time.perf_counter()
    for _ in range(steps):
        step(batch)
    computing = steps * batch.samples / (time.perf_counter() - began)

    with closing(steps_of(job, 1, first + turns)) as data:
        for one in itertools.islice(data, first):
            step(one)
        began, samples = time.perf_counter(), 0
        for one in data:
            step(one)
            samples += one.samples
        together = samples / (time.perf_counter() - began)
    return Rates(reading, computing, together)


def read_faster(run: Run, rates: Rates) -> Iterator[str]:
    """What to change where reading is the bottleneck."""
    workers, cores = run.hardware.num_workers, os.cpu_count() or 1
    needed = math.ceil(rates.computing / (rates.reading / max(1, workers)))
    if workers < cores:
        keep_up = (
            "would keep up" if needed <= cores else f"are all cores here, {needed} would keep up"
        )
        yield f"  hardware.num_workers={min(needed, cores)}: so many {keep_up}"
    yield from smaller_pictures(run)
    if workers >= cores:
        yield f"  more cores than the {cores} of this machine: {needed} workers would keep up"


def smaller_pictures(run: Run) -> Iterator[str]:
    """Whether pictures are much larger than the network sees them."""
    size = run.dataset.get("image_size")
    dataset = Chosen(run.dataset, Path(run.paths.data)).open()
    if not size or not isinstance(dataset, Published):
        return
    looked = list(look(dataset, evenly(with_pictures(dataset), PICTURES)))
    sides = [min(one.width, one.height) for one in looked if not one.bad]
    if sides and (side := statistics.median(sides)) > LARGE * size:
        yield (
            f"  python -m mmnet.data prepare dataset={dataset.title} out=<folder> "
            f"short_side={2 * size}: pictures have {side:.0f} pixels on their shorter side, and "
            f"the network sees {size}"
        )


def compute_faster(run: Run, job: Job, rates: Rates) -> Iterator[str]:
    """What to change where computing is the bottleneck."""
    yield from side_by_side(run)
    hardware, cuda = run.hardware, job.machine.device.type == "cuda"
    if cuda and job.machine.precision == "fp32":
        yield "  hardware.precision=auto: half the bits are several times as fast here"
    if run.accumulate > 1:
        yield (
            f"  hardware.micro_batch_size={run.micro_batch_size * 2}, or as much as fits "
            f"(mmnet.inspect says): {run.accumulate} small batches keep this machine less busy"
        )
    if hardware.activation_checkpointing:
        yield "  hardware.activation_checkpointing=false, where memory allows it"
    if cuda and not hardware.compile:
        yield "  hardware.compile=true: a minute at the start, faster steps"
    workers = hardware.num_workers
    if workers > 1 and (enough := math.ceil(workers * rates.computing / rates.reading)) < workers:
        yield f"  hardware.num_workers={enough} would be enough; it leaves cores to others"


def side_by_side(run: Run) -> Iterator[str]:
    """Without workers the two take turns."""
    if run.hardware.num_workers == 0:
        yield "  hardware.num_workers=1 or more: reading and computing then go on side by side"
