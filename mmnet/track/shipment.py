"""The work of the shipper: batch after batch, then the files, then how the run ended."""

import contextlib
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import psutil

from mmnet.redact import redact
from mmnet.track import content
from mmnet.track.spool import SPOOLS, Point, batch
from mmnet.track.state import read, room, write
from mmnet.track.store import Away, Refused, Store, deliver


_PACE = 1.0  # seconds between two looks at metrics.jsonl
_LOOK = 0.2  # between two looks at whether the run ended
_LONGEST_PAUSE = 15.0


class Readings(Protocol):
    """Of the machine, spooled into the run folder: see mmnet.track.system."""

    def take(self) -> None: ...

    def close(self) -> None: ...


class Shipment:
    """Everything on its way from one run folder to one store."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        store: Store,
        readings: Readings | None,
        trainer: int | None,
        linger: float,
    ) -> None:
        """`trainer`: the process that started this one, if not a person; `linger`: seconds to
        go on after the run when the store is away.
        """
        self._folder, self._settings, self._trainer = folder, settings, trainer
        self._store, self._readings, self._linger = store, readings, linger
        self._sent: dict[str, Any] = {}
        self._opened = False
        self._state = ""
        self._dropped: Counter[str] = Counter()
        self._not_uploaded: dict[str, list[int]] = {}

    def run(self) -> str:
        """Returns how it ended: done, owed, replaced (by a shipper started later) or waiting.

        `waiting`: all was sent by hand, and the run may still be going on.
        """
        failures, ended_at = 0, None
        while True:
            if self._replaced():
                return "replaced"
            end = self._end()
            if self._readings is not None and ended_at is None:
                self._readings.take()
            if end is not None and ended_at is None:
                ended_at, failures = time.monotonic(), 0
                if self._readings is not None:
                    self._readings.close()
            try:
                self._forward()
                if end is not None:
                    self._close(*end)
                    self._tell("done")
                    return "done"
                if self._trainer is None:
                    return "waiting"
                failures, pause = 0, _PACE
            except (Away, Refused, OSError) as away:
                self._tell("away", str(away))
                if ended_at is not None and time.monotonic() > ended_at + self._linger:
                    self._tell("owed", str(away))
                    return "owed"
                failures += 1
                pause = min(0.5 * 2**failures, _LONGEST_PAUSE)
            self._sleep(pause, end is None)

    def _forward(self) -> None:
        """Everything that is there."""
        if not self._opened:
            self._open()
        for name in SPOOLS:
            while self._send_batch(name):
                pass
        self._upload(content.EARLY)
        self._tell("sending")

    def _send_batch(self, name: str) -> bool:
        """Returns whether there is more."""
        start = self._sent["offsets"].get(name, 0)
        some = batch(self._folder / name, start)
        if some.end > start:
            self._drop(deliver(self._store.send, some.points), some.unreadable)
            self._sent["offsets"][name] = some.end
            write(room(self._folder) / "sent.json", self._sent)
            self._tell("sending")
        return some.full

    def _open(self) -> None:
        address = self._store.open()
        write(self._folder / "tracker.json", address)
        run = {name: address[name] for name in ("uri", "run_id")}
        self._sent = read(room(self._folder) / "sent.json")
        if self._sent.get("run") != run:  # what another store was sent says nothing of this one
            self._sent = {"run": run, "offsets": {}, "uploaded": {}}
        self._opened = True

    def _close(self, status: str, milliseconds: int) -> None:
        self._upload(content.LATE)
        self._store.close(status, milliseconds)

    def _upload(self, patterns: tuple[str, ...]) -> None:
        for file in content.files(self._folder, patterns):
            name, stat = file.relative_to(self._folder).as_posix(), file.stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            if stamp in (self._sent["uploaded"].get(name), self._not_uploaded.get(name)):
                continue
            try:
                self._store.upload(file)
            except Refused as refused:
                self._not_uploaded[name] = stamp
                self._say(f"{name} was not uploaded: {refused}")
            else:
                self._sent["uploaded"][name] = stamp
                write(room(self._folder) / "sent.json", self._sent)

    def _drop(self, refused: list[tuple[Point, str]], unreadable: int) -> None:
        if unreadable:
            self._say(f"{unreadable} entries of the metrics files are unreadable and left out")
        for point, reason in refused:
            if not self._dropped[point.name]:
                self._say(f"{point.name} at step {point.step} was refused: {reason}")
            self._dropped[point.name] += 1

    def _end(self) -> tuple[str, int] | None:
        """How and when (unix ms) the run ended; None while it goes on."""
        end = read(room(self._folder) / "end.json")
        if end:
            return end["status"], end["milliseconds"]
        if self._trainer is None:
            alive = _alive(self._settings["trainer"])
        else:
            alive = os.getppid() == self._trainer
        return None if alive else ("KILLED", round(time.time() * 1000))

    def _replaced(self) -> bool:
        """Whether the run was started again, with a shipper that waits for the lock."""
        starts = read(room(self._folder) / "settings.json").get("starts")
        return bool(starts != self._settings["starts"])

    def _sleep(self, seconds: float, until_end: bool) -> None:
        stop = time.monotonic() + seconds
        while (left := stop - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK))
            if (until_end and self._end() is not None) or self._replaced():
                return
            if until_end and self._readings is not None:
                self._readings.take()

    def _tell(self, state: str, why: str = "") -> None:
        """To the training process by status.json, to people by tracker.log; changes only."""
        if state == self._state:
            return
        if state in ("away", "owed"):
            self._say(f"{state}: {why}")
        elif self._state == "away":
            self._say("the store is back")
        self._state = state
        told = {
            "state": state,
            "starts": self._settings["starts"],
            "why": why,
            "dropped": sum(self._dropped.values()),
            "not_uploaded": sorted(self._not_uploaded),
        }
        with contextlib.suppress(OSError):
            write(room(self._folder) / "status.json", told)

    def _say(self, text: str) -> None:
        say(self._folder, text)
        if self._trainer is None:
            print(redact(text), file=sys.stderr)


def say(folder: Path, text: str) -> None:
    """Into tracker.log, if the disk has room."""
    with contextlib.suppress(OSError), (folder / "tracker.log").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}\n")


def _alive(trainer: dict[str, Any]) -> bool:
    """Whether the process may still train; of another machine nothing is known."""
    if trainer["host"] != os.uname().nodename:
        return True
    try:
        process = psutil.Process(trainer["pid"])
        # The clock may have been set since, by a little.
        same = abs(process.create_time() - trainer["created"]) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
