"""How a run ends: what it hands over, its summary, and the words for what went wrong."""

import json
import logging
import math
import signal
from typing import Any

import torch
from safetensors import SafetensorError

from mmnet import checkpoint
from mmnet.errors import ConfigError, UserError
from mmnet.evaluation import Evaluation
from mmnet.folder import put
from mmnet.hardware import memory_mb
from mmnet.job import Job
from mmnet.loop import look, out_of_patience
from mmnet.pictures import examples
from mmnet.stop import Stop, Stopped
from mmnet.track.base import Status


log = logging.getLogger(__name__)


def nothing_left(job: Job) -> str:
    """Why a resumed run is over already, and what would let it go on; empty if it goes on.

    Raises ConfigError if it is to end before the step that it has reached.
    """
    trainer, step = job.run.trainer, job.counters.step
    key = "trainer.steps" if trainer.steps is not None else "trainer.epochs"
    if job.total < step:
        what = f"{trainer.epochs} ({job.total} steps)" if trainer.steps is None else job.total
        raise ConfigError([f"{key}={what}: the run has done {step} steps already; want more"])
    early = step < job.total
    if (early and not out_of_patience(job)) or not _handed_over(job):
        return ""
    if early:
        key = "trainer.patience"
    ended = ", stopped early" if early else ""
    return f"the run is finished: {step} of {job.total} steps{ended}; give {key}=<more> to go on"


def _handed_over(job: Job) -> bool:
    """Whether the run had got to its very end: a kill or a full disk may have come before."""
    try:
        summary = json.loads((job.folder / "summary.json").read_text(encoding="utf-8"))
        done = summary["status"] == "FINISHED" and summary["steps"] == job.counters.step
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return done and (job.folder / "model.safetensors").is_file()


def hand_over(job: Job, evaluation: Evaluation | None) -> None:
    """Final weights and pictures of a run that went through."""
    from mmnet import contribution
    from mmnet.controller import report as controller
    from mmnet.report import modalities, plots  # bring in matplotlib

    if evaluation is None:  # killed between the last checkpoint and this point, then resumed
        evaluation = look(job, Stop())
    weights = job.average.averaged() or job.model.state_dict()
    temporary = job.folder / ".tmp-model.safetensors"
    try:
        checkpoint.save_weights(temporary, weights)
        temporary.rename(job.folder / "model.safetensors")
        plots.draw_curves(job.folder)
        for name, table in evaluation.tables.items():
            if name.endswith("confusion"):  # of a task it is <task>_confusion
                plots.draw_confusion(job.folder, table.numpy(), job.names.classes, name)
        plots.draw_predictions(job.folder, examples(job, count=16))
        if controller.decided(job.folder):
            controller.write(job.folder)
        if job.run.trainer.modality_grid:
            job.modalities = contribution.report(job, job.run.trainer.modality_grid)
        if job.modalities:
            modalities.save_table(job.folder, job.modalities["grid"])
            modalities.draw_modalities(job.folder, job.modalities)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"training went through, but what it made could not be written: {error}; when there "
            f"is room: python -m mmnet.train resume={job.folder}"
        ) from error


def summarize(job: Job, status: Status, error: str, failures: int) -> None:
    """summary.json, and its figures for the reader of the log."""
    counters = job.counters
    speed = counters.samples / counters.seconds if counters.seconds else 0.0
    summary = {
        "status": status,
        "error": error,
        "steps": counters.step,
        "final": counters.final,
        "best": counters.best,
        "best_step": counters.best_step,
        "samples_per_second": speed,
        "peak_memory_mb": memory_mb(job.machine.device),
        "seconds_to_first_step": counters.first_step_after,
        "seconds_in_steps": counters.seconds,
        "skipped_steps": counters.skipped,
        "bad_samples": job.bad.counts(),
        "modalities": job.modalities,
        "failed_checkpoints": failures,
    }
    try:
        put(job.folder / "summary.json", json.dumps(finite(summary), indent=1))
    except OSError as problem:
        log.error("summary.json was not written: %s", problem.strerror)
    log.info(
        "%s after %d steps  %s  %.0f samples/s",
        status.lower(),
        counters.step,
        "  ".join(f"{name} {value:.4f}" for name, value in counters.final.items()),
        speed,
    )


def explained(problem: BaseException, job: Job, writer: checkpoint.Writer) -> BaseException:
    """The same in words the user can act on, where there are some."""
    run, micro = job.run, job.run.micro_batch_size
    match problem:
        case torch.OutOfMemoryError():
            fits = [n for n in range(1, micro // 2 + 1) if run.trainer.batch_size % n == 0]
            advice = (
                f"hardware.micro_batch_size={fits[-1]}, which leaves the batch of "
                f"{run.trainer.batch_size} as it is"
                if fits
                else "hardware.activation_checkpointing=true"
            )
            return UserError(f"out of GPU memory with micro-batches of {micro}: try {advice}")
        case KeyboardInterrupt():
            return Stopped(
                signal.SIGINT, f"at once, after step {job.counters.step}; {way_on(job, writer)}"
            )
    return problem


def way_on(job: Job, writer: checkpoint.Writer) -> str:
    """How to go on with a run that was stopped, and from where."""
    good = checkpoint.newest(writer.folder)
    if not good:
        return "nothing was saved"
    text = f"go on with: python -m mmnet.train resume={job.folder}"
    if writer.failures and writer.written != job.counters.step:
        return f"its last state could not be written; from {good[-1].name}, {text}"
    return text


def finite(value: Any) -> Any:
    """The same for JSON, which has no word for NaN: null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
