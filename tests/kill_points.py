"""Kills the program at one file-system call after another.

    python -m tests.kill_points saves|runs <empty folder> <n: at every n-th call>

Random moments seldom hit the microseconds between two calls; this hits each. The program runs
in a process forked from one that has imported everything, so that a start costs no seconds,
and kills itself just before the n-th call that would change something in its folder.
"""

import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchmetrics.classification
from safetensors.torch import load_file

from mmnet import checkpoint, session, train
from mmnet.report import plots
from tests.jobs import fingerprint


IMPORTED = (session, plots, torchmetrics.classification)  # so that no fork need do it


CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.truncate", "open"}
READS = os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC
WORDS = (
    "model=micro",
    "tracker=csv",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "dataset.train_samples=64",
    "dataset.val_samples=8",
    "fusion.dropout=0.2",
    "trainer.batch_size=4",
    "trainer.steps=6",
    "trainer.eval_every=3",
    "trainer.checkpoint_every=2",
    "trainer.keep_checkpoints=1",
    "trainer.ema_decay=0.9",
)


def forked(where: Path, action: Callable[[], Any], kill_at: int | None) -> tuple[int, int]:
    """Do it in a process of its own, in `where`. Returns (exit code, calls that it made)."""
    where.mkdir(exist_ok=True)
    counter, told = os.pipe()
    if (child := os.fork()) == 0:
        os.chdir(where)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.addaudithook(lambda event, args: count(event, args, str(where), told, kill_at))
        code = 0
        try:
            action()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 99
        os._exit(code)
    os.close(told)
    calls = 0
    while found := os.read(counter, 1000):
        calls += len(found)
    os.close(counter)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), calls


seen = 0


def count(event: str, args: tuple[Any, ...], where: str, told: int, kill_at: int | None) -> None:
    global seen
    if event not in CHANGES or (event == "open" and args[2] in READS):
        return
    paths = [Path(str(path)).absolute() for path in args[:2]]
    if event != "os.truncate" and not any(path.is_relative_to(where) for path in paths):
        return
    seen += 1
    os.write(told, b".")
    if seen == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def command(*words: str) -> Callable[[], None]:
    def act() -> None:
        sys.argv = ["mmnet-train", *words]
        train.cli()

    return act


def digest(folder: Path) -> str:
    last = checkpoint.load_newest(folder / "checkpoints")
    parts = [last.weights, last.averaged, last.state["optimizer"], last.state["rng"]]
    return fingerprint([load_file(folder / "model.safetensors"), *parts])


def run_folder(where: Path) -> Path:
    return next(where.glob("outputs/micro/*"))


def check_runs(where: Path, stride: int) -> int:
    """Kill a run in its first start, then in its second; resumed, it ends as if nothing had been.

    Returns the number of kills.
    """
    code, calls = forked(where / "whole", command(*WORDS), None)
    assert code == 0, (where / "whole/said.txt").read_text()
    expected = digest(run_folder(where / "whole"))
    half = where / "half"  # killed after its first checkpoint
    kills = 0

    for at in range(1, calls + 1, stride):
        place = where / f"first-{at}"
        code, _ = forked(place, command(*WORDS), at)
        assert code in (-signal.SIGKILL, 0)  # which calls come before others varies a little
        kills += code != 0
        saved = any(place.glob("outputs/micro/*/checkpoints/step_*"))
        if saved and not half.exists():
            shutil.copytree(place, half, symlinks=True)
        if saved:
            go_on(place, expected)
        shutil.rmtree(place)

    for at in range(1 + stride // 2, 2 * calls, stride):
        place = where / f"second-{at}"
        shutil.copytree(half, place, symlinks=True)
        code, _ = forked(place, command(f"resume={run_folder(place)}"), at)
        if code == 0:
            return kills
        kills += 1
        go_on(place, expected)
        shutil.rmtree(place)
    raise AssertionError("the second start was never through")


def go_on(place: Path, expected: str) -> None:
    """Resume the run in `place`: it must end with the expected weights and leave no litter."""
    folder = run_folder(place)
    code, _ = forked(place, command(f"resume={folder}"), None)
    said = (place / "said.txt").read_text()
    assert code == 0 and "Traceback" not in said, f"{place}: {said}"
    assert digest(folder) == expected, f"{place}: other weights"
    litter = [path for path in folder.rglob("*") if ".tmp" in path.name or ".new" in path.name]
    assert not litter, litter


def check_saves(where: Path, stride: int) -> int:
    """Kill while the first checkpoint is saved, then while the same step is saved again."""
    folder = where / "checkpoints"
    first, second = torch.zeros(9), torch.ones(9)
    kills = 0

    def save(value: torch.Tensor) -> None:
        writer = checkpoint.Writer(folder, 1, lambda: None)
        writer.save(3, {"w": value}, None, {"w": value}, True)
        writer.wait()

    for before in (None, first):
        for at in itertools.count(1, stride):
            shutil.rmtree(where, ignore_errors=True)
            if before is not None:
                assert forked(where, lambda: save(first), None)[0] == 0
            code, _ = forked(where, lambda: save(second), at)
            whole = checkpoint.newest(folder)
            assert whole or before is None
            for path in whole:
                found = checkpoint.load(path)
                assert torch.equal(found.weights["w"], found.state["w"])
            assert forked(where, lambda: save(second), None)[0] == 0
            assert torch.equal(checkpoint.load((folder / "best").resolve()).weights["w"], second)
            assert sorted(path.name for path in folder.iterdir()) == ["best", "step_00000003"]
            if code == 0:
                break
            kills += 1
    return kills


if __name__ == "__main__":
    what, given, every = sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3])
    print({"saves": check_saves, "runs": check_runs}[what](given, every), "kills")
