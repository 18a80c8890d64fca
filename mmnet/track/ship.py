"""Sends the metrics and files of a run folder to its tracking store.

    python -m mmnet.track.ship <run folder>

A process of its own, so that a store that is slow, frozen or away costs training nothing.
Training starts it by itself; by hand it sends what is still owed. It reads metrics.jsonl and
nothing in memory of the training process, so it can be killed and started again at any time.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from mmnet.redact import REDACTED, redact
from mmnet.track.shipment import Shipment, say
from mmnet.track.spool import owed
from mmnet.track.state import URI, read, room


_BY_HAND = 30.0  # seconds a command typed by hand goes on when the store is away


def address(settings: dict[str, Any]) -> str:
    """The store's full address; in the run folder it is kept without its password."""
    stored = str(settings["uri"])
    for name in (URI, "MLFLOW_TRACKING_URI"):
        given = os.environ.get(name, "")
        if redact(given) == stored:
            return given
    if REDACTED in stored:
        sys.exit(f"set MLFLOW_TRACKING_URI to the address that is written here as {stored}")
    return stored


def limit_mlflow() -> None:
    """Before mlflow is imported: its own patience would sleep for minutes past a store's return."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def prepare(folder: Path, trainer: int | None) -> Shipment:
    """Import what the store needs, for seconds, and make everything ready."""
    settings = read(room(folder) / "settings.json")
    linger = _BY_HAND if trainer is None else settings["linger"]
    if settings["kind"] == "wandb":
        from mmnet.track.wandb_store import WandbStore

        return Shipment(folder, settings, WandbStore(folder, settings), None, trainer, linger)

    psutil.cpu_percent()  # says the share since the last call: here begins the first reading's
    from mmnet.track.mlflow_store import MlflowStore
    from mmnet.track.system import Monitors

    store = MlflowStore(folder, settings, address(settings))
    monitors = None if trainer is None else Monitors(room(folder), settings["system_every"])
    return Shipment(folder, settings, store, monitors, trainer, linger)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mmnet.track.ship", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run folder")
    parser.add_argument("--trainer", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder.resolve()
    if not (room(folder) / "settings.json").exists():
        sys.exit(f"{folder}: nothing here was ever meant for a tracking store")
    limit_mlflow()
    if given.trainer is not None:
        os.nice(10)
    try:
        # A shipper that is being replaced may be in the middle of an upload.
        with FileLock(room(folder) / "lock", timeout=600 if given.trainer else 2):
            state = prepare(folder, given.trainer).run()
    except Timeout:
        sys.exit(f"{folder}: another shipper is at work; see {folder / 'tracker.log'}")
    except Exception as error:
        say(folder, f"the shipper failed: {error!r}")
        raise
    if given.trainer is None:
        left = owed(folder)
        print(f"{left} values are still owed" if left else "everything was sent")
        sys.exit(1 if state == "owed" else 0)


if __name__ == "__main__":
    main()
