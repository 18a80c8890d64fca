"""The contracts of the outer loop: what watches training, and what it may do to it."""

from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor

from mmnet.interfaces import Batch, Optimizer


class Plan(NamedTuple):
    """What a controller is told before the first step."""

    model: Any  # encoders, fusion, head
    optimizer: Optimizer
    steps: int  # of the whole run
    passes: float  # how often each sample will be seen
    meta: Any  # mmnet.meta_batch.MetaBatch; None where it asks for none


class Signal(NamedTuple):
    """What a controller may see of one optimizer step, before it is taken."""

    step: int  # counted from 1
    loss: float
    rate: float  # base rate x schedule
    clipped: float  # what gradients were multiplied with after they were unscaled
    seen: list[float]  # what its `look` asked for; empty if nothing


class Controller(Protocol):
    """The outer loop: watches training and sets the learning rates of `control` groups."""

    optimizers: ClassVar[tuple[str, ...]]  # those that it can steer; empty: all
    schedules: ClassVar[tuple[str, ...]]  # those that it goes with; empty: all
    by: Literal["parts", "blocks"] | None  # which parameters it steers together; None: none
    shadow: bool  # whether to train once more without it, see mmnet.shadow

    @property
    def meta_batch(self) -> int | None:
        """Training samples it wants kept from training; None: as many as is usual."""

    def begin(self, plan: Plan) -> None: ...

    def losing(self) -> dict[str, float]:
        """What the chance to lose a modality is multiplied with, by modality; empty: 1 each."""

    def look(self) -> Tensor | None:
        """Numbers on the device [n] to hand to `steer`, after backward; None: nothing now."""

    def steer(self, signal: Signal) -> None:
        """Before a step that will be taken: set "lr" of the optimizer's groups."""

    @property
    def decision(self) -> dict[str, float]:
        """What was decided for this step, and on what grounds; empty if nothing."""

    def rates(self) -> dict[str, float]:
        """The rate of each group in this step, by its name."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Balance(Protocol):
    """What is done in a step so that no encoder learns at the cost of the other."""

    labels: ClassVar[bool]  # whether it needs a head that learns from "label", and two encoders

    @property
    def meta_batch(self) -> int | None:
        """As a controller's."""

    def begin(self, plan: Plan) -> None: ...

    def loss(self, joint: Tensor, batch: Batch, share: float) -> Tensor:
        """What to minimise on a micro-batch that just went forward; share: of the step's samples.

        joint: mean of the head's loss over it.
        """

    def modulate(self) -> None:
        """Between backward and clipping: change gradients, which are unscaled."""

    def stepped(self) -> None:
        """After a step that was taken."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
