"""What a store is told of a run besides its metrics, read from the run folder."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mmnet.redact import redact
from mmnet.track.recorder import NONFINITE, clean, read
from mmnet.track.spool import Point


# Uploaded as soon as they are there and again when they change; the others when the run ends.
EARLY = ("config.yaml", "record.json", "git.diff", "modalities.csv", "plots/*.png")
LATE = ("train.log", "controller.jsonl", "controller.html", "summary.json", "model.safetensors")

# MLflow's limits, in characters. config.yaml is uploaded whole.
_PARAM, _TAG, _DIGEST = 6000, 8000, 36
_LONGEST_LIST = 16
_ELSEWHERE = ("name", "started", "dataset", "names")
_TAG_NAMES = {"key": "run.key", "packages.mmnet": "mmnet.version"}
_SECTION = re.compile(r"^(machine|packages)\.")
_TIME = re.compile(r"^\d{4}-\d\d-\d\d_(\d\d)-(\d\d)-(\d\d)-(\d{3})\d{3}$")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class Dataset(NamedTuple):
    """One split of what the run was given."""

    name: str
    split: str
    digest: str
    source: str
    counts: dict[str, Any]


def config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    return loaded


def record(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "record.json").read_text("utf-8"))
    return loaded


def title(folder: Path) -> str:
    """What the run is called in a store: `late_fusion seed 0 12:00:00.123`, by its folder's time.

    A job of a sweep ends in its number, /7; a folder of another name is named as it is.
    """
    job = f"/{folder.name}" if folder.name.isdecimal() else ""
    place = folder.parent.name if job else folder.name
    if time := _TIME.search(place):
        place = "{}:{}:{}.{}".format(*time.groups())
    return f"{record(folder)['name']} seed {params(folder)['seed']} {place}{job}"


def params(folder: Path) -> dict[str, str]:
    """The scalars and short lists of the config by dotted path.

    References within the config are followed, those to the environment stay as they are.
    """
    leaves = dict(_flatten(config(folder), ""))
    leaves.pop("resume", None)  # says how this process began, not what the run is
    found = {}
    for name, value in leaves.items():
        text = value if isinstance(value, str) else json.dumps(value)
        found[clean(name)] = redact(_follow(text, leaves, 0))[:_PARAM]
    return found


def tags(folder: Path) -> dict[str, str]:
    """Code, machine and versions: everything in record.json that has no place of its own."""
    facts = {name: value for name, value in record(folder).items() if name not in _ELSEWHERE}
    found = {"mmnet.run_folder": str(folder)}
    for name, value in _flatten(facts, ""):
        if value is not None:
            found[_TAG_NAMES.get(name) or clean(_SECTION.sub("", name))] = str(value)
    return {name: redact(value)[:_TAG] for name, value in found.items()}


def datasets(folder: Path) -> list[Dataset]:
    """What record.json says of each split."""
    given = config(folder)
    source = given["dataset"].get("root") or given["paths"]["data"]
    name = given["dataset"]["_target_"].split(".")[-2]
    return [
        Dataset(
            name,
            split,
            facts["digest"][:_DIGEST],
            redact(source),
            {"num_rows": facts["samples"], **facts["notes"]},
        )
        for split, facts in record(folder).get("dataset", {}).items()
    ]


def summary(folder: Path) -> list[Point]:
    """Every number of summary.json as a metric: whole_run/best/val/loss, whole_run/steps, ...

    MLflow draws charts by prefix in the order of the alphabet: these, of one point each, come
    behind train/ and val/.
    """
    path = folder / "summary.json"
    if not path.exists():
        return []
    numbers = json.loads(path.read_text("utf-8"))
    step = numbers.get("steps")
    milliseconds = path.stat().st_mtime_ns // 1_000_000
    return [
        Point(clean(f"whole_run/{name}"), float(value), step or 0, milliseconds)
        for name, value in _flatten(numbers, "", "/")
        if isinstance(value, int | float)
    ]


def nonfinite(folder: Path) -> dict[str, str]:
    """Which metrics were not finite, how often: {"nonfinite.train/loss": "inf: 3, nan: 1"}."""
    counts: dict[str, Counter[str]] = {}
    for line in read(folder):
        for name, value in line.items():
            if name.endswith(NONFINITE):
                counts.setdefault(name.removesuffix(NONFINITE), Counter())[str(value)] += 1
    return {
        f"nonfinite.{name}": ", ".join(f"{kind}: {n}" for kind, n in sorted(kinds.items()))
        for name, kinds in counts.items()
    }


def files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _flatten(tree: dict[str, Any], prefix: str, joint: str = ".") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flatten(value, path + joint, joint)
        elif not isinstance(value, list) or _short(value):
            yield path, value


def _short(values: list[Any]) -> bool:
    return len(values) <= _LONGEST_LIST and not any(isinstance(x, dict | list) for x in values)


def _follow(text: str, leaves: dict[str, Any], depth: int) -> str:
    def target(match: re.Match[str]) -> str:
        value = leaves.get(match[1])
        if value is None or depth > 8:
            return match[0]
        return _follow(value if isinstance(value, str) else json.dumps(value), leaves, depth + 1)

    return _REFERENCE.sub(target, text)
