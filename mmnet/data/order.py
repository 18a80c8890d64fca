"""Which sample comes when, and its random numbers: pure functions of (seed, epoch, index).

So a run goes on anywhere with nothing to restore but its step; any number of workers reads the
same sequence, and any number of ranks shares it out.
"""

import hashlib
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


BLOCK = 1000  # positions, about, in which the parts of a mixture have exactly their shares


class Drawn(NamedTuple):
    """What stands at a position; its random numbers depend on no more than this."""

    epoch: int
    number: int  # its index in the split


class Order(Protocol):
    """What stands where in the endless sequence of samples."""

    size: int  # positions of an epoch

    def __call__(self, positions: range) -> list[Drawn]: ...


class Share(NamedTuple):
    """Which part of each batch a process reads: number `rank` of `world`."""

    rank: int
    world: int

    def of(self, positions: range) -> range:
        """Its consecutive part; the parts of all ranks, in order, are all of them.

        Where they do not divide evenly some ranks have one more than others, and of fewer
        positions than ranks some have none.
        """
        size = len(positions)
        return positions[size * self.rank // self.world : size * (self.rank + 1) // self.world]


ALONE = Share(0, 1)


def epoch_order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """A random permutation of range(size)."""
    # Only the raw bits of NumPy's generators are promised to stay the same between versions;
    # `permutation` is not.
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(size)
    return np.argsort(bits, kind="stable")  # equal bits, should there be some, as they come


class Shuffled:
    """Epoch 0, epoch 1, ... of `size` samples, each once in an epoch, in an order of its own."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size
        # A batch touches two epochs at most, unless the split is tiny.
        self._epochs: OrderedDict[int, npt.NDArray[np.int64]] = OrderedDict()

    def __call__(self, positions: range) -> list[Drawn]:
        drawn: list[Drawn] = []
        position = positions.start
        while position < positions.stop:
            epoch, place = divmod(position, self.size)
            count = min(self.size - place, positions.stop - position)
            order = self._epoch(epoch)[place : place + count]
            drawn += [Drawn(epoch, index) for index in order.tolist()]
            position += count
        return drawn

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._epochs:
            self._epochs[epoch] = epoch_order(self.seed, epoch, self.size)
            while len(self._epochs) > 2:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]


class Mixture(NamedTuple):
    """Parts of a split, one behind the other, and how often each is drawn."""

    sizes: Sequence[int]
    weights: Sequence[float]


class Mixed:
    """Several parts by weight, each shuffled by itself, in epochs of its own.

    Of every block of about BLOCK positions each part has exactly its share, in an order that
    is drawn; the shares are those of the weights where they are ratios of small numbers, and
    within 1/2000 of them otherwise, but a part never has less than one. An index is that in
    all parts together, the epoch is the part's.
    """

    def __init__(self, seed: int, mixture: Mixture) -> None:
        self.size = sum(mixture.sizes)
        self._seed = seed
        self._starts = [0, *itertools.accumulate(mixture.sizes)]
        self._parts = [
            Shuffled(derived(seed, f"part {number}"), size)
            for number, size in enumerate(mixture.sizes)
        ]
        # Of a part that has lost all its samples nothing can be drawn.
        there = [w if size else 0 for size, w in zip(mixture.sizes, mixture.weights, strict=True)]
        self._counts = shares(there)
        self._block = int(sum(self._counts))

    def __call__(self, positions: range) -> list[Drawn]:
        drawn: list[Drawn] = []
        position = positions.start
        while position < positions.stop:
            block, place = divmod(position, self._block)
            count = min(self._block - place, positions.stop - position)
            drawn += self._of_block(block, place, place + count)
            position += count
        return drawn

    def _of_block(self, block: int, start: int, stop: int) -> list[Drawn]:
        parts = np.repeat(np.arange(len(self._counts)), self._counts)
        parts = parts[epoch_order(derived(self._seed, "blocks"), block, self._block)]
        found: list[Drawn] = [Drawn(0, 0)] * (stop - start)
        for number, (part, count) in enumerate(zip(self._parts, self._counts, strict=True)):
            places = np.flatnonzero(parts == number)
            first, last = np.searchsorted(places, (start, stop)).tolist()
            own = part(range(block * count + first, block * count + last))
            for place, (epoch, index) in zip(places[first:last].tolist(), own, strict=True):
                found[place - start] = Drawn(epoch, self._starts[number] + index)
        return found


def derived(seed: int, purpose: str) -> int:
    """Another seed for each purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big")


def shares(weights: Sequence[float]) -> list[int]:
    """How many of a block each part has."""
    given = [Fraction(str(weight)) for weight in weights]
    exact = [one / sum(given) for one in given]
    common = math.lcm(*(one.denominator for one in exact))
    block = common * (BLOCK // common) if common <= BLOCK else BLOCK
    return [max(1, round(one * block)) if one else 0 for one in exact]


# How long a sample is, given its random numbers.
Length = Callable[[int, random.Random], int]


class Bucketed:
    """Another order, in which samples of about one length stand together.

    Within a window of `batches` batches the samples are sorted by length, cut into batches, and
    the batches shuffled. A window ends where an epoch does, so that an epoch is still each
    sample once.
    """

    def __init__(
        self, order: Order, seed: int, batch_size: int, batches: int, length: Length
    ) -> None:
        self.size = order.size
        self._order, self._seed, self._length = order, seed, length
        self._batch, self._window = batch_size, batches * batch_size
        self._random = SampleRandom(seed)
        self._held: OrderedDict[range, list[Drawn]] = OrderedDict()

    def __call__(self, positions: range) -> list[Drawn]:
        drawn: list[Drawn] = []
        position = positions.start
        while position < positions.stop:
            window = self._around(position)
            stop = min(window.stop, positions.stop)
            drawn += self._sorted(window)[position - window.start : stop - window.start]
            position = stop
        return drawn

    def _around(self, position: int) -> range:
        """The window that a position is in."""
        window, epoch = position // self._window, position // self.size
        start = max(window * self._window, epoch * self.size)
        return range(start, min((window + 1) * self._window, (epoch + 1) * self.size))

    def _sorted(self, window: range) -> list[Drawn]:
        if window not in self._held:
            self._held[window] = self._sort(window)
            while len(self._held) > 2:  # a batch touches two of them at most, unless they are tiny
                self._held.popitem(last=False)
        return self._held[window]

    def _sort(self, window: range) -> list[Drawn]:
        drawn = self._order(window)
        lengths = [self._length(one.number, self._random.at(*one)) for one in drawn]
        by_length = [drawn[i] for i in np.argsort(lengths, kind="stable").tolist()]
        # Batches lie where the trainer cuts them; those at the ends may be parts of batches.
        first = -(-window.start // self._batch) * self._batch
        inner = range(first, window.stop, self._batch)
        borders = sorted({window.start, *inner, window.stop})
        pieces = list(itertools.pairwise(borders))
        found = list(drawn)
        taken = 0
        for number in epoch_order(derived(self._seed, "buckets"), window.start, len(pieces)):
            start, stop = (border - window.start for border in pieces[number])
            found[start:stop] = by_length[taken : taken + stop - start]
            taken += stop - start
        return found


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
        self.gauss_next = None  # which the sample before may have left
        return self

    def __reduce__(self) -> tuple[type["SampleRandom"], tuple[int]]:
        return type(self), (self._run >> 128,)

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
