"""A controller that tells what the process cost until its first step was done, and waits."""

import json
import os
import signal
import time
from pathlib import Path

from mmnet.controller.fixed import Fixed


class Stamp(Fixed):
    """Its rates are asked for after each optimizer step; the first question is never answered."""

    def __init__(self, file: str) -> None:
        self.file = file

    def rates(self) -> dict[str, float]:
        leave(self.file)
        return {}


def leave(file: str) -> None:
    """Write the time and this process's CPU seconds, its finished helpers included; wait."""
    spent = os.times()
    cpu = spent.user + spent.system + spent.children_user + spent.children_system
    path = Path(file)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"cpu": cpu, "time": time.time()}))
    temporary.rename(path)
    signal.pause()
