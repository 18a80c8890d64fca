"""What does it cost to track six metrics at every step? mmnet against mlflow.log_metrics.

First the calls alone, one after another: Recorder.log and the tracker's log, CPU of the whole
training process, thread of the recorder included. Then a run of many steps with a pause in
each, in which caches grow cold, from nothing to everything stored in sqlite, with the process
that does the storing; against a script that calls mlflow.log_metrics at every step.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common
from mmnet.track.base import Tracker
from mmnet.track.csv import Csv
from mmnet.track.mlflow import Mlflow
from mmnet.track.none import Nowhere
from mmnet.track.recorder import Recorder


METRICS = ("loss", "grad_norm", "lr", "samples_per_second", "data_wait_ms", "factor")
STRETCH = 50  # steps
CONFIG = """\
format: 1
name: bench
seed: 0
resume: null
dataset: {_target_: mmnet.dataset.shapes.Shapes, root: null}
optimizer: {lr: 0.001}
paths: {data: data}
"""
SYNC = """\
import json, sys, time
steps, pause, uri = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
import mlflow
mlflow.set_tracking_uri(uri)
mlflow.set_experiment("bench")
mlflow.start_run()
def values(step):
    return {name: step * 1.001 for name in sys.argv[4:]}
begun = time.process_time()
for step in range(1, steps + 1):
    mlflow.log_metrics(values(step), step=step)
    time.sleep(pause)
spent = time.process_time() - begun
mlflow.end_run()
print(json.dumps({"per_step": spent / steps}))
"""


class Whole(NamedTuple):
    """CPU seconds of a tracked run."""

    training: float  # in the training process
    beside: float  # in other processes
    per_step: float  # in the training process, of logging alone, between two pauses


def values(step: int) -> dict[str, float]:
    return {f"train/{name}": step * 1.001 for name in METRICS}


@contextmanager
def recorded(folder: Path, tracker: Tracker) -> Iterator[Callable[[int], None]]:
    """The two calls that the training loop makes at each step."""
    (folder / "config.yaml").write_text(CONFIG)
    record = {"name": "bench", "started": time.time(), "git": None, "dataset": {}}
    (folder / "record.json").write_text(json.dumps(record))
    recorder = Recorder(folder)
    tracker.start(folder)

    def log(step: int) -> None:
        tracker.log(recorder.log(step, values(step)))

    try:
        yield log
    finally:
        recorder.close()
        left = [line for line in tracker.finish("FINISHED") if "still to be sent" in line]
        if left:
            raise RuntimeError(left[0])


def mlflow(folder: Path) -> Mlflow:
    return Mlflow(
        f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"), "bench", 10.0, 60.0
    )


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "none": lambda folder: Nowhere(),
    "csv": lambda folder: Csv(),
    "mlflow": mlflow,
}


def hot_path(make: Callable[[Path], Tracker], steps: int) -> float:
    """CPU seconds a step when nothing else happens; the making of the values is taken out."""
    with tempfile.TemporaryDirectory() as place, recorded(Path(place), make(Path(place))) as log:
        for step in range(100):
            log(step)
        begun = time.process_time()
        for step in range(100, 100 + steps):
            log(step)
        logged = time.process_time() - begun
        begun = time.process_time()
        for step in range(steps):
            values(step)
        return (logged - (time.process_time() - begun)) / steps


def ours(steps: int, pause: float) -> Whole:
    """A run tracked by mmnet, until all of it is stored."""
    before, aside = time.process_time(), others()
    with tempfile.TemporaryDirectory() as place:
        with recorded(Path(place), mlflow(Path(place))) as log:
            per_step = paced(log, steps, pause)
        training = time.process_time() - before
    return Whole(training, others() - aside, per_step)


def paced(log: Callable[[int], None], steps: int, pause: float) -> float:
    """CPU seconds that logging adds to a step with a pause in it.

    Stretches with and without it take turns, so that whatever else goes on counts in both.
    """
    spent = {True: 0.0, False: 0.0}
    for start in range(0, steps, STRETCH):
        for logging in spent:
            begun = time.process_time()
            for step in range(start, min(start + STRETCH, steps)):
                if logging:
                    log(step)
                else:
                    values(step)
                time.sleep(pause)
            spent[logging] += time.process_time() - begun
    return (spent[True] - spent[False]) / steps


def in_place(steps: int, pause: float) -> Whole:
    """The same metrics by mlflow.log_metrics, which returns when they are stored."""
    aside = others()
    with tempfile.TemporaryDirectory() as place:
        uri = f"sqlite:///{Path(place) / 'mlflow.db'}"
        words = [str(steps), str(pause), uri, *METRICS]
        answer = subprocess.run(
            [sys.executable, "-c", SYNC, *words], capture_output=True, check=True, cwd=place
        )
    said = json.loads(answer.stdout.splitlines()[-1])
    return Whole(others() - aside, 0.0, said["per_step"])


def others() -> float:
    """CPU seconds of the processes that were started here and have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=5)
    report = common.Report("tracking", given, ("mlflow", "msgspec", "sqlalchemy"))
    if given.quick:
        given.rounds = 1
    paths = common.interleave(
        {name: partial(hot_path, make, steps=1_000) for name, make in TRACKERS.items()},
        given.rounds,
    )
    for name, seconds in paths.items():
        report.figure(
            f"a step after another: tracker={name}, CPU", [1e6 * s for s in seconds], "us", aim=50
        )

    whole(report, *((100, 0.002, 1) if given.quick else (2_000, 0.005, min(3, given.rounds))))
    report.finish()


def whole(report: common.Report, steps: int, pause: float, rounds: int) -> None:
    """A run of `steps`, and one of a single step, which tells what starting costs; not if quick."""
    runs: dict[str, list[Whole]] = {}

    def kept(name: str, run: Callable[[int, float], Whole], count: int) -> float:
        one = run(count, pause)
        runs.setdefault(name, []).append(one)
        return one.training + one.beside

    names = {"mmnet": ours, "log_metrics": in_place}
    counts = {"": steps} if report.quick else {"": steps, ", one step": 1}
    found = common.interleave(
        {
            name + more: partial(kept, name + more, run, count)
            for name, run in names.items()
            for more, count in counts.items()
        },
        rounds,
    )
    for name in names:
        report.figure(f"{steps} steps: {name}, CPU of all processes", found[name], "s")
        training = [run.training for run in runs[name]]
        report.figure(f"{steps} steps: {name}, CPU of the training process", training, "s")
        own = [1e6 * run.per_step for run in runs[name]]
        aim = 50 if name == "mmnet" else None
        report.figure(f"a step between pauses: {name}, CPU of the training process", own, "us", aim)
    both = "CPU of all processes: mmnet / log_metrics"
    report.ratio(f"{steps} steps, {both}", found["mmnet"], found["log_metrics"])
    report.ratio(
        "a step between pauses, CPU of the training process: mmnet / log_metrics",
        [run.per_step for run in runs["mmnet"]],
        [run.per_step for run in runs["log_metrics"]],
        aim=0.01,
    )
    if report.quick:
        return
    further = {}
    for name in names:
        pairs = zip(found[name], found[f"{name}, one step"], strict=True)
        further[name] = [1e6 * (all_ - one) / (steps - 1) for all_, one in pairs]
        report.figure(f"one more step: {name}, CPU of all processes", further[name], "us")
    report.ratio(f"one more step, {both}", further["mmnet"], further["log_metrics"], aim=0.25)


if __name__ == "__main__":
    main()
