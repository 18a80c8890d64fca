"""NAdamW: Adam with Nesterov momentum and decoupled weight decay (Dozat 2016)."""

import torch
from torch import nn

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.optimizer import decay_groups


def nadamw(
    model: nn.Module,
    lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    betas: tuple[Fraction, Fraction],
    eps: PositiveFloat,
) -> torch.optim.NAdam:
    """torch's NAdam with its decay decoupled."""
    return torch.optim.NAdam(
        decay_groups(model, weight_decay),
        lr=lr,
        betas=betas,
        eps=eps,
        decoupled_weight_decay=True,
        foreach=True,
    )
