"""How a run ends: what it hands over, its summary, and the words for what went wrong."""

import json
import logging
import signal

import torch
from safetensors import SafetensorError

from mmnet import checkpoint
from mmnet.errors import UserError
from mmnet.evaluation import Evaluation
from mmnet.folder import put
from mmnet.hardware import memory_mb
from mmnet.job import Job
from mmnet.loop import look
from mmnet.pictures import examples
from mmnet.stop import Stop, Stopped
from mmnet.track.base import Status


log = logging.getLogger(__name__)


def hand_over(job: Job, evaluation: Evaluation | None) -> None:
    """Final weights and pictures of a run that went through."""
    from mmnet.report import plots  # brings in matplotlib

    if evaluation is None:  # killed between the last checkpoint and this point, then resumed
        evaluation = look(job, Stop())
    weights = job.average.averaged() or job.model.state_dict()
    temporary = job.folder / ".tmp-model.safetensors"
    pictures = examples(job, count=16)
    try:
        checkpoint.save_weights(temporary, weights)
        temporary.rename(job.folder / "model.safetensors")
        plots.draw_curves(job.folder)
        plots.draw_confusion(job.folder, evaluation.tables["confusion"].numpy(), job.classes)
        plots.draw_predictions(job.folder, pictures)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"training went through, but what it made could not be written: {error}; when there "
            f"is room: python -m mmnet.train resume={job.folder}"
        ) from error


def summarize(job: Job, status: Status, error: str, failures: int) -> None:
    """summary.json, and its figures for the reader of the log."""
    progress = job.progress
    speed = progress.samples / progress.seconds if progress.seconds else 0.0
    summary = {
        "status": status,
        "error": error,
        "steps": progress.step,
        "final": progress.final,
        "best": progress.best,
        "best_step": progress.best_step,
        "samples_per_second": speed,
        "peak_memory_mb": memory_mb(job.machine.device),
        "seconds_to_first_step": progress.first_step_after,
        "seconds_in_steps": progress.seconds,
        "skipped_steps": progress.skipped,
        "bad_samples": job.bad.counts(),
        "failed_checkpoints": failures,
    }
    try:
        put(job.folder / "summary.json", json.dumps(summary, indent=1))
    except OSError as problem:
        log.error("summary.json was not written: %s", problem.strerror)
    log.info(
        "%s after %d steps  %s  %.0f samples/s",
        status.lower(),
        progress.step,
        "  ".join(f"{name} {value:.4f}" for name, value in progress.final.items()),
        speed,
    )


def explained(problem: BaseException, job: Job) -> BaseException:
    """The same in words the user can act on, where there are some."""
    run = job.run
    match problem:
        case torch.OutOfMemoryError():
            return UserError(
                f"out of GPU memory with micro-batches of {run.micro_batch_size}: try "
                f"hardware.micro_batch_size={max(1, run.micro_batch_size // 2)}, which leaves "
                f"the batch of {run.trainer.batch_size} as it is"
            )
        case KeyboardInterrupt():
            return Stopped(
                signal.SIGINT,
                f"at once, after step {job.progress.step}; go on from the last checkpoint with: "
                f"python -m mmnet.train resume={job.folder}",
            )
    return problem
