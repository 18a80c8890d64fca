"""A constant rate after the warm-up."""

from mmnet.bounds import Fraction
from mmnet.interfaces import Schedule
from mmnet.schedule import warmup


def constant(warmup_ratio: Fraction) -> Schedule:
    """Warm up and stay."""

    def factor(step: int, total: int) -> float:
        return warmup(step, total, warmup_ratio)[0]

    return factor
