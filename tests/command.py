"""The program as a user starts it: a process of its own, its words, and what it leaves behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from mmnet.checkpoint import load_newest
from mmnet.track.recorder import read
from tests.jobs import fingerprint


ROOT = Path(__file__).resolve().parents[1]
PROGRAM = (sys.executable, "-m", "mmnet.train")

# A second of steps on one core, after four to start. Dropout, so that random numbers matter.
MICRO = (
    "model=micro",
    "tracker=none",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "dataset.train_samples=256",
    "dataset.val_samples=40",
    "fusion.dropout=0.2",
    "trainer.ema_decay=0.9",
    "trainer.batch_size=16",
    "trainer.steps=40",
    "trainer.eval_every=10",
    "trainer.checkpoint_every=5",
)


class Ended(NamedTuple):
    """A run that is over."""

    code: int
    out: str
    err: str
    folder: Path  # the newest run folder; where it was started if there is none

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    def metric(self, name: str) -> dict[int, float]:
        """Its values by step. A step recorded twice fails."""
        lines = [line for line in read(self.folder) if name in line]
        values = {line["step"]: line[name] for line in lines}
        assert len(values) == len(lines), f"{name} was recorded twice at a step"
        return values


def begin(
    where: Path,
    *words: str,
    program: Sequence[str] = PROGRAM,
    env: dict[str, str] | None = None,
    **more: Any,
) -> subprocess.Popen[str]:
    """Start the program in the directory `where`."""
    where.mkdir(parents=True, exist_ok=True)
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {"PYTHONPATH": str(ROOT), **os.environ, **(env or {})}
    return subprocess.Popen(
        [*program, *words], cwd=where, env=environment, text=True, **{**streams, **more}
    )


def end(process: subprocess.Popen[str], where: Path, timeout: float = 120) -> Ended:
    """Wait for it. The run folder is the newest below `where`/outputs."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    folder = max(run_folders(where), key=lambda folder: folder.name, default=where)
    return Ended(process.returncode, out or "", err or "", folder)


def run(where: Path, *words: str, timeout: float = 120, **more: Any) -> Ended:
    """Start it and wait for it."""
    return end(begin(where, *words, **more), where, timeout)


def run_folders(where: Path) -> list[Path]:
    return sorted(where.glob("outputs/*/*"))


def checkpoints(where: Path) -> list[int]:
    """Steps of the whole checkpoints of the runs below `where`."""
    found = where.glob("outputs/*/*/checkpoints/step_*/manifest.json")
    return sorted(int(path.parent.name.removeprefix("step_")) for path in found)


def until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait until it is so. Fails, and ends the process, if the process ends before."""
    stop = time.monotonic() + 60
    while not condition():
        if process.poll() is not None or time.monotonic() > stop:
            process.kill()
            pytest.fail(
                f"it did not happen; exit code {process.returncode}: {process.communicate()}"
            )
        time.sleep(0.002)


def weights(folder: Path) -> str:
    """A digest of the final weights."""
    return fingerprint(load_file(folder / "model.safetensors"))


def everything(folder: Path) -> dict[str, Any]:
    """Digests of the final weights and of all that the last checkpoint holds, times left out;
    and which checkpoints there are, the best one named.
    """
    last = load_newest(folder / "checkpoints")
    state = dict(last.state)
    counters = {name: v for name, v in state.pop("counters").items() if "seconds" not in name}
    counters.pop("first_step_after")
    parts = {"final": load_file(folder / "model.safetensors"), "weights": last.weights}
    parts |= {"averaged": last.averaged or {}, "counters": counters, **state}
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    best = (folder / "checkpoints/best").resolve().name
    return {name: fingerprint(value) for name, value in parts.items()} | {"kept": [*kept, best]}
