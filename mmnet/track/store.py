"""The contract of a store that the shipper fills, and what it does about refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mmnet.track.spool import Point


T = TypeVar("T")


class Away(Exception):
    """The store does not answer, or takes nothing now. Trying later may help."""


class Refused(Exception):
    """The store works, and will never take this."""


class Store(Protocol):
    """Where the shipper sends a run. Every call raises Away or Refused and nothing else.

    A call is repeated after Away, also when it had succeeded and only the answer was lost:
    doing it twice must be the same as doing it once.
    """

    def open(self) -> dict[str, Any]:
        """Find or make the run; returns its address, which goes to tracker.json."""

    def send(self, points: list[Point]) -> None:
        """All of them or none."""

    def upload(self, file: Path) -> None:
        """A file of the run folder, under its path there."""

    def close(self, status: str, milliseconds: int) -> None:
        """The run ended this way, at this unix time."""


def deliver(send: Callable[[list[T]], None], items: list[T]) -> list[tuple[T, str]]:
    """Send all, in parts where one is refused; returns those that are refused alone, and why.

    Raises Away.
    """
    if not items:
        return []
    try:
        send(items)
    except Refused as refused:
        if len(items) == 1:
            return [(items[0], str(refused))]
        half = len(items) // 2
        return deliver(send, items[:half]) + deliver(send, items[half:])
    return []
