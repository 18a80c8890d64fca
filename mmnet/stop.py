"""SIGTERM and SIGINT: finish the step, save, leave."""

import signal
from types import FrameType, TracebackType

from mmnet.errors import UserError


class Stopped(UserError):
    """The run was asked to stop; it has been saved."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {text}")
        self.exit_code = 128 + signum


class Stop:
    """Remembers that a signal came, while entered. A second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __enter__(self) -> "Stop":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signum = signum

    @property
    def requested(self) -> bool:
        return self.signum is not None
