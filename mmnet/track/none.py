"""No tracking beyond the run folder."""

from pathlib import Path

from mmnet.track.base import Line, Status


class Nowhere:
    """metrics.jsonl, summary.json and the plots are all there is."""

    def check(self) -> None:
        pass

    def start(self, folder: Path) -> None:
        pass

    def log(self, line: Line) -> None:
        pass

    def finish(self, status: Status) -> list[str]:
        return []
