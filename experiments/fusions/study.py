"""Every fusion on real and drawn data, against each modality alone, paired by seed.

    python experiments/fusions/study.py shapes digits missing
    python experiments/fusions/study.py nlvr --data <folder that holds NLVR>
    python experiments/fusions/study.py openmoji --data <folder that holds OpenMoji> \\
        --vocabulary <vocab.txt of bert-base-uncased>

Each run is one command, printed as it starts, and one line of results/<study>.jsonl; runs that
are there already are not repeated, so a study that was stopped goes on. At the end the tables of
README.md are printed (--table: only that).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple


HERE = Path(__file__).resolve().parent
JOINT = (
    "concat",
    "gated",
    "film",
    "tensor",
    "early",
    "cross_attention",
    "bottleneck",
    "perceiver",
)
ALONE = ("image_only", "text_only")
# How often the commonest answer of a validation split is right, counted once; of the split of
# commit 55b1902, which the results are of.
MAJORITY = {"nlvr": 36 / 64}
# Student's t for a 95 % interval of a mean, by degrees of freedom.
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}

# What each study sets; the same for every network of it.
SETTINGS: dict[str, tuple[str, ...]] = {
    "shapes": ("dataset=shapes",),
    "digits": ("dataset=digits", "trainer.steps=400"),
    "nlvr": ("dataset=nlvr", "trainer.steps=300", "trainer.batch_size=64"),
    # Names of emoji share words; from a thousand of them bytes do not learn what a word is.
    "openmoji": (
        *("dataset=openmoji", "trainer.steps=600", "optimizer.weight_decay=0.5"),
        *(
            "dataset.image_size=32",
            "dataset.augment.random_crop=0.8",
            "dataset.tag_probability=0.5",
        ),
        *("encoder/text=bert_micro", "encoder.text.pooling=mean", "encoder.text.depth=1"),
        *("encoder.text.dim=96", "encoder.text.dropout=0.2", "encoder.image.dropout=0.1"),
    ),
    "missing": ("dataset=digits",),
}


class Steps(NamedTuple):
    """Those that every network of a study gets, and fusions that did not get there with them.

    They get more, with every seed, as soon as one seed fell short.
    """

    usual: int
    more: int
    slow: tuple[str, ...]


STEPS = {
    "shapes": Steps(700, 1500, ("gated", "early", "bottleneck", "perceiver")),
    "missing": Steps(800, 1600, ("tensor",)),
}


def settings(study: str, vocabulary: str | None) -> tuple[str, ...]:
    """The words of every run of a study."""
    if study != "openmoji":
        return SETTINGS[study]
    return (*SETTINGS[study], f"encoder.text.tokenizer={vocabulary}")


def networks(study: str) -> dict[str, tuple[str, ...]]:
    """The networks of a study by name, each with its words."""
    if study == "openmoji":
        return {name: (f"model={name}",) for name in ("two_tower", "siglip")}
    fused: dict[str, tuple[str, ...]] = {
        name: ("model=late_fusion", f"fusion={name}") for name in JOINT
    }
    if study == "missing":
        fused = {n: (*words, "trainer.modality_dropout=0.5") for n, words in fused.items()}
    every = {**{name: (f"model={name}",) for name in ALONE}, **fused}
    if study not in STEPS:
        return every
    usual, more, slow = STEPS[study]
    return {n: (*w, f"trainer.steps={more if n in slow else usual}") for n, w in every.items()}


def train(network: str, words: tuple[str, ...], seed: int, data: str) -> dict[str, Any]:
    """One run: its final metrics and its modality grid."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            *(sys.executable, "-m", "mmnet.train", *words, f"seed={seed}"),
            *("tracker=none", "hardware.threads=1", "trainer.eval_every=100000"),
            *("trainer.checkpoint_every=100000", f"paths.data={data}", f"paths.output={output}"),
        ]
        print("$ python", *command[1:-1], flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)}\n{ended.stderr}")
        (folder,) = Path(output).glob("*/*")
        summary = json.loads((folder / "summary.json").read_text())
        record = json.loads((folder / "record.json").read_text())
    return {
        "network": network,
        "seed": seed,
        "final": summary["final"],
        "grid": summary["modalities"].get("grid"),
        "samples": {name: split["samples"] for name, split in record["dataset"].items()},
        "seconds": summary["seconds_in_steps"],
        "command": " ".join(["python", *command[1:-1]]),
    }


def rows(study: str) -> list[dict[str, Any]]:
    path = HERE / "results" / f"{study}.jsonl"
    return [json.loads(line) for line in path.open()] if path.exists() else []


def due(study: str, seeds: int) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """What has not been run yet, all networks of a seed before the next seed."""
    done = {(row["network"], row["seed"]) for row in rows(study)}
    for seed in range(seeds):
        for network, words in networks(study).items():
            if (network, seed) not in done:
                yield network, words, seed


def by_network(study: str, key: str, condition: str | None = None) -> dict[str, dict[int, float]]:
    """Metric `key` by network and seed; of a row of the grid if `condition` names one."""
    found: dict[str, dict[int, float]] = {}
    for row in rows(study):
        if condition and not row["grid"]:
            continue  # a network of one modality has none
        values = row["grid"][condition] if condition else row["final"]
        name = key if condition else f"val/{key}"
        found.setdefault(row["network"], {})[row["seed"]] = values[name]
    return found


def interval(differences: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return f"{100 * mean:+.1f}"
    half = T95[len(differences) - 1] * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{100 * mean:+.1f} ({100 * (mean - half):+.1f} to {100 * (mean + half):+.1f})"


def spread(values: list[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.1%} ({min(values):.1%} to {max(values):.1%})"


def paired(one: dict[int, float], other: dict[int, float]) -> list[float]:
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def table(study: str) -> str:
    """The study's table in Markdown."""
    if study == "openmoji":
        lines = [
            "| network | image to text R@1 | text to image R@1 | chance |",
            "| --- | --- | --- | --- |",
        ]
        there, back = by_network(study, "i2t_recall_1"), by_network(study, "t2i_recall_1")
        for name in there:
            size = next(row["samples"]["val"] for row in rows(study) if row["network"] == name)
            lines.append(
                f"| `{name}` | {spread(list(there[name].values()))} | "
                f"{spread(list(back[name].values()))} | {1 / size:.2%} |"
            )
        return "\n".join(lines)
    if study == "missing":
        alone = by_network(study, "accuracy")
        lines = [
            "| fusion | both | image only | minus `image_only` | text only | minus `text_only` |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        both = {n: found for n, found in alone.items() if n not in ALONE}
        image = by_network(study, "accuracy", "image")
        text = by_network(study, "accuracy", "text")
        for name in both:
            lines.append(
                f"| `{name}` | {spread(list(both[name].values()))} | "
                f"{spread(list(image[name].values()))} | "
                f"{interval(paired(image[name], alone['image_only']))} | "
                f"{spread(list(text[name].values()))} | "
                f"{interval(paired(text[name], alone['text_only']))} |"
            )
        return "\n".join(lines)
    found = by_network(study, "accuracy")
    majority = MAJORITY.get(study)
    titles = ["network", "val accuracy", *(f"minus `{alone}`" for alone in ALONE)]
    titles += [] if majority is None else [f"minus the majority's {majority:.1%}"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for name, values in found.items():
        against = [
            "" if name in ALONE else interval(paired(values, found[alone])) for alone in ALONE
        ]
        if majority is not None:
            against.append(interval([value - majority for value in values.values()]))
        lines.append(f"| `{name}` | {spread(list(values.values()))} | {' | '.join(against)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("studies", nargs="+", choices=tuple(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="data", help="paths.data, for nlvr and openmoji")
    parser.add_argument("--vocabulary", help="BERT's vocab.txt, for openmoji")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if "openmoji" in args.studies and not (args.vocabulary or args.table):
        parser.error("openmoji needs --vocabulary <vocab.txt of bert-base-uncased>")
    (HERE / "results").mkdir(exist_ok=True)
    for study in args.studies:
        with ThreadPoolExecutor(args.at_once) as pool:
            shared = settings(study, args.vocabulary)
            started = [
                pool.submit(train, network, (*words, *shared), seed, args.data)
                for network, words, seed in ([] if args.table else due(study, args.seeds))
            ]
            for one in started:
                row = one.result()
                with (HERE / "results" / f"{study}.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(study, row["network"], row["seed"], row["final"], flush=True)
        print(f"\n{study}\n\n{table(study)}\n")


if __name__ == "__main__":
    main()
