"""What the benchmarks share: interleaved rounds on one thread, spreads, and one line of JSON.

A figure is the median over rounds of CPU time (`time.process_time`: every thread of this
process, nothing of its neighbours), because the machines at hand are shared. In each round
every contender runs once and the order rotates, so that a slow minute strikes all alike; a
ratio is taken within a round and only then the median over rounds.
"""

import argparse
import contextlib
import gc
import io
import json
import logging
import os
import platform
import shlex
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

import psutil

import mmnet


ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 30522  # words of BERT's

# For this process where torch is not loaded yet, and for those it starts.
os.environ.update(
    OMP_NUM_THREADS="1",
    DO_NOT_TRACK="true",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    TOKENIZERS_PARALLELISM="false",
)


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """--quick, --rounds N and --out FILE; `quick` means 2 rounds unless told otherwise."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds; {rounds} by default")
    parser.add_argument("--out", type=Path, help="write the JSON here as well, indented")
    given = parser.parse_args()
    if given.rounds is None:
        given.rounds = min(2, rounds) if given.quick else rounds
    return given


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """One figure a round from each contender; the order rotates from round to round."""
    names = list(contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            fresh_heap()
            figures[name].append(contenders[name]())
            say(f"round {turn + 1}/{rounds}  {name:40s} {figures[name][-1]:.6g}")
    return figures


def fresh_heap() -> None:
    """So that nobody's garbage collector walks over what another one left or imported."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def vocabulary(folder: Path) -> Path:
    """A vocab.txt of as many words as BERT's, its special ones first: [CLS] is 2, [SEP] is 3."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"w{number}" for number in range(len(special), VOCABULARY))]
    file = folder / "vocab.txt"
    file.write_text("\n".join(words) + "\n")
    return file


def installed(package: str) -> bool:
    """Whether a peer can be imported; its import name."""
    return util.find_spec(package) is not None


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What is printed goes into memory, as if to a terminal, and is formatted all the same."""
    logging.disable(logging.INFO)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(Terminal()),
        contextlib.redirect_stderr(Terminal()),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


class Terminal(io.StringIO):
    """Lets progress bars believe that somebody looks."""

    def isatty(self) -> bool:
        return True


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Report:
    """Collects figures and ratios with their spread; `finish` prints them as the last line."""

    def __init__(self, name: str, given: argparse.Namespace, packages: Sequence[str]) -> None:
        """`packages`: distributions whose versions belong to the result, peers included."""
        self._given = given
        self.quick: bool = given.quick
        self._result: dict[str, Any] = {
            "benchmark": name,
            "command": shlex.join(["python", f"experiments/bench/{name}.py", *sys.argv[1:]]),
            "quick": given.quick,
            "rounds": given.rounds,
            "machine": machine(),
            "versions": {
                "python": platform.python_version(),
                "mmnet": mmnet.__version__,
                **versions(packages),
            },
            "load_before": round(os.getloadavg()[0], 2),
            "missing": {},
            "notes": {},
            "ratios": {},
            "figures": {},
        }

    def note(self, name: str, text: str) -> None:
        """A fact to read the figures by."""
        self._result["notes"][name] = text

    def missing(self, peer: str) -> None:
        """A peer that is not here, and so is not compared with."""
        self._result["missing"][peer] = "not installed: pip install 'mmnet[bench]'"
        say(f"{peer} is not installed and left out")

    def figure(
        self, name: str, values: Sequence[float], unit: str, aim: float | None = None
    ) -> None:
        """The median of `values` and their range; `aim`: at most this much."""
        self._result["figures"][name] = {**spread(values, aim), "unit": unit}

    def ratio(
        self,
        name: str,
        over: Sequence[float],
        under: Sequence[float],
        aim: float | None = None,
    ) -> None:
        """Over / under within each round, then as a figure."""
        pairs = zip(over, under, strict=True)
        self._result["ratios"][name] = spread([a / b for a, b in pairs], aim)

    def finish(self) -> None:
        result = self._result
        result["load_after"] = round(os.getloadavg()[0], 2)
        for kind in ("figures", "ratios"):
            for name, entry in result[kind].items():
                say(f"{name:66s} {describe(entry)}")
        if self._given.out is not None:
            self._given.out.parent.mkdir(parents=True, exist_ok=True)
            self._given.out.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result), flush=True)


def spread(values: Sequence[float], aim: float | None) -> dict[str, Any]:
    """Median, least and largest, and whether the aim was reached."""
    median = statistics.median(values)
    entry = {"median": rounded(median), "min": rounded(min(values)), "max": rounded(max(values))}
    return entry if aim is None else {**entry, "aim": aim, "met": median <= aim}


def describe(entry: Mapping[str, Any]) -> str:
    """0.48 (0.45-0.52); at most 0.6: met"""
    text = f"{entry['median']:g} ({entry['min']:g} to {entry['max']:g})"
    if unit := entry.get("unit"):
        text += f" {unit}"
    if "aim" in entry:
        text += f"; at most {entry['aim']:g}: {'met' if entry['met'] else 'MISSED'}"
    return text


def rounded(value: float) -> float:
    """Four significant digits, which is more than the noise leaves."""
    return float(f"{value:.4g}")


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Of each distribution, None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": platform.platform(),
        "threads": 1,
    }


def cpu() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
