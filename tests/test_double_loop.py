"""The study of the double loop: its protocol can be run, its queue goes on, figures are right."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmnet.compose import load


STUDY = Path(__file__).resolve().parents[1] / "experiments" / "double_loop"

pytestmark = pytest.mark.skipif(not STUDY.is_dir(), reason="experiments/ is not in the archive")


def test_every_arm_and_every_task_is_a_config_that_is_accepted(tmp_path: Path) -> None:
    study = importlib.import_module("experiments.double_loop.run")
    protocol = study.PROTOCOL
    one = next(iter(protocol["tasks"]))
    pairs = {(one, arm) for arm in protocol["arms"]} | {(t, "lstm") for t in protocol["tasks"]}
    for task, arm in sorted(pairs | {(task, "cosine") for task in protocol["design_tasks"]}):
        spec = study.Spec("run", task, arm, 1.0, 1e-3, 300, 0)
        load(*study.words(spec, "data", str(tmp_path)))


def test_tiers_name_what_there_is() -> None:
    protocol = importlib.import_module("experiments.double_loop.run").PROTOCOL
    for tier in protocol["tiers"].values():
        assert set(tier.get("tasks", [])) <= set(protocol["tasks"])
        assert set(tier.get("arms", [])) <= set(protocol["arms"])
        assert set(tier.get("grid", [])) <= set(protocol["grid"])
    assert set(protocol["without_tuning"]) <= set(protocol["arms"])
    looked_at = [task for task in protocol["tasks"].values() if task.get("looked_at")]
    assert len(protocol["tasks"]) - len(looked_at) >= 2


def test_intervals_are_of_tasks_and_of_seeds() -> None:
    intervals = importlib.import_module("experiments.double_loop.intervals")
    half = {"a": {0: 1.0, 1: 1.0}, "b": {0: 2.0, 1: 2.0}}
    whole = {"a": {0: 2.0, 1: 2.0, 2: 9.0}, "b": {0: 4.0, 1: 4.0}}
    assert intervals.ratio(half, whole, ("a", "b", "c")) == "0.500 [0.500, 0.500], 4/4 better"
    assert intervals.points(half, whole, ("a",)) == "-100.0 [-100.0, -100.0]"
    mean, low, high = intervals.interval([np.array([0.0, 0.0]), np.array([1.0, 1.0])])
    assert (mean, low, high) == (0.5, 0.0, 1.0)  # two tasks, and no spread within them
    assert intervals.sign_test(np.array([-1.0] * 8)) == pytest.approx(2 / 256)
    assert intervals.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )


def command(name: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(STUDY / f"{name}.py"), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_smallest_tier_runs_goes_on_and_is_told(tmp_path: Path) -> None:
    out = tmp_path / "results" / "runs.jsonl"
    words = ("ci", "--data", "none", "--out", str(out))
    assert "there is more" in command("run", *words, "--minutes", "0.05")
    first = out.read_text().splitlines()
    assert "all runs of the tier are there" in command("run", *words)
    lines = out.read_text().splitlines()
    assert lines[: len(first)] == first and len(lines) == 18 + 3
    rows = [json.loads(line) for line in lines]
    assert not [row["error"] for row in rows if "error" in row]
    assert all(math.isfinite(row["final"]["val/loss"]) for row in rows)
    assert "all runs of the tier are there" in command("run", *words)
    assert out.read_text().splitlines() == lines
    told = command("report", "--steps", "20", "--results", str(out.parent))
    assert "`lstm`" in told and "Runs that failed: 0" in told
