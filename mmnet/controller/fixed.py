"""No outer loop."""

from typing import Any

from mmnet.interfaces import Signal


class Fixed:
    """Leaves the schedule's learning rate as it is."""

    def __call__(self, signal: Signal) -> float:
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
