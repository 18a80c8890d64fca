"""Reads metrics.jsonl from where the last accepted batch ended."""

import os
from pathlib import Path
from typing import NamedTuple

from mmnet.track.base import Line
from mmnet.track.recorder import METRICS, NONFINITE, parse
from mmnet.track.state import read, room


# Below the 1 MB and the 1000 metrics that an MLflow server takes in one request.
BATCH = 1000
SPOOLS = (METRICS, "controller.jsonl", "tracker/system.jsonl")
_CHUNK = 1 << 18


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float  # NaN where it was not finite
    step: int
    milliseconds: int  # unix time of recording


class Batch(NamedTuple):
    """Some whole lines."""

    points: list[Point]
    unreadable: int  # lines and values that are not numbers of a step
    end: int  # where the next batch begins, in bytes
    full: bool  # whether there is more


def points(line: Line) -> tuple[list[Point], int]:
    """The values of one line, and how many of its entries are none."""
    if "event" in line:
        return [], 0
    good, bad = [], 0
    try:
        step, milliseconds = int(line["step"]), round(line["time"] * 1000)
    except (KeyError, TypeError, ValueError, OverflowError):
        return [], 1
    for name, value in line.items():
        if name in ("step", "time") or name.endswith(NONFINITE):
            continue
        try:
            number = float("nan") if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            bad += 1
        else:
            good.append(Point(name, number, step, milliseconds))
    return good, bad


def batch(path: Path, start: int) -> Batch:
    """The whole lines from byte `start` on, up to about BATCH values.

    They are on the disk before they are handed out: what a store has been sent must not be
    recorded a second time because a power cut took it from the file.
    """
    found: list[Point] = []
    unreadable, end, rest = 0, start, b""
    if not path.exists() or path.stat().st_size <= start:
        return Batch([], 0, start, False)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        file.seek(start)
        while len(found) < BATCH and (chunk := file.read(_CHUNK)):
            *lines, rest = (rest + chunk).split(b"\n")
            for raw in lines:
                line = parse(raw)
                good, bad = points(line) if line else ([], 1)
                if found and len(found) + len(good) > BATCH:
                    return Batch(found, unreadable, end, True)
                found += good
                unreadable += bad
                end += len(raw) + 1
    return Batch(found, unreadable, end, len(found) >= BATCH)


def owed(folder: Path) -> int:
    """How many recorded values no store has accepted yet."""
    offsets = read(room(folder) / "sent.json").get("offsets", {})
    count = 0
    for name in SPOOLS:
        path, start = folder / name, offsets.get(name, 0)
        while (some := batch(path, start)).end > start:
            count, start = count + len(some.points), some.end
    return count
