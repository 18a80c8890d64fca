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
NAMES = ("loop", "recipe", "startup", "checkpoint", "tracking")

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
    assert not list(tmp_path.glob("mlflow*")), "left behind"


@pytest.mark.slow
def test_peer_that_is_missing(tmp_path: Path) -> None:
    """A broken stand-in would be found first; none at all is what `missing` is about."""
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('lightning', 'open_clip_train', 'accelerate'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    found = run("loop", tmp_path, PYTHONPATH=str(hide))
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
