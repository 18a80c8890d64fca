"""Bounds on what a controller may do to a run, whatever its policy says."""

import math

import torch
from torch import Tensor

from mmnet.controller.features import BOUNDS, FLOOR


CHANGE = math.log(2.0)  # of a multiplier in one decision, at most: twice or half


# Of regularisation, whatever it is multiplied with:
LARGEST_DROPOUT = 0.75
LARGEST_SMOOTHING = 0.5


def moved(actions: Tensor, out: Tensor) -> Tensor:
    """The log multipliers [P, G, A] after a decision; out is the policy's, any real numbers."""
    bounds = BOUNDS.to(actions.device)
    return (actions + CHANGE * torch.tanh(out)).clamp(-bounds, bounds)


def largest_rate(weight: Tensor, update: Tensor, sizes: Tensor, rho_max: float) -> Tensor:
    """The rate [P, G] at which a group moves by `rho_max` of its norm.

    weight |theta|^2 and update |u|^2, [P, G] each; sizes [G].
    """
    norm = torch.maximum(weight.sqrt(), FLOOR * sizes.sqrt())
    return rho_max * norm / (update.sqrt() + 1e-12)
