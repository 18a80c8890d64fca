"""Nothing is done: each encoder learns as the joint loss has it."""

from typing import Any, ClassVar

from torch import Tensor

from mmnet.interfaces import Batch
from mmnet.outer import Plan


class Unbalanced:
    """Leaves loss and gradients as they are."""

    labels: ClassVar[bool] = False
    meta_batch: int | None = 0

    def begin(self, plan: Plan) -> None:
        pass

    def loss(self, joint: Tensor, batch: Batch, share: float) -> Tensor:
        return joint

    def modulate(self) -> None:
        pass

    def stepped(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
