"""torch's random numbers for a moment, for what draws from nowhere else."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch draws what follows from `seed`; the run's own numbers stay as they are."""
    generator = torch.default_generator
    before = generator.get_state()
    try:
        generator.manual_seed(seed)
        yield
    finally:
        generator.set_state(before)
