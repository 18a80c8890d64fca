"""Schedule-Free AdamW (Defazio et al., arXiv 2405.15682), from the schedulefree package."""

from schedulefree import AdamWScheduleFree
from torch import nn

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.optimizer import decay_groups


def schedule_free(
    model: nn.Module,
    lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    betas: tuple[Fraction, Fraction],
    eps: PositiveFloat,
) -> AdamWScheduleFree:
    """The package's own; the loop evaluates and saves its averaged weights (mmnet.average)."""
    optimizer = AdamWScheduleFree(
        decay_groups(model, weight_decay), lr=lr, betas=betas, eps=eps, foreach=True
    )
    optimizer.train()
    return optimizer
