"""AdamW (Loshchilov & Hutter, arXiv 1711.05101), fused."""

import torch
from torch import nn

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.optimizer import decay_groups


def adamw(
    model: nn.Module,
    lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    betas: tuple[Fraction, Fraction],
    eps: PositiveFloat,
) -> torch.optim.AdamW:
    """torch's AdamW, one kernel a group."""
    groups = decay_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
