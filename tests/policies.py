"""Policies that are plain to foresee: linear ones, zero but for what a test puts in."""

from pathlib import Path

import torch

from mmnet.controller import policy
from mmnet.controller.features import ACTIONS, FEATURES


def plain(path: Path, rate: float = 0.0, strength: float = 0.0, tower: float = 0.0) -> Path:
    """A policy that always wants so much more of each action; of an encoder's rate also `tower`."""
    found = policy.fresh("linear", 0, torch.Generator().manual_seed(0))
    for one in found.weights.values():
        one.zero_()
    found.weights["bias"][..., ACTIONS.index("rate")] = rate
    found.weights["bias"][..., ACTIONS.index("strength")] = strength
    found.weights["skip"][:, FEATURES.index("tower"), ACTIONS.index("rate")] = tower
    policy.save(found, path, {})
    return path
