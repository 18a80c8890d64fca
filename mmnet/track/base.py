"""The contract of a tracker, and the words it shares with the loop."""

from pathlib import Path
from typing import Any, Literal, Protocol


# One line of metrics.jsonl: {"step": 12, "time": 1700000000.123, "train/loss": 0.5, ...}
Line = dict[str, Any]

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """Shows a run somewhere else than in its folder. Never stops or slows the run.

    The order of calls: `check` before anything expensive, `start` once the run folder holds
    config.yaml and record.json, `log` with each line that Recorder.log returned, and
    `finish` after Recorder.close, when summary.json, the plots and the weights are there.
    """

    def check(self) -> None:
        """Raises UserError if this tracker cannot work here. Imports nothing heavy."""

    def start(self, folder: Path) -> None:
        """Begin, or go on with, the run of this folder."""

    def log(self, line: Line) -> None:
        """Take one line of metrics."""

    def finish(self, status: Status) -> list[str]:
        """Hand over what is owed, within a bounded time; never raises.

        Returns lines that tell the user where to look.
        """
