"""Prodigy (Mishchenko & Defazio, arXiv 2306.06101): AdamW that finds its rate by itself."""

from prodigyopt import Prodigy
from torch import nn

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.optimizer import decay_groups


def prodigy(
    model: nn.Module,
    lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    betas: tuple[Fraction, Fraction],
    eps: PositiveFloat,
) -> Prodigy:
    """The package's own. `lr` multiplies the rate that it finds, 1 unless that is unstable."""
    return Prodigy(
        decay_groups(model, weight_decay),
        lr=lr,
        betas=betas,
        eps=eps,
        safeguard_warmup=True,  # our schedules warm up
    )
