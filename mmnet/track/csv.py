"""metrics.csv in the run folder, for spreadsheets and one-line scripts."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mmnet.track.base import Line, Status
from mmnet.track.recorder import NONFINITE, read


log = logging.getLogger(__name__)


class Csv:
    """One row a value: step, time (unix seconds), name, value."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._path = Path()
        self._flushed = 0.0

    def check(self) -> None:
        pass

    def start(self, folder: Path) -> None:
        """Write metrics.csv anew from metrics.jsonl, then go on live.

        Whatever a kill left behind, torn rows or rows that metrics.jsonl lost, goes away.
        """
        self._path = folder / "metrics.csv"
        temporary = folder / ".metrics.csv.tmp"
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "time", "name", "value"])
            for line in read(folder):
                writer.writerows(_rows(line))
        temporary.replace(self._path)
        self._file = self._path.open("a", newline="")
        self._writer = csv.writer(self._file)

    def log(self, line: Line) -> None:
        if self._file is None or not line:
            return
        try:
            self._writer.writerows(_rows(line))
            if line["time"] - self._flushed >= 1:
                self._file.flush()
                self._flushed = line["time"]
        except OSError as error:
            self._stop(error)

    def finish(self, status: Status) -> list[str]:
        if self._file is None:
            return []
        try:
            self._file.close()
        except OSError as error:
            self._stop(error)
            return []
        return [f"metrics: {self._path}"]

    def _stop(self, error: OSError) -> None:
        log.warning("%s: %s; metrics.jsonl goes on", self._path, error.strerror)
        self._file = None


def _rows(line: Line) -> Iterator[list[Any]]:
    if "event" in line:
        return
    for name, value in line.items():
        if name in ("step", "time") or name.endswith(NONFINITE):
            continue
        shown = line.get(name + NONFINITE) if value is None else value
        yield [line["step"], line["time"], name, shown]
