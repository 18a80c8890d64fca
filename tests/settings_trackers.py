"""Cases of tests/test_settings.py for the trackers: the real process, the real stores."""

import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from mmnet.compose import load, make
from mmnet.track.recorder import Recorder
from tests.settings import Bench, Words, case
from tests.track_loop import make_folder


OFTEN = "tracker.system_every=0.2"


class Tracked(NamedTuple):
    """A run that a tracker was told of."""

    folder: Path
    lines: list[str]  # what the user is told at its end


@cache
def tracked(bench: Bench, *words: str) -> Tracked:
    """A short run folder handed to a tracker, until its shipper has something to say."""
    folder = make_folder(bench.new_folder())
    tracker = make(load(*words).tracker)
    tracker.check()
    tracker.start(folder)
    recorder = Recorder(folder)
    tracker.log(recorder.log(1, {"train/loss": 0.5}))
    until(lambda: state(folder) or (folder / "tracker.json").exists())
    if OFTEN in words:
        until(lambda: len(readings(folder)) > 5)
    recorder.close()
    return Tracked(folder, tracker.finish("FINISHED"))


def state(folder: Path) -> str:
    """Of the shipper: sending, away, owed or done."""
    try:
        told: dict[str, str] = json.loads((folder / "tracker/status.json").read_text())
    except (OSError, ValueError):
        return ""
    return told["state"]


def readings(folder: Path) -> list[float]:
    """When the machine was looked at, unix seconds."""
    try:
        lines = (folder / "tracker/system.jsonl").read_text().splitlines()
    except OSError:
        return []
    return [json.loads(line)["time"] for line in lines]


def until(condition: Callable[[], Any], seconds: float = 90) -> None:
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "did not happen in time"
        time.sleep(0.1)


def to_mlflow(bench: Bench) -> Tracked:
    return tracked(
        bench,
        "tracker=mlflow",
        f"tracker.uri='sqlite:///{bench.folder}/elsewhere.db'",
        f"tracker.artifacts='{bench.folder}/files'",
        "tracker.experiment=another",
        OFTEN,
    )


def ask(bench: Bench, query: str) -> list[Any]:
    with closing(sqlite3.connect(bench.folder / "elsewhere.db", timeout=20)) as database:
        return database.execute(query).fetchall()


@case("tracker.mlflow.uri", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    run_id = json.loads((to_mlflow(bench).folder / "tracker.json").read_text())["run_id"]
    assert ask(bench, "select run_uuid, status from runs") == [(run_id, "FINISHED")]


@case("tracker.mlflow.artifacts", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    to_mlflow(bench)
    assert [path.read_text() for path in (bench.folder / "files").rglob("train.log")] == [
        "step 1\n"
    ]


@case("tracker.mlflow.experiment", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    to_mlflow(bench)
    query = "select e.name from experiments e join runs r on r.experiment_id = e.experiment_id"
    assert ask(bench, query) == [("another",)]


@case("tracker.mlflow.system_every", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    times = readings(to_mlflow(bench).folder)
    pauses = sorted(b - a for a, b in itertools.pairwise(times))
    assert 0.15 < pauses[len(pauses) // 2] < 5  # conf/ says 10 seconds


def lingers(words: Words, bench: Bench) -> None:
    """A store that is away is tried for so many seconds after the run, and then no more."""
    with nobody_answers():
        brief = tracked(bench, *words, "tracker.linger=0")
        until(lambda: state(brief.folder) == "owed")
        patient = tracked(bench, *words, "tracker.linger=300")
    [shipper] = shippers(patient.folder)
    try:
        time.sleep(3)
        assert shipper.is_running() and state(patient.folder) == "away"
    finally:
        shipper.kill()
        shipper.wait(10)


@contextmanager
def nobody_answers() -> Iterator[None]:
    """Weights & Biases has no account here, and no server either."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("WANDB_API_KEY", raising=False)
        environment.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        yield


def shippers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone, or about to
            if {"mmnet.track.ship", str(folder)} <= set(process.cmdline()):
                found.append(process)
    return found


case("tracker.mlflow.linger", marks=pytest.mark.train)(
    partial(lingers, ("tracker=mlflow", "tracker.uri=http://127.0.0.1:9"))
)


def to_wandb(bench: Bench) -> Tracked:
    pytest.importorskip("wandb")
    return tracked(
        bench, "tracker=wandb", "tracker.project=another-project", "tracker.mode=offline"
    )


@case("tracker.wandb.project", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    [written] = to_wandb(bench).folder.glob("tracker/wandb/offline-run-*/*.wandb")
    assert b"another-project" in written.read_bytes()


@case("tracker.wandb.mode", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    assert "wandb sync" in to_wandb(bench).lines[-1]
    with nobody_answers():
        online = tracked(bench, "tracker=wandb", "tracker.mode=online", "tracker.linger=0")
    assert not list(online.folder.glob("tracker/wandb/offline-run-*"))
    assert "still to be sent (No API key configured" in online.lines[0]


@case("tracker.wandb.linger", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    pytest.importorskip("wandb")
    lingers(("tracker=wandb", "tracker.mode=online"), bench)
