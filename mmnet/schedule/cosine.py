"""Cosine decay (SGDR without restarts; Loshchilov & Hutter, arXiv 1608.03983)."""

import math

from mmnet.bounds import Fraction, Share
from mmnet.interfaces import Schedule
from mmnet.schedule import warmup


def cosine(warmup_ratio: Fraction, final_ratio: Share) -> Schedule:
    """Warm up, then half a cosine from 1 down to `final_ratio`."""

    def factor(step: int, total: int) -> float:
        rise, progress = warmup(step, total, warmup_ratio)
        fall = (1 + math.cos(math.pi * progress)) / 2
        return rise * (final_ratio + (1 - final_ratio) * fall)

    return factor
