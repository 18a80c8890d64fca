"""The training process's side of the shipper: start it, look at it, wait for it at the end."""

import logging
import os
import shlex
import subprocess
import sys
import sysconfig
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

import mmnet
from mmnet.track.base import Status
from mmnet.track.spool import owed
from mmnet.track.state import URI, read, room, write


log = logging.getLogger(__name__)

_PATIENCE = 20.0  # seconds to wait at the end of a run while the store answers
_AWAY = 3.0  # seconds when it does not
_LOOK = 10.0  # seconds between two looks at how the shipper is doing


class Shipper:
    """A process `python -m mmnet.track.ship` for one run folder."""

    def __init__(self, folder: Path, settings: dict[str, Any], uri: str) -> None:
        """`settings` go to a file; `uri`, which may hold a password, to the environment."""
        self._folder, self._uri = folder.resolve(), uri
        self._linger = settings["linger"]
        self._looked = time.monotonic()
        self._told_away = False
        room(folder).mkdir(exist_ok=True)
        before = read(room(folder) / "settings.json")
        self._starts = before.get("starts", 0) + 1
        me = psutil.Process()
        known = {
            "starts": self._starts,
            "token": before.get("token") or uuid.uuid4().hex,
            "trainer": {
                "pid": me.pid,
                "created": me.create_time(),
                "host": os.uname().nodename,
            },
        }
        for name in ("end.json", "status.json"):
            (room(folder) / name).unlink(missing_ok=True)
        write(room(folder) / "settings.json", settings | known)
        self._process = self._spawn()

    def watch(self) -> None:
        """Say it, once, when the store went away or came back. Cheap enough for every step."""
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return
        self._looked = now
        status = self._status()
        away = status.get("state") == "away"
        if away and not self._told_away:
            log.warning(
                "the tracking store does not answer (%s); training goes on, metrics.jsonl "
                "keeps everything, and it is sent when the store is back",
                status["why"],
            )
        elif self._told_away and not away:
            log.info("the tracking store is back")
        self._told_away = away

    def finish(self, status: Status) -> list[str]:
        """Wait, within bounds, until all is sent; returns what the user should know of it."""
        try:
            return self._finish(status)
        except OSError as error:  # a full disk
            return [f"tracking: {error}", f"later: {self.command()}"]

    def command(self) -> str:
        """What sends the rest by hand."""
        return shlex.join(["python", "-m", "mmnet.track.ship", str(self._folder)])

    def _finish(self, status: Status) -> list[str]:
        write(
            room(self._folder) / "end.json",
            {"status": status, "milliseconds": round(time.time() * 1000)},
        )
        begin, replaced = time.monotonic(), False
        while True:
            if self._process.poll() is not None:
                if replaced or self._status().get("state") in ("done", "owed"):
                    break
                # Killed; a new one goes on where it was.
                (room(self._folder) / "status.json").unlink(missing_ok=True)
                self._process, replaced = self._spawn(), True
            waited = time.monotonic() - begin
            away = self._status().get("state") == "away"
            if waited > (_AWAY if away else _PATIENCE):
                break
            time.sleep(0.05)
        told = self._status()
        if told.get("state") == "done":
            return self._complaints(told)
        left = owed(self._folder)
        what = f"{left} values" if left else "the last files"
        why = f" ({told['why']})" if told.get("why") else ""
        still = f"tracking: {what} are still to be sent{why}"
        if told.get("state") != "owed":
            if self._process.poll() is None:
                self._process.returncode = 0  # left behind on purpose: Popen need not warn of it
                still += f"; a background process tries for {self._linger:g} s (see tracker.log)"
            else:
                still += "; the process that sends them has failed (see tracker.log)"
        return [still, f"later: {self.command()}"]

    def _complaints(self, told: dict[str, Any]) -> list[str]:
        found = []
        if told["dropped"]:
            found.append(f"{told['dropped']} values were refused")
        if told["not_uploaded"]:
            found.append(f"not uploaded: {', '.join(told['not_uploaded'])}")
        return [f"tracking: {'; '.join(found)} (see tracker.log)"] if found else []

    def _status(self) -> dict[str, Any]:
        status = read(room(self._folder) / "status.json")
        return status if status.get("starts") == self._starts else {}

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal is meant for training alone.
        return subprocess.Popen(
            [*program("mmnet.track.ship"), str(self._folder), "--trainer", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=room(self._folder),
            env=environment(self._uri),
            start_new_session=True,
        )


def program(module: str) -> list[str]:
    """The words that start one of our modules, with its `environment`."""
    # -P: a file csv.py or a folder mlflow/ in the working directory is not meant.
    return [sys.executable, "-P", "-m", module]


def environment(uri: str) -> dict[str, str]:
    """What such a program finds in its environment: this package, and the store's address."""
    found = os.environ | {"OMP_NUM_THREADS": "1", URI: uri}
    place = str(Path(mmnet.__file__).resolve().parents[1])
    if place != sysconfig.get_path("purelib"):  # a checkout, perhaps not installed
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [place, found.get("PYTHONPATH")]))
    return found
