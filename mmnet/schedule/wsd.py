"""Warm-up, stable, decay (Hu et al., arXiv 2404.06395)."""

from mmnet.bounds import Fraction, Share
from mmnet.interfaces import Schedule
from mmnet.schedule import warmup


def wsd(warmup_ratio: Fraction, decay_ratio: Share, final_ratio: Share) -> Schedule:
    """Warm up, hold, and fall in a straight line over the last `decay_ratio` of the run."""

    def factor(step: int, total: int) -> float:
        rise, _ = warmup(step, total, warmup_ratio)
        steps = round(decay_ratio * total)
        progress = max(0.0, (step - 1 - (total - steps)) / steps) if steps else 0.0
        return rise * (final_ratio + (1 - final_ratio) * (1 - progress))

    return factor
