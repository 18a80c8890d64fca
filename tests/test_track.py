"""Recorder, csv, record and the tracker's checks: what needs no store."""

import csv
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmnet
from mmnet.compose import load
from mmnet.errors import UserError
from mmnet.track import content, record, spool
from mmnet.track.csv import Csv
from mmnet.track.launch import Shipper
from mmnet.track.mlflow import Mlflow
from mmnet.track.none import Nowhere
from mmnet.track.recorder import METRICS, Recorder, clean, read
from mmnet.track.state import room
from mmnet.track.store import Away, Refused, deliver
from mmnet.track.wandb import Wandb
from tests.track_loop import ROOT, make_folder, start, values


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path)
    yield recorder
    recorder.close()


def mlflow(uri: str) -> Mlflow:
    return Mlflow(uri, artifacts="artifacts", experiment="e", system_every=10, linger=0)


def lines(folder: Path) -> list[dict[str, Any]]:
    return list(read(folder))


def test_line_is_flat_json_in_full_precision(recorder: Recorder, tmp_path: Path) -> None:
    before = time.time()
    line = recorder.log(12, {"train/loss": 0.1 + 0.2, "train/lr": 1e-300, "count": 3})
    recorder.close()
    text = (tmp_path / METRICS).read_text()
    assert text.count("\n") == 1
    assert json.loads(text) == line
    assert line["train/loss"] == 0.30000000000000004
    assert list(line) == ["step", "time", "train/loss", "train/lr", "count"]
    assert before - 0.001 <= line["time"] <= time.time() + 0.001
    assert line["time"] == round(line["time"], 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_value_is_null_and_named(
    recorder: Recorder, tmp_path: Path, value: float
) -> None:
    recorder.log(1, {"train/loss": value, "train/lr": 1.0})
    recorder.close()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    line = json.loads((tmp_path / METRICS).read_text(), parse_constant=refuse)
    assert line["train/loss"] is None
    assert line["train/loss.nonfinite"] == str(value)
    found, unreadable = spool.points(line)
    assert [point.name for point in found] == ["train/loss", "train/lr"]
    assert math.isnan(found[0].value)
    assert unreadable == 0


def test_numbers_of_numpy_and_torch_are_numbers(recorder: Recorder, tmp_path: Path) -> None:
    import numpy as np
    import torch

    numbers: dict[str, Any] = {"a": np.float32(0.5), "b": torch.tensor(0.25), "c": np.int64(3)}
    recorder.log(1, numbers)
    recorder.close()
    assert {k: v for k, v in lines(tmp_path)[0].items() if k in "abc"} == {
        "a": 0.5,
        "b": 0.25,
        "c": 3.0,
    }


def test_lines_reach_the_file_within_a_second_or_64_lines(
    recorder: Recorder, tmp_path: Path
) -> None:
    for step in range(64):
        recorder.log(step, values(step))
    assert len(lines(tmp_path)) == 64
    recorder.log(64, values(64))
    assert len(lines(tmp_path)) == 64
    time.sleep(1.3)
    assert len(lines(tmp_path)) == 65
    recorder.log(65, values(65))
    recorder.sync()
    assert len(lines(tmp_path)) == 66


def test_replayed_steps_are_not_recorded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Recorder(tmp_path)
    for step in range(1, 31):
        first.log(step, {"train/loss": float(step)})
    first.log(20, {"val/loss": 2.0})
    first.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step":31,"time":1.0,"train/lo')

    assert caplog.messages == []
    second = Recorder(tmp_path)
    assert caplog.messages == [f"{second.path}: damaged lines: a torn last line, cut off"]
    second.event("resumed", step=20)
    assert second.log(21, {"train/loss": -1.0}) == {}
    assert "val/loss" in second.log(25, {"train/loss": -1.0, "val/loss": 2.5})
    assert second.log(20, {"val/loss": -1.0}) == {}
    for step in range(26, 41):
        second.log(step, {"train/loss": float(step)})
    second.close()

    found = lines(tmp_path)
    assert [(x["step"], x["train/loss"]) for x in found if "train/loss" in x] == [
        (step, float(step)) for step in range(1, 41)
    ]
    assert [(x["step"], x["val/loss"]) for x in found if "val/loss" in x] == [(20, 2.0), (25, 2.5)]
    assert [(x["event"], x["step"]) for x in found if "event" in x] == [("resumed", 20)]
    assert (tmp_path / METRICS).read_text().count("\n") == len(found)


def test_bytes_that_are_no_line_are_stepped_over_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / METRICS).write_bytes(
        b'\x00\x00\n{"step":1,"time":1.0,"a":2.0}\n\xff\n[1]\n{}\n{"st'
    )
    assert lines(tmp_path) == [{"step": 1, "time": 1.0, "a": 2.0}]
    recorder = Recorder(tmp_path)
    assert caplog.messages == [
        f"{recorder.path}: damaged lines: a torn last line, cut off; "
        "4 that cannot be read, passed over"
    ]
    assert recorder.log(1, {"a": 3.0}) == {}
    recorder.close()


def test_full_disk_tears_no_line_and_loses_none(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys, pathlib\n"
        "from mmnet.errors import UserError\n"
        "from mmnet.track.recorder import Recorder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "recorder = Recorder(pathlib.Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "for step in range(1000): recorder.log(step, {'a': float(step)})\n"
        "try: recorder.sync()\n"
        "except UserError as error: print(error)\n"
        "assert pathlib.Path(sys.argv[1], 'metrics.jsonl').read_bytes().endswith(b'\\n')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "recorder.close()\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert out.returncode == 0, out.stderr
    assert "metrics.jsonl: cannot be written (File too large)" in out.stdout
    assert [line["step"] for line in lines(tmp_path)] == list(range(1000))


@given(st.text())
def test_every_name_is_one_that_mlflow_takes(name: str) -> None:
    from posixpath import normpath

    cleaned = clean(name)
    assert re.fullmatch(r"[/\w.\- :]{1,250}", cleaned)
    assert normpath(cleaned) == cleaned
    assert not cleaned.startswith(("/", ".."))
    assert cleaned not in {"step", "time", "event"}


def test_name_is_kept_where_it_can_be(recorder: Recorder) -> None:
    line = recorder.log(1, {"val/recall@1": 0.5, "val/loss": 1.0, "step": 7.0})
    assert line["val/recall_at_1"] == 0.5
    assert line["val/loss"] == 1.0
    assert line["step"] == 1
    assert line["step_"] == 7.0


def test_step_costs_microseconds(recorder: Recorder) -> None:
    numbers = values(1)
    best = math.inf
    for attempt in range(5):
        began = time.process_time()
        for step in range(2000):
            recorder.log(2000 * attempt + step, numbers)
        best = min(best, (time.process_time() - began) / 2000)
    assert best < 50e-6


def test_csv_holds_what_the_recorder_holds(recorder: Recorder, tmp_path: Path) -> None:
    tracker = Csv()
    tracker.check()
    tracker.start(tmp_path)
    tracker.log(recorder.log(1, {"a": 0.1 + 0.2, "b": math.inf}))
    recorder.event("resumed", step=1)
    tracker.log(recorder.log(1, {"a": 5.0}))
    [where] = tracker.finish("FINISHED")
    assert str(tmp_path / "metrics.csv") in where
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["step"], r["name"], float(r["value"])) for r in rows] == [
        ("1", "a", 0.1 + 0.2),
        ("1", "b", math.inf),
    ]


def test_csv_goes_on_after_a_kill(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    process = start(folder, "csv", {}, last=10_000, pause=0.001)
    while not (folder / METRICS).exists() or len(lines(folder)) < 100:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    with (folder / "metrics.csv").open("a") as file:
        file.write("77,17000")
    reached = lines(folder)[-1]["step"]

    start(folder, "csv", {}, first=reached - 20, last=reached + 20).communicate()

    with (folder / "metrics.csv").open() as file:
        rows = [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]
    assert rows == [
        (step, name, value)
        for step in range(1, reached + 21)
        for name, value in values(step).items()
    ]


def test_nothing_is_promised_of_a_sender_that_cannot_work(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    shipper = Shipper(folder, {"linger": 60.0}, "")  # where to is missing: it fails at once
    recorder = Recorder(folder)
    recorder.log(1, {"train/loss": 1.0})
    recorder.close()
    still, later = shipper.finish("FINISHED")
    assert still == (
        "tracking: 1 values are still to be sent; the process that sends them has failed "
        "(see tracker.log)"
    )
    assert later == f"later: {shipper.command()}"
    assert "the shipper failed: KeyError('kind')" in (folder / "tracker.log").read_text()


@pytest.mark.parametrize(
    ("folder", "title"),
    [
        ("2026-01-31_12-00-00-123456", "late seed 3 12:00:00.123"),
        ("2026-01-31_12-00-00-123456/7", "late seed 3 12:00:00.123/7"),
        ("mine", "late seed 3 mine"),
    ],
)
def test_what_a_run_is_called_in_a_store(tmp_path: Path, folder: str, title: str) -> None:
    assert content.title(make_folder(tmp_path / folder)) == title


def test_nowhere_does_nothing(tmp_path: Path) -> None:
    tracker = Nowhere()
    tracker.check()
    tracker.start(tmp_path)
    tracker.log({"step": 1})
    assert tracker.finish("FAILED") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mlruns", "sqlite:///mlflow.db"),
        ("file:///tmp/mlruns", "sqlite:///mlflow.db"),
        ("sqlite://mlflow.db", "three slashes"),
        ("sqlite:///:memory:", "three slashes"),
        ("htp://here", "did you mean 'http'"),
        ("postgresq://me:hidden@here/x", "did you mean 'postgresql'"),  # pragma: allowlist secret
    ],
)
def test_address_of_no_store_is_refused(uri: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as refused:
        mlflow(uri).check()
    assert "\n" not in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["sqlite:///a.db", "sqlite:////a.db", "http://h:1", "https://u:p@h/x", "postgresql+x://h/d"],
)
def test_address_of_a_store_is_taken(uri: str) -> None:
    mlflow(uri).check()


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for package in ("mlflow", "wandb"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(UserError, match=re.escape("pip install 'mmnet[train]'")):
        mlflow("sqlite:///a.db").check()
    with pytest.raises(UserError, match=re.escape("pip install 'mmnet[wandb]'")):
        Wandb("p", "offline", 0).check()


def test_trackers_import_nothing_heavy() -> None:
    program = (
        "import mmnet.track.mlflow, mmnet.track.wandb, mmnet.track.csv, mmnet.track.none, sys\n"
        "import mmnet.track.recorder, mmnet.track.record\n"
        "mmnet.track.mlflow.Mlflow('sqlite:///a.db', 'a', 'e', 1.0, 1.0).check()\n"
        "print({'mlflow', 'wandb', 'torch', 'pandas', 'matplotlib'} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout == "set()\n", out.stderr


def test_batches_follow_one_another_through_the_whole_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for step in range(1000):
        recorder.log(step, values(step))
    recorder.close()
    found, end, full = [], 0, True
    while full:
        some = spool.batch(tmp_path / METRICS, end)
        assert len(some.points) <= spool.BATCH
        found += some.points
        end, full = some.end, some.full
    assert [(p.step, p.name, p.value) for p in found] == [
        (step, name, value) for step in range(1000) for name, value in values(step).items()
    ]
    assert end == (tmp_path / METRICS).stat().st_size
    assert spool.owed(tmp_path) == 6000
    room(tmp_path).mkdir()
    (room(tmp_path) / "sent.json").write_text(json.dumps({"offsets": {METRICS: end}}))
    assert spool.owed(tmp_path) == 0


@given(st.sets(st.integers(0, 40)), st.integers(1, 41))
def test_delivery_leaves_out_what_is_refused_and_nothing_else(
    poison: set[int], length: int
) -> None:
    taken: list[int] = []

    def send(items: list[int]) -> None:
        if poison & set(items):
            raise Refused("poison")
        taken.extend(items)

    refused = deliver(send, list(range(length)))
    assert taken == [i for i in range(length) if i not in poison]
    assert [item for item, _ in refused] == [i for i in range(length) if i in poison]


def test_delivery_stops_when_the_store_is_away() -> None:
    def send(items: list[int]) -> None:
        raise Away("gone")

    with pytest.raises(Away):
        deliver(send, [1, 2, 3])


def test_record_says_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-77aa 'quoted' value"
    monkeypatch.setenv("SOME_API_KEY", canary)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "mmnet.train", f"name={canary}"])
    began = time.perf_counter()
    facts = record.describe(load("tracker=none"))
    assert time.perf_counter() - began < 2  # 0.1 s on a machine that is not busy
    assert canary not in json.dumps(facts)
    assert facts["command"].endswith("-m mmnet.train 'name=***'")
    assert facts["name"] == "late_fusion"
    assert abs(facts["started"] - time.time()) < 5
    assert facts["packages"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.match(r"\d+\.\d+", facts["packages"]["torch"])
    assert facts["machine"]["cores"] == os.cpu_count()
    assert facts["machine"]["memory_gb"] > 0.1


def test_key_tells_what_is_computed_not_where() -> None:
    base = record.key(load("tracker=none"))
    assert re.fullmatch("[0-9a-f]{64}", base)
    same = ["hardware=cpu", "tracker=csv", "name=other", "paths.output=x", "paths.data=y"]
    for words in same:
        assert record.key(load(words)) == base, words
    for words in ("optimizer.lr=0.1", "seed=1", "model=text_only", "trainer.steps=5"):
        assert record.key(load("tracker=none", words)) != base, words


def test_record_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path / "work")]
    (tmp_path / "work").mkdir()
    canary = "canary-99bb-value"
    (tmp_path / "work/file").write_text("one\n")
    for words in (["init", "-q", "-b", "trunk"], ["add", "."], ["commit", "-qm", "m"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(mmnet, "__file__", str(tmp_path / "mmnet/__init__.py"))

    facts = record.describe(load("tracker=none"))["git"]
    record.save_diff(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"])
    assert (facts["branch"], facts["dirty"]) == ("trunk", False)
    assert not (tmp_path / "git.diff").exists()

    monkeypatch.setenv("SOME_TOKEN", canary)
    changed = f"two ${{x}}\n{canary}\nhttp://me:hidden@host/\n"  # pragma: allowlist secret
    (tmp_path / "work/file").write_text(changed + "x" * 2_000_000)
    assert record.describe(load("tracker=none"))["git"]["dirty"] is True
    (tmp_path / "work/file").write_text(changed)
    (tmp_path / "work/conf/new").mkdir(parents=True)
    (tmp_path / "work/conf/new/part.py").write_text(f"x = 1\n# {canary}\n")
    (tmp_path / "work/notes.txt").write_text("not code\n")
    record.save_diff(tmp_path)
    diff = (tmp_path / "git.diff").read_text()
    assert "--- /dev/null\n+++ b/conf/new/part.py\n@@ -0,0 +1,2 @@\n+x = 1\n+# " in diff
    assert canary not in diff and "not code" not in diff

    (tmp_path / "work/file").write_text(changed + "x" * 2_000_000)
    record.save_diff(tmp_path)
    diff = (tmp_path / "git.diff").read_text()
    assert "-one\n+two" in diff
    assert canary not in diff
    assert "hidden" not in diff
    assert len(diff) == 1_000_000

    monkeypatch.chdir(tmp_path)
    assert record.describe(load("tracker=none"))["git"] is None


def test_code_that_git_does_not_know_of_yet_is_kept_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-" + "z" * 20
    monkeypatch.setenv("SOME_TOKEN", canary)
    work, run = tmp_path / "work", tmp_path / "run"
    ask = ["git", "-C", str(work), "-c", "user.name=n", "-c", "user.email=e@x"]
    run.mkdir()
    new = {
        "mmnet/fusion/new.py": f"a = 1\nb = '{canary}'",
        "conf/fusion/new.yaml": "dim: 3\n",
        "conf/fusion/empty.yaml": "",
        "experiments/large.py": "#" * 200_000,
        "experiments/ignored.py": "x\n",
        "experiments/result.jsonl": "x\n",
        "notes.py": "x\n",
    }
    for name, text in new.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    (work / "conf/link.yaml").symlink_to("/etc/hostname")
    (work / "mmnet/.#new.py").symlink_to("nobody@nowhere")  # how Emacs locks a file
    (work / ".gitignore").write_text("ignored.py\n")
    for words in (["init", "-q"], ["add", ".gitignore"], ["commit", "-qm", "x"]):
        subprocess.run([*ask, *words], check=True)
    monkeypatch.chdir(work / "mmnet")
    monkeypatch.setattr(mmnet, "__file__", str(work / "mmnet/__init__.py"))

    record.save_diff(run)
    diff = (run / "git.diff").read_text()
    told = {line for line in diff.splitlines() if line.startswith("untracked: ")}
    assert told == {
        "untracked: mmnet/fusion/new.py",
        "untracked: conf/fusion/new.yaml",
        "untracked: conf/fusion/empty.yaml",
        "untracked: experiments/large.py (200000 bytes, left out)",
        "untracked: mmnet/.#new.py (14 bytes, left out)",
        "untracked: conf/link.yaml (13 bytes, left out)",
    }
    assert canary not in diff and len(diff) < 2_000

    subprocess.run([*ask, "clean", "-fdq"], check=True)
    subprocess.run([*ask, "apply", str(run / "git.diff")], check=True)
    assert (work / "mmnet/fusion/new.py").read_text() == "a = 1\nb = '***'"
    assert (work / "conf/fusion/new.yaml").read_text() == "dim: 3\n"
