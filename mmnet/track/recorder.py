"""metrics.jsonl: every number of a run, one JSON object a line, written as training goes.

    {"step": 12, "time": 1700000000.123, "train/loss": 0.5, "train/lr": 0.001}
    {"event": "resumed", "step": 200, "time": 1700000100.456}

JSON has no words for NaN and infinity: such a value is null, and a second entry says which
it was: {"step": 13, ..., "train/loss": null, "train/loss.nonfinite": "inf"}.

`time` is taken when the value is recorded, never when it is sent on: MLflow tells two
points apart by it, so that sending one twice does no harm.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from mmnet.errors import UserError
from mmnet.track.base import Line


log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
NONFINITE = ".nonfinite"

# Of user data at risk when the process is killed: this many lines or seconds, whichever is less.
_LINES, _SECONDS = 64, 1.0
_MAX_NAME = 250 - len(NONFINITE)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Recorder:
    """Appends to metrics.jsonl of a run folder, at the cost of a few microseconds a step.

    Opening it on an existing file goes on with it: a torn last line is cut off, and values
    that are already there are not recorded again when steps are replayed after a checkpoint.
    """

    def __init__(self, folder: Path, name: str = METRICS) -> None:
        self.path = folder / name
        self._names: dict[str, str] = {}
        self._last: dict[str, int] = {}
        self._pending: list[bytes] = []
        self._lock = threading.Lock()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = self._recover()
        self._closed = threading.Event()
        # In a thread of its own, since an fsync can take long and a slow step must not hold
        # back the lines of the steps before it.
        self._thread = threading.Thread(target=self._keep, name="recorder", daemon=True)
        self._thread.start()

    @property
    def last(self) -> int:
        """The largest step recorded so far; -1 if there is none."""
        return max(self._last.values(), default=-1)

    def log(self, step: int, values: Mapping[str, float]) -> Line:
        """Record values of one step; returns the line, empty if all of it was there before."""
        line: Line = {"step": step, "time": round(time.time(), 3)}
        for given, number in values.items():
            name = self._names.get(given) or self._admit(given)
            if step <= self._last.get(name, -1):
                continue
            self._last[name] = step
            value = float(number)
            if isfinite(value):
                line[name] = value
            else:
                line[name] = None
                line[name + NONFINITE] = str(value)
        if len(line) == 2:
            return {}
        self._append(line)
        return line

    def event(self, name: str, **fields: str | float) -> None:
        """Record that something happened, such as `resumed` with its step."""
        self._append({"event": name, **fields, "time": round(time.time(), 3)})

    def sync(self) -> None:
        """Bring everything to the disk: before a checkpoint that lies after it counts.

        A run resumed from that checkpoint would not record these steps again. Raises
        UserError if the file cannot be written; nothing is lost, later calls try again.
        """
        try:
            with self._lock:
                self._flush()
            os.fsync(self._file)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); "
                f"{len(self._pending)} lines are waiting"
            ) from error

    def close(self) -> None:
        """Write what is left. Never raises: a full disk was told of by `sync`, and is logged."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        try:
            self.sync()
        except UserError as error:
            log.error("%s", error)
        os.close(self._file)

    def _admit(self, given: str) -> str:
        self._names[given] = clean(given)
        return self._names[given]

    def _append(self, line: Line) -> None:
        data = _encode(line)
        with self._lock:
            self._pending.append(data)
            # A multiple, so that a full disk is not tried again at every step.
            if len(self._pending) % _LINES == 0:
                with contextlib.suppress(OSError):  # reported by the next `sync`
                    self._flush()

    def _flush(self) -> None:
        data = b"".join(line + b"\n" for line in self._pending)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += done
        self._pending.clear()

    def _keep(self) -> None:
        synced = self._size
        while not self._closed.wait(_SECONDS):
            with contextlib.suppress(OSError):  # tried again in a second
                with self._lock:
                    self._flush()
                    size = self._size
                if size != synced:
                    os.fsync(self._file)
                    synced = size

    def _recover(self) -> int:
        """Cut off a torn last line, note what is there; returns the size in bytes.

        What is damaged is told of: a kill can tear the last line, nothing of ours the others.
        """
        size, torn, unreadable = 0, False, 0
        with self.path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    os.ftruncate(self._file, size)
                    torn = True
                    break
                size += len(raw)
                line = parse(raw)
                if line is None:
                    unreadable += 1
                elif "event" not in line:
                    for name in line.keys() - {"step", "time"}:
                        self._last[name] = max(self._last.get(name, -1), line["step"])
        if torn or unreadable:
            cut = ["a torn last line, cut off"] if torn else []
            passed = [f"{unreadable} that cannot be read, passed over"] if unreadable else []
            log.warning("%s: damaged lines: %s", self.path, "; ".join(cut + passed))
        return size


def clean(name: str) -> str:
    """A name every tracker takes: MLflow's characters, no `..` or doubled `/`, bounded.

    >>> clean("val/recall@1"), clean("../x"), clean("step")
    ('val/recall_at_1', 'x', 'step_')
    """
    name = re.sub(r"[^/\w.\- :]", "_", name.replace("@", "_at_"))
    name = "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
    if name in ("", "step", "time", "event") or name.endswith(NONFINITE):
        name += "_"
    return name[:_MAX_NAME].rstrip("/")


def parse(raw: bytes) -> Line | None:
    """One line of the file, or None for what is not one (bytes that a crash left behind)."""
    try:
        line = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return line if isinstance(line.get("step"), int) or "event" in line else None


def read(folder: Path) -> Iterator[Line]:
    """The lines of a run's metrics.jsonl, whole ones only, in the order of recording."""
    path = folder / METRICS
    if path.exists():
        with path.open("rb") as file:
            for raw in file:
                line = parse(raw) if raw.endswith(b"\n") else None
                if line is not None:
                    yield line
