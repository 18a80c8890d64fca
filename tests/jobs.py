"""Small real runs inside the test process: the same objects and the same loop."""

import hashlib
from pathlib import Path

import torch

from mmnet.assembly import assemble
from mmnet.checkpoint import Writer, load_newest
from mmnet.compose import load
from mmnet.job import Job
from mmnet.loop import train
from mmnet.stop import Stop
from mmnet.track.none import Nowhere
from mmnet.track.recorder import Recorder, read


SMALL = (
    "model=micro",
    "tracker=none",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "dataset.train_samples=64",
    "dataset.val_samples=40",
    "trainer.batch_size=16",
    "trainer.steps=12",
    "trainer.eval_every=5",
    "trainer.checkpoint_every=100",
)


def make_job(folder: Path, *overrides: str) -> Job:
    folder.mkdir(exist_ok=True)
    return assemble(load(*SMALL, *overrides), folder)


def run_job(job: Job, stop_after: int | None = None) -> Job:
    """Train to the end, or until a signal arrives after step `stop_after`."""
    recorder = Recorder(job.folder)
    writer = Writer(
        job.folder / "checkpoints", job.run.trainer.keep_checkpoints, before=recorder.sync
    )
    stop = Stop()
    if stop_after is not None:
        model_step = job.optimizer.step
        done = job.counters.step

        def step(*args: object, **kwargs: object) -> object:
            nonlocal done
            done += 1
            if done >= stop_after:
                stop.signum = 15
            return model_step(*args, **kwargs)

        job.optimizer.step = step  # type: ignore[method-assign]
    try:
        train(job, writer, recorder, Nowhere(), stop)
    finally:
        writer.wait()
        recorder.close()
    return job


def resume(job: Job) -> Job:
    """A fresh job that goes on from the newest checkpoint in the folder of `job`."""
    fresh = assemble(job.run, job.folder)
    fresh.restore(load_newest(job.folder / "checkpoints"))
    return fresh


def metrics(job: Job, name: str) -> list[float]:
    return [line[name] for line in read(job.folder) if name in line]


def fingerprint(value: object) -> str:
    """A digest of every tensor and number in a nested value."""
    digest = hashlib.sha256()

    def add(item: object) -> None:
        if isinstance(item, torch.Tensor):
            digest.update(item.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            for key in item:
                digest.update(str(key).encode())
                add(item[key])
        elif isinstance(item, list | tuple):
            for one in item:
                add(one)
        else:
            digest.update(repr(item).encode())

    add(value)
    return digest.hexdigest()


def state_of(job: Job) -> dict[str, str]:
    """Digests of all that a run is, by name; times are left out."""
    state = job.state()
    counters = {k: v for k, v in state.pop("counters").items() if "seconds" not in k}
    counters.pop("first_step_after")
    everything = state | {
        "counters": counters,
        "weights": job.model.state_dict(),
        "averaged": job.average.averaged(),
    }
    return {name: fingerprint(value) for name, value in everything.items()}
