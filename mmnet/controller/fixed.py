"""No outer loop."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from mmnet.outer import Plan, Signal


class Fixed:
    """Leaves the schedule's learning rate as it is."""

    optimizers: ClassVar[tuple[str, ...]] = ()
    schedules: ClassVar[tuple[str, ...]] = ()
    by: Literal["parts", "blocks"] | None = None
    shadow = False
    meta_batch = 0

    def begin(self, plan: Plan) -> None:
        pass

    def losing(self) -> dict[str, float]:
        return {}

    def look(self) -> Tensor | None:
        return None

    def steer(self, signal: Signal) -> None:
        pass

    @property
    def decision(self) -> dict[str, float]:
        return {}

    def rates(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
