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
    """Within `with Deadline() as deadline`, TooSlow is raised SECONDS after a `begin`, unless
    `end` was called before.

    Where signals allow it: in the main thread, which reads in a worker as well, on POSIX. A
    call into C ends before it is noticed. A timer that was set before goes on afterwards.
    """

    def __init__(self) -> None:
        self._seconds = SECONDS
        main = threading.current_thread() is threading.main_thread()
        self._works = os.name == "posix" and main

    def __enter__(self) -> "Deadline":
        if self._works:
            self._began = time.monotonic()
            self._timer = signal.setitimer(signal.ITIMER_REAL, 0)
            self._handler = signal.signal(signal.SIGALRM, self._stop)
        return self

    def begin(self) -> None:
        if self._works:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def end(self) -> None:
        if self._works:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._works:
            return
        self.end()
        signal.signal(signal.SIGALRM, self._handler)
        left, interval = self._timer
        if left:  # at once, if it would have struck meanwhile
            left = max(1e-6, left - (time.monotonic() - self._began))
            signal.setitimer(signal.ITIMER_REAL, left, interval)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        raise TooSlow(self._seconds)
