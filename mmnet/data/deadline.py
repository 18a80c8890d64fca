"""A limit on the time that one sample may take, reading included."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType


SECONDS = 30.0  # a sample that takes longer is a bad one


class TooSlow(BaseException):
    """A sample took too long. Not an Exception: libraries catch those on the way."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"took longer than {seconds:g} s")


class Deadline:
    """`with Deadline(): ...` raises TooSlow when that is not done after `seconds`.

    Where signals allow it: in the main thread, which reads in a worker as well, on POSIX. A
    call into C ends before it is noticed. A timer that was set before goes on afterwards.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.works = os.name == "posix" and (threading.current_thread() is threading.main_thread())

    def __enter__(self) -> None:
        if not self.works:
            return
        self._began = time.monotonic()
        self._handler = signal.signal(signal.SIGALRM, self._stop)
        self._timer = signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.works:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        left, interval = self._timer
        if left:  # at once, if it would have struck meanwhile
            left = max(1e-6, left - (time.monotonic() - self._began))
            signal.setitimer(signal.ITIMER_REAL, left, interval)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        raise TooSlow(self.seconds)
