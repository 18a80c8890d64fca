"""A controller that tells what the process cost until its first step was done, and waits."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from mmnet.interfaces import Signal


class Stamp:
    """Called by the loop after each optimizer step; the first call never returns."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, signal: Signal) -> float:
        leave(self.file)
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def leave(file: str) -> None:
    """Write the time and this process's CPU seconds, its finished helpers included; wait."""
    spent = os.times()
    cpu = spent.user + spent.system + spent.children_user + spent.children_system
    path = Path(file)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"cpu": cpu, "time": time.time()}))
    temporary.rename(path)
    signal.pause()
