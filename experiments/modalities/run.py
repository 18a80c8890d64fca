"""Image alone, text alone, both: the same command for each, side by side.

    python experiments/modalities/run.py shapes --seeds 3
    python experiments/modalities/run.py coco --data <folder that holds COCO>

Writes results/<task>.json and prints the table of README.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


HERE = Path(__file__).resolve().parent
MODELS = ("image_only", "text_only", "late_fusion")
FIRST_AND_LAST = 10  # steps over which the training loss is averaged


def train(words: list[str], output: str) -> dict[str, Any]:
    """One run; its summary, with the mean training loss of its first and last steps."""
    command = [sys.executable, "-m", "mmnet.train", *words, f"paths.output={output}"]
    print("$ python", *command[1:-1], flush=True)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    folder = max(Path(output).glob("*/*"), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return {
        "accuracy": summary["final"]["val/accuracy"],
        "best_accuracy": summary["best"]["val/accuracy"],
        "first_loss": statistics.fmean(losses[:FIRST_AND_LAST]),
        "last_loss": statistics.fmean(losses[-FIRST_AND_LAST:]),
        "seconds_in_steps": summary["seconds_in_steps"],
        "bad_samples": summary["bad_samples"],
    }


def spread(values: list[float], form: str) -> str:
    """Median, and the range where there are several."""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: one row a model, medians over seeds."""
    rows = [
        "| model | val accuracy, end | training loss, first 10 steps | last 10 steps |",
        "| --- | --- | --- | --- |",
    ]
    for model, runs in results.items():
        columns = [
            spread([run["accuracy"] for run in runs], ".1%"),
            spread([run["first_loss"] for run in runs], ".3f"),
            spread([run["last_loss"] for run in runs], ".3f"),
        ]
        rows.append(f"| `{model}` | {' | '.join(columns)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("task", choices=("shapes", "coco"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", default="data", help="paths.data, for coco")
    args = parser.parse_args()
    words = ["tracker=none"]
    if args.task == "coco":
        words += ["experiment=coco_late_fusion", f"paths.data={args.data}"]
    results: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
    with tempfile.TemporaryDirectory() as output:
        for seed in range(args.seeds):
            for model in MODELS:
                results[model].append(train([*words, f"model={model}", f"seed={seed}"], output))
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{args.task}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
