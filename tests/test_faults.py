"""Kills, full disks and dead servers, for real: nothing is lost, and the run ends the same."""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice, pairwise
from pathlib import Path

import psutil
import pytest

from mmnet.checkpoint import load_newest
from mmnet.track.recorder import read
from tests.command import (
    MICRO,
    ROOT,
    Ended,
    begin,
    checkpoints,
    end,
    everything,
    run,
    run_folders,
    until,
    weights,
)
from tests.test_track_mlflow import Server


FULL = bool(os.environ.get("MMNET_FULL"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run of MICRO that nobody disturbed."""
    ended = run(tmp_path_factory.mktemp("whole"), *MICRO)
    assert ended.code == 0, ended.err
    return ended


# Kills

VARIANTS = {
    "fp32": (),
    "fp16, accumulated": ("hardware.precision=fp16", "hardware.micro_batch_size=4"),
}
MOMENTS = ["steps", "evaluation", "checkpoint", "start", "end"]


def wait_for(moment: str, where: Path, process: subprocess.Popen[str], dice: random.Random) -> None:
    """Until some time within it, or until the process ends."""

    def until_it_is(condition: Callable[[], bool]) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.0005)

    before = checkpoints(where)[-1:]
    if moment == "start":
        time.sleep(dice.uniform(0.2, 3))
    elif moment == "checkpoint":
        until_it_is(lambda: any(where.glob("outputs/*/*/checkpoints/.tmp-step_*")))
        time.sleep(dice.uniform(0, 0.01))
    elif moment == "end":
        until_it_is(lambda: 40 in checkpoints(where))
        time.sleep(dice.uniform(0, 1.5))
    else:
        until_it_is(lambda: checkpoints(where)[-1:] != before)
        if moment == "evaluation":  # at every tenth step, while a checkpoint is at every fifth
            until_it_is(lambda: checkpoints(where)[-1] % 10 == 5)
        time.sleep(dice.uniform(0, 0.3))


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


@pytest.mark.timeout(6000 if FULL else 600)
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_random_moments_a_run_ends_the_same(tmp_path: Path, variant: str) -> None:
    """SIGKILL to the trainer alone, its workers on, once or several times in a row."""
    words = (*MICRO, *VARIANTS[variant], "dataset.val_samples=200")
    whole = run(tmp_path / "whole", *words)
    assert whole.code == 0, whole.err
    expected = everything(whole.folder)

    def start(where: Path) -> subprocess.Popen[str]:
        """Go on with the run there, or begin it (again) where there is nothing to go on from."""
        if checkpoints(where):
            words_now = [f"resume={max(run_folders(where))}"]
        else:
            shutil.rmtree(where, ignore_errors=True)
            words_now = list(words)
        # Not into pipes, which would stay open until the workers have left.
        return begin(where, *words_now, "hardware.num_workers=2", stdout=None, stderr=None)

    dice = random.Random(variant)
    moments = cycle(dice.sample(MOMENTS, len(MOMENTS)))
    workers: list[psutil.Process] = []
    kills: Counter[str] = Counter()
    for number in count():
        where = tmp_path / f"run-{number}"
        for moment in islice(moments, dice.choice((1, 1, 2, 3))):
            process = start(where)
            wait_for(moment, where, process, dice)
            workers += children(process)
            process.kill()
            kills[moment] += process.wait() == -signal.SIGKILL
        resumed = end(start(where), where)
        assert resumed.code == 0, f"see {where}"
        assert everything(resumed.folder) == expected, f"see {where}"
        for name in ("train/loss", "train/lr", "val/loss"):
            assert resumed.metric(name) == whole.metric(name), f"{name}: see {where}"
        if kills.total() >= (50 if FULL else 5):
            break
    print(dict(kills))
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(2400 if FULL else 600)
@pytest.mark.parametrize(("what", "stride"), [("saves", 1), ("runs", 1 if FULL else 5)])
def test_killed_at_each_call_to_the_file_system(tmp_path: Path, what: str, stride: int) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.kill_points", what, str(tmp_path), str(stride)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert re.fullmatch(r"\d\d+ kills\n", told.stdout)


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of the size asked for, larger when asked again."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(size: str) -> Path:
        again = ["-o", "remount"] if place.is_mount() else []
        command = ["mount", "-t", "tmpfs", *again, "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a file system is not permitted here")
        return place

    yield sized
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def went_through(ended: Ended) -> None:
    """Training did, and the last line and the exit code say that something is missing."""
    assert ended.code == 1 and "Traceback" not in ended.err and ended.out == ""
    assert "Logging error" not in ended.err
    assert "failed after 40 steps" in ended.err
    missing = (
        r"\d checkpoint\(s\) could not be written, see train.log; training itself went through",
        rf"training went through, but what it made could not .*resume={ended.folder}",
    )
    assert re.fullmatch(f"mmnet: error: ({'|'.join(missing)})", ended.err.splitlines()[-1])


@pytest.mark.parametrize("tracker", ["none", "csv"])
def test_no_file_can_grow_any_more(whole: Ended, tmp_path: Path, tracker: str) -> None:
    process = begin(tmp_path, *MICRO, f"tracker={tracker}")
    until(lambda: checkpoints(tmp_path), process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    ended = end(process, tmp_path)
    went_through(ended)
    good = load_newest(ended.folder / "checkpoints").path.name
    says = rf"checkpoint at step 40 was not written: .* the last good one is {good}"
    assert re.search(says, ended.err)
    assert not list(ended.folder.rglob(".tmp*"))
    assert not (ended.folder / "summary.json").exists()  # none rather than half of one
    ends_as_if_nothing_had_been(ended, whole)


@pytest.mark.parametrize("size", ["100k", "1300k", "3000k"])
def test_the_disk_fills_up(
    whole: Ended, tmp_path: Path, small_disk: Callable[[str], Path], size: str
) -> None:
    """At every checkpoint, at every one but the first, in the middle of the run."""
    where = small_disk(size)
    ended = run(where, *MICRO)
    went_through(ended)
    assert "checkpoint at step 40 was not written: " in ended.err
    assert "No space left on device" in ended.err
    assert ended.summary["status"] == "FAILED" and ended.summary["failed_checkpoints"] > 0
    if size == "100k":
        assert "there is no earlier one" in ended.err and not checkpoints(where)
    else:
        assert "the last good one is step_" in ended.err
        small_disk("50m")
        ends_as_if_nothing_had_been(ended, whole)


def ends_as_if_nothing_had_been(ended: Ended, whole: Ended) -> None:
    """When there is room again, the run is resumed."""
    resumed = run(ended.folder.parents[2], f"resume={ended.folder}")
    assert resumed.code == 0, resumed.err
    assert everything(resumed.folder) == everything(whole.folder)
    assert resumed.metric("train/loss") == whole.metric("train/loss")


def test_a_disk_that_is_full_at_the_start(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    """Nothing begins, and a run that is resumed loses nothing."""
    where = small_disk("10m")
    before = run(where, *MICRO)
    assert before.code == 0, before.err
    config = (before.folder / "config.yaml").read_text()
    with contextlib.suppress(OSError), (where / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass

    # A file that is there may just be written over, so that training begins, and ends at once.
    more = [f"resume={before.folder}", "trainer.steps=41"]
    for words, code in ((more, (1, 2)), ([*MICRO, "seed=1"], (2,))):
        ended = run(where, *words)
        last = ended.err.splitlines()[-1]
        assert last.startswith("mmnet: error: ") and "no space left" in last.lower()
        assert ended.code in code and "Traceback" not in ended.err
        assert run_folders(where) == [before.folder]
    kept = (before.folder / "config.yaml").read_text()
    assert kept in (config, config.replace("  steps: 40", "  steps: 41"))

    (where / "filler").unlink()
    resumed = run(where, f"resume={before.folder}")
    assert resumed.code == 0, resumed.err


# Tracking


@pytest.mark.timeout(400)
def test_a_tracking_server_that_is_away_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent at the start, killed in mid-run; and its password, a canary, is written nowhere."""
    canary = "canary-7d2e91-value"
    monkeypatch.setenv("RUNS_PASSWORD", canary)
    monkeypatch.setenv("SOME_API_KEY", f"{canary}-two")
    server = Server(tmp_path / "server")
    server.start()  # makes its tables
    server.kill()
    address = server.uri.replace("://", "://me:${oc.env:RUNS_PASSWORD}@")
    where = tmp_path / "here"
    process = begin(
        where,
        *MICRO,
        "tracker=mlflow",
        f"tracker.uri='{address}'",
        "trainer.steps=4000",
        "trainer.eval_every=4000",
        "trainer.checkpoint_every=500",
    )
    try:
        until(lambda: 500 in checkpoints(where), process)
        server.start()
        report = next(where.glob("outputs/*/*")) / "tracker.log"
        until(lambda: report.exists() and "the store is back" in report.read_text(), process)
        server.kill()
        time.sleep(3)
        server.start()
        ended = end(process, where, timeout=200)
        until_sent = time.monotonic() + 100
        with contextlib.closing(sqlite3.connect(server.database, timeout=20)) as database:

            def ask(query: str) -> list[tuple]:
                return database.execute(query).fetchall()

            while ask("select status from runs") != [("FINISHED",)]:
                assert time.monotonic() < until_sent
                time.sleep(0.5)
            stored = ask("select key, step, value from metrics where key like 'train/%'")
    finally:
        server.kill()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert report.read_text().count("the store is back") == 2

    lines = [line for line in read(ended.folder) if "train/loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 4001))
    recorded = [
        (name, line["step"], value)
        for line in lines
        for name, value in line.items()
        if name.startswith("train/")
    ]
    assert sorted(stored) == sorted(recorded)
    # A call that waits for an absent server takes ten seconds; a busy machine, a fraction of one.
    waits = sorted(b["time"] - a["time"] for a, b in pairwise(lines))
    assert waits[len(waits) * 99 // 100] < 1 and waits[-1] < 5

    assert canary not in ended.err + ended.out
    assert "SOME_API_KEY" not in ended.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    assert not [path for path in files if canary.encode() in path.read_bytes()]


@pytest.mark.timeout(400)
def test_four_runs_begin_at_once_on_a_fresh_database(tmp_path: Path) -> None:
    words = ("tracker=mlflow", f"tracker.uri=sqlite:///{tmp_path}/mlflow.db", "trainer.steps=10")
    places = [tmp_path / f"{number}" for number in range(4)]
    processes = [begin(place, *MICRO, *words) for place in places]
    runs = [end(process, place, 200) for process, place in zip(processes, places, strict=True)]
    assert [run.code for run in runs] == [0] * 4, [run.err for run in runs]
    stop = time.monotonic() + 100
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", timeout=20)) as database:
        while True:
            found = database.execute(
                "select status, count(*) from runs join metrics using (run_uuid)"
                " where key = 'train/loss' group by run_uuid"
            ).fetchall()
            if found == [("FINISHED", 10)] * 4:
                break
            assert time.monotonic() < stop, found
            time.sleep(0.5)


# Ways of computing the same


@pytest.mark.timeout(600)
def test_compiled_and_recomputed_training_follow_the_plain_one(
    whole: Ended, tmp_path: Path
) -> None:
    recomputed = run(tmp_path / "recomputed", *MICRO, "hardware.activation_checkpointing=true")
    assert recomputed.code == 0, recomputed.err
    assert recomputed.metric("train/loss") == whole.metric("train/loss")
    assert weights(recomputed.folder) == weights(whole.folder)

    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    still = "fusion.dropout=0"  # a compiled dropout draws other numbers
    eager = run(tmp_path / "eager", *MICRO, still)
    compiled = run(tmp_path / "compiled", *MICRO, still, "hardware.compile=true", timeout=500)
    assert compiled.code == 0, compiled.err
    losses = list(eager.metric("train/loss").values())
    assert list(compiled.metric("train/loss").values()) == pytest.approx(losses, abs=1e-3)
    assert list(compiled.metric("train/loss").values()) != losses  # it was at work
    assert compiled.metric("val/loss")[40] == pytest.approx(eager.metric("val/loss")[40], abs=1e-3)
