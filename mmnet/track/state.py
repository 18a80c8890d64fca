"""The folder `tracker/` of a run: what the training process and the shipper tell each other.

    settings.json    what to send where, and how often the run was started; by the trainer
    end.json         how the run ended; by the trainer
    sent.json        how far metrics.jsonl and system.jsonl were accepted; by the shipper
    status.json      how it goes; by the shipper
    system.jsonl     readings of CPU, memory, disk, network and GPU; by the shipper
    lock             held by the one shipper that works for this folder

Beside it, in the run folder, are tracker.json, the address of the run in its store, and
tracker.log. Every .json file is replaced whole.
"""

import json
from pathlib import Path
from typing import Any

from mmnet.folder import put


# In the shipper's environment: the store's full address, which may hold a password.
URI = "MMNET_TRACKING_URI"


def room(folder: Path) -> Path:
    return folder / "tracker"


def write(path: Path, value: dict[str, Any]) -> None:
    put(path, json.dumps(value, indent=1))


def read(path: Path) -> dict[str, Any]:
    """What the file holds; {} where it is missing or was lost in a power cut."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
