"""Muon (Jordan et al. 2024) for hidden matrices, AdamW for everything else."""

from typing import Any

import torch
from torch import nn

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.optimizer import by_rate, decay_groups


class Pair:
    """Two optimizers over disjoint parameters, stepped together as one."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.both = (first, second)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.both for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.both:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.both:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        first, second = self.both
        return {"first": first.state_dict(), "second": second.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        first, second = self.both
        first.load_state_dict(state_dict["first"])
        second.load_state_dict(state_dict["second"])


def muon(
    model: nn.Module,
    lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    momentum: Fraction,
    betas: tuple[Fraction, Fraction],
    eps: PositiveFloat,
) -> Pair | torch.optim.Optimizer:
    """torch's Muon on the linear layers below the head, AdamW on the rest.

    Muon's update is scaled to the size of AdamW's (Moonlight, arXiv 2502.16982), so that
    one `lr` and one `weight_decay` serve both.
    """
    hidden = hidden_matrices(model)
    rest = decay_groups(model, weight_decay, leave_out={id(weight) for weight in hidden})
    both: list[torch.optim.Optimizer] = []
    if hidden:
        both.append(
            torch.optim.Muon(
                by_rate(hidden),
                lr=lr,
                weight_decay=weight_decay,
                momentum=momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if rest:
        both.append(torch.optim.AdamW(rest, lr=lr, betas=betas, eps=eps, fused=True))
    return Pair(*both) if len(both) == 2 else both[0]


def hidden_matrices(model: nn.Module) -> list[torch.Tensor]:
    """Trainable weights of linear layers that are not part of the head."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not name.startswith("head.")
        and module.weight.requires_grad
    ]
