"""A training run from its config to its folder: check, build, resume, train, hand over.

A run folder holds, once the run has ended:

    config.yaml          what was asked; enough to do it again
    record.json          what it met: code, machine, packages, data
    controller.jsonl     what the controller decided and on what grounds, one line a decision
    metrics.jsonl        every number, one line a step
    train.log            what was said
    checkpoints/         see mmnet.checkpoint
    model.safetensors    final weights: the averaged ones where there is an average
    summary.json         how it ended: status, final and best metrics, speed, memory, bad samples
    plots/               loss, rate, confusion, predictions, modalities
    modalities.csv       the metrics with a modality missing, swapped or noised
    controller.html      what the controller did and why, in words and a picture
    shadow/              the same run without its controller, with controller.shadow=true
    git.diff             uncommitted changes of the code, if any
    tracker.json         where the tracker keeps the run, if it does
"""

import json
import logging
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmnet import checkpoint, shadow
from mmnet.assembly import assemble, job_facts
from mmnet.compose import make
from mmnet.config import Run
from mmnet.ending import explained, hand_over, nothing_left, summarize, way_on
from mmnet.errors import UserError, first_line
from mmnet.folder import hold, put
from mmnet.job import Job
from mmnet.loop import train
from mmnet.stop import Stop, Stopped
from mmnet.track.base import Status, Tracker
from mmnet.track.record import describe, save_diff
from mmnet.track.recorder import Recorder


log = logging.getLogger(__name__)


def run_training(run: Run, folder: Path, config: str) -> float:
    """Train as told in `folder`; `config` is the text of its config.yaml.

    Returns the best value of trainer.monitor. Raises UserError for what the user can mend
    and Stopped after SIGTERM or SIGINT, the run saved.
    """
    tracker: Tracker = make(run.tracker)
    tracker.check()
    with hold(folder):
        return carry_out(run, folder, config, tracker)


def carry_out(run: Run, folder: Path, config: str, tracker: Tracker) -> float:
    """The same in a folder that no other process trains in, followed by `tracker`."""
    try:
        job = assemble(run, folder)
    except torch.OutOfMemoryError as problem:
        raise UserError(f"not even the network fits: {first_line(problem)}") from problem
    facts = describe(run) | job_facts(job)
    if run.resume:
        found = checkpoint.load_newest(folder / "checkpoints")
        before = go_on(job, found, facts)
        if over := nothing_left(job):
            log.info(over)
            return best(job)
        log.info("going on from %s", found.path)
        facts["earlier_starts"] = [*before.pop("earlier_starts", []), before]

    announce(job)
    try:
        if run.resume and job.counters.step < job.total:
            for stale in ("summary.json", "model.safetensors"):
                (folder / stale).unlink(missing_ok=True)  # of the end it had before
        put(folder / "config.yaml", config)
        put(folder / "record.json", json.dumps(facts, indent=1))
        save_diff(folder)
        recorder = Recorder(folder)
        decisions = Recorder(folder, "controller.jsonl") if job.controller.by else None
        writer = checkpoint.Writer(
            folder / "checkpoints",
            run.trainer.keep_checkpoints,
            before=partial(sync, recorder, decisions),
        )
        if run.resume:
            # A kill between a checkpoint and this link would have left an older one the best.
            writer.link_best(job.counters.best_step)
            recorder.event("resumed", step=job.counters.step)
        tracker.start(folder)
    except OSError as problem:
        if not run.resume:
            shutil.rmtree(folder)  # of a run that never began nothing stays behind
        raise UserError(f"{folder} cannot be written: {problem.strerror}") from problem

    status: Status = "FAILED"
    error = ""
    try:
        with Stop() as stop:
            evaluation = train(job, writer, recorder, tracker, stop, decisions)
            writer.wait()
            if stop.signum is not None:
                raise Stopped(stop.signum, f"after step {job.counters.step}; {way_on(job, writer)}")
            hand_over(job, evaluation)
        if job.controller.shadow:
            tracker.log(recorder.log(job.counters.step, shadow.beside(job, config, carry_out)))
        if writer.failures:
            raise UserError(
                f"{writer.failures} checkpoint(s) could not be written, see train.log; "
                f"training itself went through"
            )
        status = "FINISHED"
    except BaseException as problem:
        told = explained(problem, job, writer)
        error = str(told) or type(told).__name__
        if isinstance(told, UserError) and not isinstance(told, Stopped):
            told.exit_code = 1  # something was started
        status = "KILLED" if isinstance(told, Stopped) else "FAILED"
        if told is problem:
            raise
        raise told from problem
    finally:
        writer.wait()
        recorder.close()
        if decisions is not None:
            decisions.close()
        summarize(job, status, error, writer.failures)
        for text in [f"run folder: {folder}", *tracker.finish(status)]:
            log.info(text)
    return best(job)


def sync(*recorders: Recorder | None) -> None:
    """Bring what they hold to the disk. Raises UserError."""
    for recorder in recorders:
        if recorder is not None:
            recorder.sync()


def best(job: Job) -> float:
    """The best value of trainer.monitor, NaN where there is none."""
    return job.counters.best.get(job.run.trainer.monitor, math.nan)


def go_on(job: Job, found: checkpoint.Checkpoint, facts: dict[str, Any]) -> dict[str, Any]:
    """Restore `job` from a checkpoint; returns record.json as it was.

    Raises UserError if the data or the network is not the same.
    """
    try:
        before: dict[str, Any] = json.loads((job.folder / "record.json").read_text())
        digests = {name: split["digest"] for name, split in before["dataset"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{job.folder}: its record.json cannot be read") from error
    for name, split in facts["dataset"].items():
        if digests.get(name) != split["digest"]:
            raise UserError(
                f"resume={job.folder}: the {name} data has changed since (digest "
                f"{str(digests.get(name))[:12]} then, {split['digest'][:12]} now): start a new run"
            )
    try:
        job.restore(found)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{found.path}: does not fit the network that config.yaml describes: "
            f"{first_line(error)}"
        ) from error
    if len(job.counters.recently_skipped) > job.run.trainer.max_nonfinite:
        job.counters.recently_skipped = []  # they ended the run before; it gets another chance
    return before


def announce(job: Job) -> None:
    """What is about to happen, in three lines, and what looks like a slip."""
    run = job.run
    log.info(
        "%s: %d steps of %d samples%s",
        run.name,
        job.total,
        run.trainer.batch_size,
        f" ({run.accumulate} x {run.micro_batch_size})" if run.accumulate > 1 else "",
    )
    log.info("data: %d train, %d val samples", len(job.train), len(job.val))
    count = sum(p.numel() for p in job.model.parameters())
    reads = " and ".join(job.model.encoders)
    log.info("network: reads %s, %s parameters", reads, f"{count:,}")
    for doubt in doubts(job):
        log.warning(doubt)


def doubts(job: Job) -> list[str]:
    """What may be meant, and may as well be a slip."""
    run, said = job.run, []
    if len(job.train) < run.trainer.batch_size:
        said.append(
            f"trainer.batch_size={run.trainer.batch_size} is more than the {len(job.train)} train "
            f"samples: a step meets some of them more than once"
        )
    reads = " and ".join(run.modalities)
    if run.name == run.model.name and len(run.modalities) == 1 and reads not in run.name:
        said.append(
            f"this run is called {run.name}, and what is trained reads {reads} only: "
            f"model={reads}_only, or a name of its own (name=...), would say so"
        )
    return said
