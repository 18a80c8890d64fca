"""The runs of protocol.yaml: a queue that goes on where it was stopped.

    python experiments/double_loop/run.py cpu --data <folder that holds the data>
    python experiments/double_loop/run.py full --minutes 60 --out results/of_this_machine.jsonl

Each run is one line of the results file; what is there, in any file of results/, is not run
again. First the rates are tuned, on other seeds; then come the runs themselves, all arms of a
seed before the next seed, so that a queue that was stopped is a smaller study and no other one.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import yaml


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # for experiments.*, in the processes of the pool too
PROTOCOL: dict[str, Any] = yaml.safe_load((HERE / "protocol.yaml").read_text("utf-8"))
DEFAULT = 1e-3


class Spec(NamedTuple):
    """One run."""

    phase: str  # tune | calibrate | run
    task: str
    arm: str
    factor: float  # on the arm's rate
    rate: float | None  # optimizer.lr; None: that of the optimizer's file
    steps: int
    seed: int

    @property
    def key(self) -> str:
        rate = self.rate if self.phase != "run" else None  # there it follows from the tuning
        return json.dumps([*self[:4], rate, self.steps, self.seed])


def words(spec: Spec, data: str, output: str) -> list[str]:
    """The command line of a run."""
    design: dict[str, list[str]] = PROTOCOL["design_tasks"]
    of_task = design.get(spec.task) or PROTOCOL["tasks"][spec.task]["words"]
    arm = [word.replace("${here}", str(HERE)) for word in PROTOCOL["arms"][spec.arm]["words"]]
    gone = tuple(f"encoder.{word[9:]}." for word in arm if word.startswith("~encoder/"))
    return [
        *(word for word in (*PROTOCOL["network"], *of_task) if not word.startswith(gone)),
        *arm,
        *([] if spec.rate is None else [f"optimizer.lr={spec.rate:.6g}"]),
        *(f"trainer.steps={spec.steps}", f"trainer.eval_every={max(5, spec.steps // 15)}"),
        *("trainer.checkpoint_every=1000000", f"seed={spec.seed}"),
        *(f"paths.data='{data}'", f"paths.output='{output}'"),
    ]


def execute(spec: Spec, data: str) -> dict[str, Any]:
    """One run, in this process. What goes wrong is a result."""
    from experiments.double_loop.measure import measured

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as output:
        asked = words(spec, data, output)
        began, cpu = time.perf_counter(), time.process_time()
        try:
            found = measured(asked, unequal=bool(task_of(spec.task).get("unequal")))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:500]}
        found |= {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    return {**spec._asdict(), **found}


def task_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = PROTOCOL["tasks"].get(name, {})
    return found


def rows(folder: Path = HERE / "results") -> list[dict[str, Any]]:
    """Every result there is, of all files."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.open()]
    return [json.loads(line) for line in lines]


def key_of(row: dict[str, Any]) -> str:
    return Spec(**{name: row[name] for name in Spec._fields}).key


def tuned(found: list[dict[str, Any]], phase: str, arm: str, tasks: list[str], steps: int) -> float:
    """The rate whose mean final validation loss is least; of several tasks, mean of its log."""
    scores: dict[float, list[float]] = {}
    for row in found:
        if (row["phase"], row["arm"], row["steps"]) == (phase, arm, steps) and row["task"] in tasks:
            loss = row.get("final", {}).get("val/loss") or float("inf")
            scores.setdefault(row["rate"], []).append(loss)
    if not scores:
        raise SystemExit(f"nothing is tuned for {arm} on {', '.join(tasks)} at {steps} steps")
    return min(scores, key=lambda rate: statistics.geometric_mean(scores[rate]))


def tuning(tier: dict[str, Any]) -> Iterator[Spec]:
    """Cosine on each task, and what has one setting for all on the design tasks."""
    for steps in tier["steps"]:
        for seed in tier.get("tuning_seeds", PROTOCOL["tuning_seeds"]):
            for rate in PROTOCOL["rates"]:
                for task in tasks_of(tier):
                    yield Spec("tune", task, "cosine", 1, rate, steps, seed)
                for arm in calibrated(tier):
                    for task in PROTOCOL["design_tasks"]:
                        yield Spec("calibrate", task, arm, 1, rate, steps, seed)


def tasks_of(tier: dict[str, Any]) -> list[str]:
    return tier.get("tasks") or usual("tasks")


def arms_of(tier: dict[str, Any]) -> list[str]:
    return tier.get("arms") or usual("arms")


def usual(what: str) -> list[str]:
    """Those that are no other tier's."""
    return [name for name, its in PROTOCOL[what].items() if "tier" not in its]


def calibrated(tier: dict[str, Any]) -> list[str]:
    """The arms of a tier that have one setting for all tasks."""
    return [arm for arm in arms_of(tier) if PROTOCOL["arms"][arm]["rate"] == "calibrated"]


def queue(tier: dict[str, Any], found: list[dict[str, Any]]) -> Iterator[Spec]:
    """The runs themselves; rates by what was tuned."""
    design = list(PROTOCOL["design_tasks"])
    for seed in tier["seeds"]:
        for steps in tier["steps"]:
            for task in tasks_of(tier):
                centre = tuned(found, "tune", "cosine", [task], steps)
                for arm in arms_of(tier):
                    settings = PROTOCOL["arms"][arm]
                    if settings.get("only") == "unequal" and not task_of(task).get("unequal"):
                        continue
                    match settings["rate"]:
                        case "own":
                            rates: dict[float, float | None] = {1: None}
                        case "default":
                            rates = {1: DEFAULT}
                        case "calibrated":
                            rates = {1: tuned(found, "calibrate", arm, design, steps)}
                        case "tuned":
                            rates = {1: centre}
                        case _:
                            grid = tier.get("grid", PROTOCOL["grid"])
                            rates = {factor: factor * centre for factor in grid}
                    for factor, rate in rates.items():
                        yield Spec("run", task, arm, factor, rate, steps, seed)


def work(specs: list[Spec], out: Path, data: str, processes: int, deadline: float) -> bool:
    """Run what is not there yet; False when there was no time for all of it."""
    done = {key_of(row) for row in rows(out.parent)}
    due = [spec for spec in specs if spec.key not in done]
    stamp = {"commit": commit(), "policies": policies()}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=50) as pool,
        out.open("a") as file,
    ):
        waiting = iter(due)
        running = {
            pool.submit(execute, spec, data) for spec in itertools.islice(waiting, processes)
        }
        count = 0
        while running:
            ended = next(as_completed(running))
            running.remove(ended)
            row = ended.result()
            file.write(json.dumps(row | stamp) + "\n")
            file.flush()
            count += 1
            final = row.get("error") or row["final"].get("val/loss")
            print(
                f"{count}/{len(due)} {row['task']} {row['arm']} x{row['factor']:g} "
                f"seed {row['seed']} T {row['steps']}: {final}",
                flush=True,
            )
            if time.monotonic() < deadline and (spec := next(waiting, None)) is not None:
                running.add(pool.submit(execute, spec, data))
    return count == len(due)


def commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    )
    return told.stdout.strip()


def policies() -> dict[str, str]:
    """How the digests of those that come with mmnet begin."""
    from hashlib import sha256

    from mmnet.controller.shipped import shipped

    return {name: sha256(path.read_bytes()).hexdigest()[:8] for name, path in shipped().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tier", choices=tuple(PROTOCOL["tiers"]))
    parser.add_argument("--data", default="data", help="paths.data of the runs")
    parser.add_argument("--minutes", type=float, default=60, help="start no run after these")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--out", type=Path, default=HERE / "results/runs.jsonl")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tier = PROTOCOL["tiers"][args.tier]
    deadline = time.monotonic() + 60 * args.minutes
    common = (args.out, args.data, args.processes, deadline)
    whole = work(list(tuning(tier)), *common)
    whole = whole and work(list(queue(tier, rows(args.out.parent))), *common)
    print("all runs of the tier are there" if whole else "there is more: run it again to go on")


if __name__ == "__main__":
    main()
