"""Weight decay, dropout, modality dropout and label smoothing of a run, each times a number."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmnet.controller.guard import LARGEST_DROPOUT, LARGEST_SMOOTHING


class SteeredDropout(nn.Module):
    """nn.Dropout whose share is a tensor, so that a new one needs no new compilation.

    The share is in no checkpoint: it follows from the controller's state.
    """

    share: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        self.register_buffer("share", torch.tensor(share), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept: Tensor = torch.rand_like(x) >= self.share
        return x * (kept / (1 - self.share)).to(x.dtype)


class Dropping(NamedTuple):
    """One dropout of the network."""

    module: SteeredDropout
    group: str
    share: float  # by the settings


class Regularisation:
    """What the settings of a run regularise with, by control group; what is 0 there stays 0.

    A group's strength multiplies the weight decay of its parameters, the dropout (nn.Dropout)
    inside it, for the head's group label smoothing, and for a tower's modality dropout. Puts a
    `SteeredDropout` in the place of each dropout of the network.
    """

    def __init__(self, model: nn.Module, optimizer: Any, names: list[str]) -> None:
        self.names = names
        # By place: a checkpoint brings other dicts.
        self.optimizer = optimizer
        self.decays = [group["weight_decay"] for group in optimizer.param_groups]
        self.dropouts = list(steer(model))
        self.heads: list[Any] = [one for one in model.modules() if hasattr(one, "smoothed")]
        self.strength = dict.fromkeys(names, 1.0)

    def set(self, strength: dict[str, float]) -> None:
        """What each group's regularisation is multiplied with from now on."""
        self.strength = strength
        for group, decay in zip(self.optimizer.param_groups, self.decays, strict=True):
            group["weight_decay"] = decay * strength[group["control"]]
        for dropout in self.dropouts:
            dropout.module.share.fill_(self.share(dropout))
        for head in self.heads:
            head.smoothed = min(LARGEST_SMOOTHING, head.label_smoothing * strength["head"])

    def share(self, dropout: Dropping) -> float:
        return min(LARGEST_DROPOUT, dropout.share * self.strength[dropout.group])

    def dropped(self) -> Tensor:
        """[1, G]: the mean share that dropout drops in each group, 0 where there is none."""
        found = []
        for name in self.names:
            shares = [self.share(dropout) for dropout in self.dropouts if dropout.group == name]
            found.append(sum(shares) / max(1, len(shares)))
        return torch.tensor([found])


def steer(model: nn.Module) -> "list[Dropping]":
    """Replace each dropout that drops anything."""
    found = []
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout) and module.p:
            group = group_of(model, path)
            device = next(model.parameters()).device
            mine = SteeredDropout(module.p).to(device).train(module.training)
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, mine)
            found.append(Dropping(mine, group, module.p))
    return found


def group_of(model: nn.Module, path: str) -> str:
    """The control group of what is nearest around a module that has parameters."""
    while path:
        path = path.rpartition(".")[0]
        for parameter in model.get_submodule(path).parameters():
            return str(parameter.control)  # type: ignore[attr-defined]  # see groups.mark
    raise AssertionError("a network without parameters")
