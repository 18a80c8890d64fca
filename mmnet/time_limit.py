"""A limit on computing time, for what cannot be counted beforehand."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class _Expired(BaseException):
    """Not an Exception: libraries catch those on the way."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so much computing, where signals allow it (POSIX, main thread)."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Expired

    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except _Expired:
        raise TimeoutError(f"not done after {seconds:g} seconds of computing") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
