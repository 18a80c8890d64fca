"""Which of several policies comes with mmnet: the best on the design tasks of protocol.yaml.

python experiments/double_loop/choose.py outputs/meta/*/policy.safetensors
"""

import math
import statistics
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.double_loop.run import DEFAULT, PROTOCOL, Spec, execute


STEPS = 300


def score(policy: Path) -> float:
    """Mean log of the final validation loss over design tasks and tuning seeds."""
    words = ["controller=double_loop", f"controller.policy='{policy.resolve()}'"]
    PROTOCOL["arms"]["asked"] = {"words": words}
    found = []
    for task in PROTOCOL["design_tasks"]:
        for seed in PROTOCOL["tuning_seeds"]:
            row = execute(Spec("choose", task, "asked", 1.0, DEFAULT, STEPS, seed), "data")
            if "error" in row:
                raise SystemExit(row["error"])
            found.append(math.log(row["final"]["val/loss"]))
    return statistics.fmean(found)


def main() -> None:
    scores = {path: score(path) for path in map(Path, sys.argv[1:])}
    for path, value in sorted(scores.items(), key=lambda item: item[1]):
        print(f"{value:+.4f}  {path}")


if __name__ == "__main__":
    main()
