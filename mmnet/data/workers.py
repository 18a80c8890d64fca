"""Processes that read data: started, fed in order, and left to end with the trainer."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from mmnet.errors import UserError


T = TypeVar("T")

# A terminal or a scheduler sends them to every process, and the trainer wants to save first.
# Elsewhere than on Linux a worker could not tell the trainer's own SIGTERM from theirs.
GROUP_SIGNALS = [signal.SIGINT, signal.SIGTERM] if sys.platform == "linux" else [signal.SIGINT]


def in_workers(
    reader: Dataset[T], asked: Iterator[Any], num_workers: int, pin_memory: bool
) -> Iterator[T]:
    """What `reader` makes of each thing asked, in order, made by so many processes.

    Raises UserError when one of them fails, and what `asked` raises.
    """
    loader: DataLoader[T] = DataLoader(
        reader,
        batch_size=None,  # a slice is a batch already
        sampler=asked,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_trainer,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else its seed is drawn from the run's own numbers
    )
    try:
        yield from _started(loader)
    except Exception as error:
        if isinstance(error, UserError) and not str(error).startswith("Caught "):
            raise  # by what is asked, in this process
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"reading data in workers failed: {said[-1]}. hardware.num_workers={num_workers}: "
            f"fewer workers need less memory, and 0 reads in the training process, where an "
            f"error shows its origin"
        ) from error


def _started(loader: "DataLoader[T]") -> Iterator[T]:
    """Start the workers, without the handler by which torch raises their death anywhere.

    It would strike in the middle of whatever the trainer is doing. Waiting for the next batch
    finds a dead worker as well, within five seconds.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    # Workers are born with these signals blocked, so that there is no moment without.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        with warnings.catch_warnings():
            # Python 3.12 and later: true, and so it is of every DataLoader.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            iterator = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if threading.current_thread() is threading.main_thread():
        theirs = str(getattr(handler, "__module__", "")).startswith("torch.")  # another loader's
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if theirs or not handler else handler)
    return iterator


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Obey the trainer's own SIGTERM only; torch's workers leave when their parent has gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    if signal.SIGTERM in GROUP_SIGNALS:
        threading.Thread(target=_leave_when_the_trainer_says_so, daemon=True).start()


def _leave_when_the_trainer_says_so() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
