"""Which text stands beside a picture, where a head learns whether the two belong together."""

import random
from collections.abc import Callable


TRIES = 20  # draws before the rest of the split is gone through in order


def fits(index: int, rng: random.Random | None) -> bool:
    """Half of the samples: by chance, and in evaluation (no `rng`) those of even index."""
    return index % 2 == 0 if rng is None else rng.random() < 0.5


def another(
    index: int, size: int, rng: random.Random | None, same: Callable[[int], bool]
) -> int | None:
    """Some other of `size` positions, `same` not being true of it; None if there is none.

    Each is as likely as any other, so that a text tells nothing of whether it fits. Without
    `rng` the choice depends on `index` alone.
    """
    chance = rng or random.Random(index)
    for _ in range(TRIES if size > 1 else 0):
        other = (index + chance.randrange(1, size)) % size
        if not same(other):
            return other
    rest = ((index + step) % size for step in range(1, size))
    return next((other for other in rest if not same(other)), None)
