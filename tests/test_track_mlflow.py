"""MLflow as a tracker, against real stores: sqlite files, and a server that dies."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmnet.errors import UserError
from mmnet.track.mlflow import folder_of
from mmnet.track.recorder import METRICS, read
from tests.track_loop import make_folder, start, values


pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sqlite store for most tests: making its tables takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    done(start(make_folder(database.parent / "run"), "mlflow", settings(database), last=2))
    return database


def settings(store: Path | str, **changes: Any) -> dict[str, Any]:
    """Of the tracker, for a sqlite file or the address of a server."""
    return {
        "uri": store if isinstance(store, str) else f"sqlite:///{store}",
        "artifacts": "artifacts" if isinstance(store, str) else str(store.parent / "artifacts"),
        "experiment": "served" if str(store).startswith("http") else "tests",
        "system_every": 0.5,
        "linger": 60.0,
        **changes,
    }


def ask(database: Path, query: str, *given: object) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        return connection.execute(query, given).fetchall()


def run_of(folder: Path) -> str:
    return str(json.loads((folder / "tracker.json").read_text())["run_id"])


def status(database: Path, folder: Path) -> str:
    rows = ask(database, "select status from runs where run_uuid = ?", run_of(folder))
    return str(rows[0][0])


def tags(database: Path, folder: Path) -> dict[str, str]:
    return dict(ask(database, "select key, value from tags where run_uuid = ?", run_of(folder)))


def stored(database: Path, folder: Path) -> Counter:
    """(name, step, value) of the training metrics in the store, with how often."""
    return Counter(
        ask(
            database,
            "select key, step, value from metrics where run_uuid = ? and key like 'train/%'",
            run_of(folder),
        )
    )


def expected(last: int) -> Counter:
    return Counter(
        (name, step, value) for step in range(1, last + 1) for name, value in values(step).items()
    )


def done(process: subprocess.Popen, code: int = 0) -> dict[str, Any]:
    """What the loop told at its end."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == code
    told: dict[str, Any] = json.loads(out)
    return told


def shippers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "mmnet.track.ship" in words and str(folder) in words:
                found.append(process)
    return found


def until(condition: Any, seconds: float = 120) -> None:
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "did not happen in time"
        time.sleep(0.1)


def send_the_rest(folder: Path) -> subprocess.CompletedProcess:
    """The command that the user is told."""
    return subprocess.run(
        [sys.executable, "-m", "mmnet.track.ship", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_content_of_a_run(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "2026-01-31_12-00-00-123456" / "7")
    (folder / "plots/loss.png").write_bytes(b"png")
    told = done(start(folder, "mlflow", settings(database), last=150, pause=0.03))

    run = run_of(folder)
    assert told["heavy"] == []
    assert run in told["lines"][-1]
    assert f"mlflow ui --backend-store-uri sqlite:///{database}" in told["lines"][-1]
    assert status(database, folder) == "FINISHED"
    assert stored(database, folder) == expected(150)
    params = dict(ask(database, "select key, value from params where run_uuid = ?", run))
    assert params["optimizer.lr"] == "0.001"
    assert params["optimizer.betas"] == "[0.9, 0.98]"
    assert params["head.num_classes"] == "4"
    assert params["name"] == "late"
    assert params["encoder.image.patch"] == "null"
    assert params["paths.data"] == "${oc.env:MMNET_DATA,data}"
    known = tags(database, folder)
    assert known["mmnet.run_folder"] == str(folder)
    assert known["mlflow.runName"] == "late seed 3 12:00:00.123/7"
    assert not [name for name in known if "token" in name]
    assert known["git.commit"] == known["mlflow.source.git.commit"] == "c0ffee"
    assert (known["run.key"], known["python"], known["host"]) == ("abc123", "3.11.0", "here")
    assert known["mmnet.version"] == "0.1.0"
    data = ask(
        database,
        "select d.name, d.digest, d.dataset_profile, t.value from inputs i "
        "join datasets d on d.dataset_uuid = i.source_id "
        "join input_tags t on t.input_uuid = i.input_uuid where i.destination_id = ?",
        run,
    )
    assert {(name, digest, split) for name, digest, _, split in data} == {
        ("shapes", "d" * 36, "train"),
        ("shapes", "e" * 36, "val"),
    }
    assert {"num_rows": 50, "odd": 1} in [json.loads(profile) for _, _, profile, _ in data]
    summary = ask(
        database,
        "select key, value from metrics where run_uuid = ? and key like 'whole_run/%'",
        run,
    )
    assert dict(summary) == {"whole_run/steps": 150.0, "whole_run/best/val/loss": 0.5}
    system = ask(
        database,
        "select distinct key from metrics where run_uuid = ? and key like 'system/%'",
        run,
    )
    assert ("system/cpu_utilization_percentage",) in system
    assert ("system/system_memory_usage_megabytes",) in system
    place = ask(database, "select artifact_uri from runs where run_uuid = ?", run)[0][0]
    artifacts = Path(place.removeprefix("file://"))
    places = ask(database, "select name, artifact_location from experiments")
    assert {name: Path(at.removeprefix("file://")) for name, at in places} == {
        "Default": database.parent / "mlruns" / "0",
        "tests": database.parent / "artifacts",
    }
    assert artifacts.is_relative_to(database.parent / "artifacts")
    assert {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*.*")} == {
        "config.yaml",
        "record.json",
        "git.diff",
        "train.log",
        "summary.json",
        "model.safetensors",
        "plots/loss.png",
    }

    assert folder_of(run, f"sqlite:///{database}") == folder
    with pytest.raises(UserError, match="no run 0123abc"):
        folder_of("0123abc", f"sqlite:///{database}")
    with pytest.raises(UserError, match="no MLflow database at"):
        folder_of(run, f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(UserError, match="no answer from"):
        folder_of(run, "http://me:hidden@127.0.0.1:1")  # pragma: allowlist secret
    with pytest.raises(UserError, match="neither a run folder"):
        folder_of("../x", f"sqlite:///{database}")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not there"):
        folder_of(run, f"sqlite:///{database}")


def test_sending_again_stores_nothing_twice(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    done(start(folder, "mlflow", settings(database), last=50))
    before = ask(database, "select count(*) from metrics")
    (folder / "tracker/sent.json").unlink()

    again = send_the_rest(folder)

    assert again.returncode == 0, again.stderr
    assert "everything was sent" in again.stdout
    assert ask(database, "select count(*) from metrics") == before
    assert stored(database, folder) == expected(50)
    assert status(database, folder) == "FINISHED"


def test_four_processes_on_a_fresh_database(tmp_path: Path) -> None:
    store = tmp_path / "deep/er/mlflow.db"
    folders = [make_folder(tmp_path / f"run{i}") for i in range(4)]
    loops = [start(folder, "mlflow", settings(store), last=20) for folder in folders]
    for process in loops:
        done(process)
    until(lambda: not any(shippers(folder) for folder in folders))
    for folder in folders:
        assert status(store, folder) == "FINISHED"
        assert stored(store, folder) == expected(20)
        assert not (folder / "tracker.log").exists()  # nothing had to be tried twice
    experiments = ask(store, "select count(*) from experiments where name = 'tests'")
    assert experiments == [(1,)]


@pytest.mark.parametrize(
    ("how", "code", "recorded"),
    [
        (signal.SIGKILL, -9, "KILLED"),
        (signal.SIGTERM, 143, "KILLED"),
        (signal.SIGINT, -2, "KILLED"),
        (None, 1, "FAILED"),
    ],
)
def test_state_of_a_run_that_ended_badly(
    database: Path, tmp_path: Path, how: signal.Signals | None, code: int, recorded: str
) -> None:
    folder = make_folder(tmp_path / "run")
    process = start(folder, "mlflow", settings(database), last=10_000, fail_at=0 if how else 100)
    if how:
        until((folder / "tracker.json").exists)
        assert status(database, folder) == "RUNNING"
        time.sleep(1)
        # As Ctrl-C in a terminal does, to the whole group: the shipper is not in it.
        os.killpg(process.pid, how)
    process.communicate(timeout=60)
    assert process.returncode == code
    until(lambda: not shippers(folder))

    assert status(database, folder) == recorded
    lines = list(read(folder))
    assert stored(database, folder) == expected(lines[-1]["step"])


def test_resumed_run_is_one_contiguous_run(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    process = start(folder, "mlflow", settings(database), last=10_000)
    until((folder / "tracker.json").exists)
    time.sleep(1.5)
    process.kill()
    process.communicate()
    with (folder / METRICS).open("ab") as file:
        file.write(b'{"step":9999,"time":17000')  # torn
    reached = max(line["step"] for line in read(folder))
    run = run_of(folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.002"))

    # The shipper of the killed process may still be at work.
    again = start(folder, "mlflow", settings(database), first=reached - 50, last=reached + 50)
    done(again)
    until(lambda: not shippers(folder))

    assert run_of(folder) == run
    assert status(database, folder) == "FINISHED"
    assert stored(database, folder) == expected(reached + 50)
    params = dict(ask(database, "select key, value from params where run_uuid = ?", run))
    assert params["optimizer.lr"] == "0.001"
    changes = {k: v for k, v in tags(database, folder).items() if k.startswith("resumed.")}
    assert changes == {"resumed.1.optimizer.lr": "0.002"}
    [uploaded] = database.parent.glob(f"artifacts/{run}/artifacts/config.yaml")
    assert uploaded.read_text() == config.read_text()


def test_relative_store_is_found_from_another_directory(database: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(database, tmp_path / "a/mlflow.db")
    folder = make_folder(tmp_path / "a/run")
    relative = settings("sqlite:///mlflow.db")
    done(start(folder, "mlflow", relative, last=10))
    folder = folder.rename(tmp_path / "run")  # the loop starts beside its folder
    assert status(tmp_path / "a/mlflow.db", folder) == "FINISHED"
    again = start(folder, "mlflow", relative, first=11, last=600)
    until(lambda: status(tmp_path / "a/mlflow.db", folder) == "RUNNING")
    done(again)
    assert not (tmp_path / "mlflow.db").exists()
    assert stored(tmp_path / "a/mlflow.db", folder) == expected(600)


def test_killed_shipper_is_replaced(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    process = start(folder, "mlflow", settings(database), last=200)
    until(lambda: shippers(folder))
    time.sleep(1)
    for shipper in shippers(folder):
        shipper.kill()
    told = done(process)
    assert len(told["lines"]) == 1 and told["lines"][0].startswith("MLflow run ")
    until(lambda: not shippers(folder))
    assert stored(database, folder) == expected(200)
    assert status(database, folder) == "FINISHED"


def test_poison_stops_nothing_that_follows(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    now = time.time()
    poison = [
        json.dumps({"step": 1, "time": now, "bad@name": 1.0, "good": 1.0}),
        json.dumps({"step": 2**70, "time": now, "too/late": 1.0}),
        json.dumps({"step": 3, "time": now, "x" * 300: 1.0}),
        json.dumps({"step": 4, "time": now, "text": "abc", "good": 4.0}),
        json.dumps({"step": 5, "time": "noon", "good": 5.0}),
        '{"step": 6, "time": 1',
        "\x00\x00\x00",
        json.dumps({"step": 7, "time": now, "nan": None, "nan.nonfinite": "inf", "good": 7.0}),
    ]
    (folder / METRICS).write_text("".join(line + "\n" for line in poison))
    config = folder / "config.yaml"
    config.write_text(config.read_text() + f"long: {'y' * 7000}\n")

    told = done(start(folder, "mlflow", settings(database), last=50))

    assert any("were refused" in line for line in told["lines"])
    assert stored(database, folder) == expected(50)
    run = run_of(folder)
    good = ask(database, "select step from metrics where run_uuid = ? and key = 'good'", run)
    assert sorted(good) == [(1,), (4,), (7,)]
    odd = ask(database, "select is_nan from metrics where run_uuid = ? and key = 'nan'", run)
    assert odd == [(1,)]
    assert tags(database, folder)["nonfinite.nan"] == "inf: 1"
    report = (folder / "tracker.log").read_text()
    assert "bad@name" in report
    assert "too/late" in report
    long = ask(database, "select value from params where run_uuid = ? and key = 'long'", run)
    assert long == [("y" * 6000,)]


def test_no_secret_is_written(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-5b1f9c-value"
    monkeypatch.setenv("MY_TRACKING_TOKEN", canary)
    folder = make_folder(tmp_path / "run")
    record = json.loads((folder / "record.json").read_text())
    record["command"] = f"python -m mmnet.train key={canary}"
    (folder / "record.json").write_text(json.dumps(record))
    config = folder / "config.yaml"
    config.write_text(config.read_text() + f"careless: {canary}\n")
    done(start(folder, "mlflow", settings(database), last=20))
    # These two files are others' to redact; nothing of ours may repeat what is in them.
    (folder / "record.json").unlink()
    config.unlink()

    for file in [*folder.rglob("*"), *database.parent.glob("mlflow.db*")]:
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file

    away = make_folder(tmp_path / "away")
    told = done(start(away, "mlflow", settings(f"http://me:{canary}@127.0.0.1:1"), last=20))
    for shipper in shippers(away):
        shipper.kill()
    assert canary not in json.dumps(told)
    for file in away.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file


class Server:
    """A real `mlflow server` on a sqlite file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.database = folder / "mlflow.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", f"sqlite:///{self.database}"),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self.answers)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(database: Path, tmp_path: Path) -> Iterator[Server]:
    """Not started; its database has tables, but not our experiment."""
    server = Server(tmp_path / "server")
    shutil.copy(database, server.database)
    yield server
    server.kill()


@pytest.mark.timeout(400)
def test_server_absent_at_start_and_killed_in_mid_run(server: Server, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    report = folder / "tracker.log"

    def said(words: str) -> int:
        return report.read_text().count(words) if report.exists() else 0

    process = start(folder, "mlflow", settings(server.uri), last=100_000, pause=0.02, look=0.1)
    until(lambda: said("no answer from") == 1)
    server.start()
    until(lambda: said("is back") == 1)
    assert len(stored(server.database, folder)) > 0
    time.sleep(1)  # the loop looks ten times a second whether the store is back
    server.kill()
    until(lambda: said("no answer from") == 2)
    time.sleep(2)
    server.start()
    until(lambda: said("is back") == 2)
    (folder / "enough").touch()
    told = done(process)
    until(lambda: not shippers(folder))

    steps = len(told["took"])
    assert told["start"] < 1
    assert sorted(told["took"])[steps * 98 // 100] < 0.01
    assert stored(server.database, folder) == expected(steps)
    assert status(server.database, folder) == "FINISHED"
    assert list((server.folder / "artifacts").rglob("model.safetensors"))
    assert "does not answer (no answer from" in told["said"][0]
    assert told["said"][1] == "the tracking store is back"
    assert "does not answer" in told["said"][2]
    assert len(told["said"]) <= 4
    assert f"{server.uri}/#/experiments/" in told["lines"][-1]


@pytest.mark.timeout(400)
def test_what_is_owed_is_sent_later_by_hand(server: Server, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    told = done(start(folder, "mlflow", settings(server.uri, linger=0.0), last=400, look=0.5))
    assert told["finish"] < 10
    still = rf"24\d\d values are still to be sent \(no answer from {server.uri}\)"
    assert re.search(still, told["lines"][0])
    assert f"python -m mmnet.track.ship {folder}" in told["lines"][1]
    [said] = told["said"]  # once, not at every step
    assert "does not answer (no answer from" in said
    until(lambda: not shippers(folder))
    server.start()

    rest = send_the_rest(folder)

    assert rest.returncode == 0, rest.stderr
    assert stored(server.database, folder) == expected(400)
    assert status(server.database, folder) == "FINISHED"


def test_shipper_that_waits_for_its_store_gives_way(server: Server, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    process = start(folder, "mlflow", settings(server.uri), last=10_000)
    until((folder / "tracker.log").exists)
    process.kill()
    process.communicate()
    [old] = shippers(folder)
    process = start(folder, "mlflow", settings(server.uri), last=10_000)
    until(lambda: old not in shippers(folder), 20)
    assert len(shippers(folder)) == 1
    process.kill()
    process.communicate()
    for shipper in shippers(folder):
        shipper.kill()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_outage_of_a_minute(server: Server, tmp_path: Path) -> None:
    """Server dead for 60 s and then frozen for 15, trainer and shipper killed in between."""
    folder = make_folder(tmp_path / "run")
    server.start()
    process = start(folder, "mlflow", settings(server.uri), last=100_000, pause=0.02)
    until((folder / "tracker.json").exists)
    time.sleep(5)
    server.kill()
    time.sleep(20)
    process.kill()
    process.communicate()
    reached = max(line["step"] for line in read(folder))
    process = start(
        folder,
        "mlflow",
        settings(server.uri),
        first=reached - 200,
        last=6000,
        pause=0.02,
    )
    time.sleep(20)
    for shipper in shippers(folder):
        shipper.kill()
    time.sleep(20)
    server.start()
    time.sleep(10)
    server.signal(signal.SIGSTOP)
    time.sleep(15)
    server.signal(signal.SIGCONT)
    told = done(process)
    until(lambda: not shippers(folder), 120)

    assert told["start"] < 1
    took = sorted(told["took"])
    assert took[len(took) * 99 // 100] < 0.001
    assert stored(server.database, folder) == expected(6000)
    assert status(server.database, folder) == "FINISHED"
