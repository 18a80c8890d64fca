"""The benchmarks run, say what they found in one line, and the README repeats it."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


BENCH = Path(__file__).resolve().parents[1] / "experiments" / "bench"
NAMES = (
    "loop",
    "recipe",
    "startup",
    "checkpoint",
    "tracking",
    "recompute",
    "input",
    "read",
    "growth",
)

pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="experiments/ is not in the archive")


def run(name: str, folder: Path, **environment: str) -> dict[str, Any]:
    """The result of a quick run from anywhere."""
    out = folder / "out.json"
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--quick", "--rounds", "1", "--out", str(out)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads(out.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_benchmark(name: str, tmp_path: Path) -> None:
    found = run(name, tmp_path)
    assert found["benchmark"] == name
    assert found["command"].startswith(f"python experiments/bench/{name}.py --quick")
    assert found["ratios"] and found["figures"]
    for entry in [*found["ratios"].values(), *found["figures"].values()]:
        assert all(math.isfinite(entry[key]) for key in ("min", "median", "max"))
        assert entry["min"] <= entry["median"] <= entry["max"]
    assert found["versions"]["mmnet"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "left behind"


HIDE = """
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "open_clip_train", "accelerate"):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [
    Finder if found is importlib.machinery.PathFinder else found for found in sys.meta_path
]
"""


@pytest.mark.slow
def test_peers_that_are_not_installed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    found = run("loop", tmp_path, PYTHONPATH=str(tmp_path))
    assert set(found["missing"]) == {"lightning", "open_clip_torch", "accelerate"}
    assert not [name for name in found["ratios"] if "Lightning" in name]
    assert "micro: mmnet / bare" in found["ratios"]


def test_readme_repeats_the_results() -> None:
    table = importlib.import_module("experiments.bench.table")
    found = table.results()
    assert set(found) == set(NAMES)
    assert not [name for name, result in found.items() if result["quick"]]
    _, figures, _ = table.split((BENCH / "README.md").read_text())
    assert figures == table.render(found), "run python experiments/bench/table.py"


def test_readme_notices_another_figure() -> None:
    table = importlib.import_module("experiments.bench.table")
    found = table.results()
    entry = next(iter(found["loop"]["ratios"].values()))
    entry["median"] += 1
    _, figures, _ = table.split((BENCH / "README.md").read_text())
    assert figures != table.render(found)
