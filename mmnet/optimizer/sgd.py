"""Stochastic gradient descent with momentum, fused."""

import torch
from torch import nn

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.optimizer import decay_groups


def sgd(
    model: nn.Module,
    lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    momentum: Fraction,
    nesterov: bool,
) -> torch.optim.SGD:
    """torch's SGD. Nesterov's look-ahead needs a momentum above 0 (torch says so)."""
    groups = decay_groups(model, weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
