"""How soon is the first step done? `python -m mmnet.train` against the script one writes first.

Both use a fresh MLflow store in sqlite, log their parameters, build the same network and take
one optimizer step. Counted is the CPU time of the training process from its start, with what
it started and waited for; the process that talks to MLflow for mmnet is counted beside it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common


PATIENCE = 300.0  # seconds until a start counts as failed
Cost = dict[str, float]  # cpu, wall, beside: seconds


def start(words: list[str], folder: Path, stamp: Path) -> Cost:
    """Run until the stamp is there; a tracking process beside it, until its run stands."""
    environment = os.environ | {"PYTHONPATH": str(common.ROOT)}
    begun = time.time()
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=output, stderr=output
        )
    with ended(process):
        wait_for(lambda: stamp.exists() or process.poll() is not None)
        if not stamp.exists():
            raise RuntimeError((folder / "output.txt").read_text()[-2000:])
        found = json.loads(stamp.read_text())
        return {
            "cpu": found["cpu"],
            "wall": found["time"] - begun,
            "beside": beside(process, folder),
        }


def beside(process: "subprocess.Popen[bytes]", folder: Path) -> float:
    """CPU seconds of the tracking process until it has made its run, 0 where there is none."""
    children = psutil.Process(process.pid).children()
    if not children:
        return 0.0
    (child,) = children
    wait_for(lambda: any(folder.glob("**/tracker.json")) or not child.is_running())
    with child.oneshot():
        spent = child.cpu_times()
    return float(spent.user + spent.system)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Nothing that this benchmark started outlives its measurement."""
    try:
        yield
    finally:
        family = []
        if process.poll() is None:
            one = psutil.Process(process.pid)
            family = [*one.children(recursive=True), one]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        psutil.wait_procs(family, timeout=10)


def wait_for(ready: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened for {PATIENCE:g} s")
        time.sleep(0.05)


def mmnet(case: list[str]) -> Cost:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder, stamp = Path(place), Path(place) / "stamp.json"
        controller = [
            "controller._target_=experiments.bench.stamp.Stamp",
            f"+controller.file={stamp}",
        ]
        return start(["-m", "mmnet.train", *case, *controller], folder, stamp)


def naive(case: list[str], everything: bool) -> Cost:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder, stamp = Path(place), Path(place) / "stamp.json"
        script = str(Path(__file__).parent / "naive_startup.py")
        given = [str(stamp), "1" if everything else "0", *case]
        return start([script, *given], folder, stamp)


def measure(
    report: common.Report, name: str, case: list[str], naives: dict[str, bool], rounds: int
) -> None:
    """One kind of network: figures for each script, ratios to each naive one."""
    costs: dict[str, list[Cost]] = {script: [] for script in ("mmnet", *naives)}

    def kept(script: str, run: Callable[[], Cost]) -> float:
        costs[script].append(run())
        return costs[script][-1]["cpu"]

    contenders: dict[str, Callable[[], float]] = {
        "mmnet": partial(kept, "mmnet", partial(mmnet, case))
    }
    for script, everything in naives.items():
        contenders[script] = partial(kept, script, partial(naive, case, everything))
    common.interleave(contenders, rounds)

    def column(script: str, what: str) -> list[float]:
        return [cost[what] for cost in costs[script]]

    for script in costs:
        report.figure(f"{name}: {script}, CPU", column(script, "cpu"), "s")
        report.figure(f"{name}: {script}, wall", column(script, "wall"), "s")
    aside = column("mmnet", "beside")
    report.figure(f"{name}: mmnet's tracking process, CPU", aside, "s")
    total = [a + b for a, b in zip(column("mmnet", "cpu"), aside, strict=True)]
    for script in naives:
        for what, aim in (("cpu", 0.75), ("wall", None)):
            label = f"{name}: mmnet / {script}, {'CPU' if what == 'cpu' else what}"
            report.ratio(label, column("mmnet", what), column(script, what), aim)
        label = f"{name}: mmnet with its tracking process / {script}, CPU"
        report.ratio(label, total, column(script, "cpu"))


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=5)
    if given.quick:
        given.rounds = 1
    packages = ("torch", "hydra-core", "mlflow", "timm", "transformers")
    report = common.Report("startup", given, packages)
    with tempfile.TemporaryDirectory() as place:
        cases: dict[str, Any] = {
            "late_fusion": (
                ["model=late_fusion"],
                {"naive": True, "naive without transformers": False},
            ),
            "BERT text tower": (
                [
                    "model=late_fusion",
                    "encoder/text=bert_micro",
                    f"encoder.text.tokenizer={common.vocabulary(Path(place))}",
                ],
                {"naive": True},
            ),
        }
        if given.quick:
            cases = {"late_fusion": (["model=late_fusion"], {"naive": True})}
        for name, (case, naives) in cases.items():
            measure(report, name, case, naives, given.rounds)
    report.finish()


if __name__ == "__main__":
    main()
