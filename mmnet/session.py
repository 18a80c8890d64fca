"""A training run from its config to its folder: check, build, resume, train, hand over.

A run folder holds, once the run has ended:

    config.yaml          what was asked; enough to do it again
    record.json          what it met: code, machine, packages, data
    metrics.jsonl        every number, one line a step
    train.log            what was said
    checkpoints/         see mmnet.checkpoint
    model.safetensors    final weights: the averaged ones where there is an average
    summary.json         how it ended: status, final and best metrics, speed, memory, bad samples
    plots/               loss, rate, confusion, predictions
    git.diff             uncommitted changes of the code, if any
    tracker.json         where the tracker keeps the run, if it does
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from mmnet import checkpoint
from mmnet.average import follow
from mmnet.compose import make
from mmnet.config import Run
from mmnet.data.bad import BadSamples
from mmnet.ending import explained, hand_over, summarize
from mmnet.errors import ConfigError, UserError, first_line
from mmnet.folder import hold, put
from mmnet.hardware import choose
from mmnet.job import Job, Progress, seed_everything
from mmnet.loop import train
from mmnet.model import build
from mmnet.stop import Stop, Stopped
from mmnet.track.base import Status
from mmnet.track.record import describe, save_diff
from mmnet.track.recorder import Recorder


log = logging.getLogger(__name__)


def run_training(run: Run, folder: Path, config: str) -> float:
    """Train as told in `folder`; `config` is the text of its config.yaml.

    Returns the best value of trainer.monitor. Raises UserError for what the user can mend
    and Stopped after SIGTERM or SIGINT, the run saved.
    """
    tracker = make(run.tracker)
    tracker.check()
    lock = hold(folder)
    job = assemble(run, folder)
    facts = describe(run) | job_facts(job)
    if run.resume:
        go_on(job, checkpoint.load_newest(folder / "checkpoints"), facts)

    announce(job)
    try:
        put(folder / "config.yaml", config)
        put(folder / "record.json", json.dumps(facts, indent=1))
        save_diff(folder)
        recorder = Recorder(folder)
        writer = checkpoint.Writer(
            folder / "checkpoints", run.trainer.keep_checkpoints, before=recorder.sync
        )
        if run.resume:
            recorder.event("resumed", step=job.progress.step)
        tracker.start(folder)
    except OSError as problem:
        if not run.resume:
            shutil.rmtree(folder)  # of a run that never began nothing stays behind
        raise UserError(f"{folder} cannot be written: {problem.strerror}") from problem

    status: Status = "FAILED"
    error = ""
    try:
        with Stop() as stop:
            evaluation = train(job, writer, recorder, tracker, stop)
            writer.wait()
            if stop.signum is not None:
                raise Stopped(
                    stop.signum,
                    f"after step {job.progress.step}; go on with: "
                    f"python -m mmnet.train resume={folder}",
                )
            hand_over(job, evaluation)
        if writer.failures:
            raise UserError(
                f"{writer.failures} checkpoint(s) could not be written, see train.log; "
                f"training itself went through"
            )
        status = "FINISHED"
    except BaseException as problem:
        told = explained(problem, job)
        error = str(told) or type(told).__name__
        status = "KILLED" if isinstance(told, Stopped) else "FAILED"
        if told is problem:
            raise
        raise told from problem
    finally:
        writer.wait()
        recorder.close()
        summarize(job, status, error, writer.failures)
        for text in [f"run folder: {folder}", *tracker.finish(status)]:
            log.info(text)
        lock.close()
    return job.progress.best.get(run.trainer.monitor, float("nan"))


def assemble(run: Run, folder: Path) -> Job:
    """Build everything a run needs, checks first. Raises UserError and ConfigError."""
    machine = choose(run.hardware)
    check_parts(run)
    dataset = make(run.dataset, data=Path(run.paths.data))
    train_split, val_split = dataset.split("train"), dataset.split("val")
    check_data(run, dataset.classes)

    seed_everything(run.seed)
    model = build(run).to(machine.device)
    optimizer = make(run.optimizer, model=model)
    return Job(
        run=run,
        folder=folder,
        machine=machine,
        model=model,
        prepare=model.prepare(),
        optimizer=optimizer,
        schedule=make(run.schedule),
        controller=make(run.controller),
        scaler=machine.scaler(),
        average=follow(model, optimizer, run.trainer.ema_decay),
        train=train_split,
        val=val_split,
        classes=dataset.classes,
        bad=BadSamples(
            dataset.on_bad_sample,
            dataset.max_bad_fraction,
            {"train": len(train_split), "val": len(val_split)},
        ),
        total=total_steps(run, len(train_split)),
        progress=Progress(),
    )


def job_facts(job: Job) -> dict[str, Any]:
    """What the run met, as far as the built objects know."""
    return {
        "dataset": {
            name: {"samples": len(split), "digest": split.digest, "notes": split.notes}
            for name, split in (("train", job.train), ("val", job.val))
        },
        "classes": job.classes,
        "hardware": {"device": str(job.machine.device), "precision": job.machine.precision},
        "parameters": sum(p.numel() for p in job.model.parameters()),
    }


def check_parts(run: Run) -> None:
    """Ask every part about names and files that only it can judge, before any is built.

    Raises ConfigError with all the answers.
    """
    problems = []
    for path, part in run.parts():
        if path == "tracker":
            continue  # checked as an object: it is cheap to make
        check = getattr(get_object(part["_target_"]), "check", None)
        if check is not None:
            try:
                check(**{key: value for key, value in part.items() if key != "_target_"})
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def check_data(run: Run, classes: list[str]) -> None:
    """Hold the head against what the data turned out to hold. Raises ConfigError."""
    if run.head["num_classes"] != len(classes):
        raise ConfigError(
            [
                f"head.num_classes={run.head['num_classes']}: the data has {len(classes)} "
                f"({', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''})"
            ]
        )


def total_steps(run: Run, samples: int) -> int:
    """Optimizer steps of the whole run; the last epoch is finished, not cut."""
    if run.trainer.steps is not None:
        return run.trainer.steps
    assert run.trainer.epochs is not None
    return -(-run.trainer.epochs * samples // run.trainer.batch_size)


def go_on(job: Job, found: checkpoint.Checkpoint, facts: dict[str, Any]) -> None:
    """Restore `job` from a checkpoint. Raises UserError if the data is not the same."""
    before = json.loads((job.folder / "record.json").read_text())
    old, new = (record["dataset"]["train"]["digest"] for record in (before, facts))
    if old != new:
        raise UserError(
            f"resume={job.folder}: the training data has changed since "
            f"(digest {old[:12]} then, {new[:12]} now): start a new run"
        )
    try:
        job.restore(found)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"{found.path}: does not fit the network that config.yaml describes: "
            f"{first_line(error)}"
        ) from error
    log.info("going on from %s", found.path)


def announce(job: Job) -> None:
    """What is about to happen, in three lines."""
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
    log.info("network: %s parameters", f"{count:,}")
