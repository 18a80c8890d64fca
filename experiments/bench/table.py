"""Writes the figures of results/*.json into README.md: `python experiments/bench/table.py`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
BEGIN, END = "<!-- written by table.py -->\n", "<!-- until here -->\n"
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


def results() -> dict[str, dict[str, Any]]:
    """What is committed, by benchmark."""
    files = {name: HERE / "results" / f"{name}.json" for name in NAMES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def render(found: dict[str, dict[str, Any]]) -> str:
    """The aims of all benchmarks, then every figure of each."""
    lines = ["### Aims", "", "| | measured | range | aim | |", "|---|---|---|---|---|"]
    for name, result in found.items():
        lines += [
            f"| {name}: {what} | {number(entry)} | {limits(entry)} | at most {entry['aim']:g} | "
            f"{'met' if entry['met'] else '**missed**'} |"
            for what, entry in entries(result)
            if "aim" in entry
        ]
    for name, result in found.items():
        lines += ["", f"### {name}", "", *circumstances(result), ""]
        lines += ["| | measured | range |", "|---|---|---|"]
        lines += [f"| {what} | {number(e)} | {limits(e)} |" for what, e in entries(result)]
    return "\n".join(lines) + "\n"


def entries(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ratios, then figures."""
    for kind in ("ratios", "figures"):
        yield from result[kind].items()


def number(entry: dict[str, Any]) -> str:
    return f"{entry['median']:g} {entry.get('unit', '')}".rstrip()


def limits(entry: dict[str, Any]) -> str:
    return f"{entry['min']:g} to {entry['max']:g}"


def circumstances(result: dict[str, Any]) -> Iterator[str]:
    """Command, machine, load and versions, a line each."""
    machine = result["machine"]
    yield f"`{result['command']}`, {result['rounds']} rounds  "
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB; load average "
        f"{result['load_before']:g} before, {result['load_after']:g} after  "
    )
    yield ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    for name, text in result["notes"].items():
        yield f"<br>{name}: {text}"
    for peer, why in result["missing"].items():
        yield f"<br>without {peer}: {why}"


def split(text: str) -> tuple[str, str, str]:
    """What is before the figures, the figures, and what is behind them."""
    before, _, rest = text.partition(BEGIN)
    figures, _, behind = rest.partition(END)
    return before, figures, behind


def main() -> None:
    before, _, behind = split(README.read_text())
    README.write_text(before + BEGIN + render(results()) + END + behind)
    print(f"{README} written", file=sys.stderr)


if __name__ == "__main__":
    main()
