"""Linear decay."""

from mmnet.bounds import Fraction, Share
from mmnet.interfaces import Schedule
from mmnet.schedule import warmup


def linear(warmup_ratio: Fraction, final_ratio: Share) -> Schedule:
    """Warm up, then a straight line from 1 down to `final_ratio`."""

    def factor(step: int, total: int) -> float:
        rise, progress = warmup(step, total, warmup_ratio)
        return rise * (final_ratio + (1 - final_ratio) * (1 - progress))

    return factor
