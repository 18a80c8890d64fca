"""Which sample comes when, and its random numbers: pure functions of (seed, epoch, index).

So a run goes on anywhere with nothing to restore but its step, and any number of workers
reads the same sequence.
"""

import functools
import random

import numpy as np
import numpy.typing as npt


@functools.lru_cache(maxsize=2)  # a batch touches two epochs at most, unless the split is tiny
def epoch_order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """A random permutation of range(size)."""
    # Only the raw bits of NumPy's generators are promised to stay the same between versions;
    # `permutation` is not.
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(size)
    order = np.argsort(bits, kind="stable")
    order.setflags(write=False)  # the cache hands out the same array again
    return order


def draw(seed: int, size: int, positions: range) -> list[tuple[int, int]]:
    """(epoch, index) of each position of the endless sequence epoch 0, epoch 1, ..."""
    drawn: list[tuple[int, int]] = []
    position = positions.start
    while position < positions.stop:
        epoch, place = divmod(position, size)
        count = min(size - place, positions.stop - position)
        order = epoch_order(seed, epoch, size)[place : place + count]
        drawn += [(epoch, index) for index in order.tolist()]
        position += count
    return drawn


class SampleRandom(random.Random):
    """Random numbers that depend on (seed, epoch, index) alone.

    One object serves all samples: `at` points it to one. Seeding costs 3 us, so it waits for
    the first draw, which many samples never make.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(0)
        self._run = seed << 128
        self._due: int | None = None

    def at(self, epoch: int, index: int) -> "SampleRandom":
        self._due = self._run | epoch << 64 | index
        return self

    def random(self) -> float:
        self._settle()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self._settle()
        return super().getrandbits(k)

    def _settle(self) -> None:
        if self._due is not None:
            self.seed(self._due)
            self._due = None
