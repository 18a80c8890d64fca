"""Memory that is used again and again.

A picture that is decoded into memory fresh from the system takes a third more time, all of it
spent on getting that memory, page by page.
"""

import threading

import numpy as np
import numpy.typing as npt
from torch import Tensor


LARGEST = 32 << 20  # bytes; what needs more is rare, and would be kept for nothing

_kept = threading.local()


def scratch(use: str, size: int) -> npt.NDArray[np.uint8]:
    """[size], holding anything. The same memory as the last one for this use, in this thread."""
    if size > LARGEST:
        return np.empty(size, np.uint8)
    memory: npt.NDArray[np.uint8] | None = getattr(_kept, use, None)
    if memory is None or len(memory) < size:
        memory = np.empty(1 << (size - 1).bit_length(), np.uint8)
        setattr(_kept, use, memory)
    return memory[:size]


def own(made: Tensor, lent: Tensor) -> Tensor:
    """`made`, copied if it lies in the memory of `lent`."""
    shared = made.untyped_storage().data_ptr() == lent.untyped_storage().data_ptr()
    return made.clone() if shared else made
