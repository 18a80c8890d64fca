"""Depth that grows: the last blocks of the encoders join later, and change nothing when they do."""

from typing import Any

import torch
from torch import Tensor, nn

from mmnet.bounds import NonNegativeInt, Share
from mmnet.errors import UserError
from mmnet.outer import Plan


# What a block of either family multiplies its branches with last; where it is zero, the block
# hands on what it was given.
LAST = ("attn.proj", "mlp.fc2")


class Growth:
    """The last `blocks` blocks of each encoder are left out until share `at` of the run.

    Their last projections are zero from the beginning, so that a checkpoint of the shallow
    network, run whole, is the same function (Chen et al., Net2Net, arXiv 1511.05641).
    """

    def __init__(self, blocks: NonNegativeInt, at: Share) -> None:
        self.count, self.at = blocks, at

    def begin(self, plan: Plan) -> None:
        """Raises UserError for encoders whose blocks cannot be made to change nothing."""
        self.grown_at = round(self.at * plan.steps)
        self.blocks: list[nn.Module] = []
        for name, encoder in plan.model.encoders.items() if self.count else ():
            _, *blocks, _ = encoder.layers()
            if self.count >= len(blocks):
                raise UserError(
                    f"controller.grow.blocks={self.count}: encoder/{name} has {len(blocks)} "
                    f"blocks, and at least one must be there from the beginning"
                )
            for (block,) in blocks[-self.count :]:
                empty(block, name)
                self.blocks.append(block)
        self.absent = bool(self.blocks) and self.grown_at > 0
        if self.absent:
            self.leave_out()

    def leave_out(self) -> None:
        for block in self.blocks:
            block.forward = handed_on

    def prepare(self, step: int) -> dict[str, float]:
        """Before step `step`, counted from 0. -> what happened, for the record."""
        if not self.absent or step < self.grown_at:
            return {}
        self.join()
        return {"grown": float(len(self.blocks))}

    def join(self) -> None:
        self.absent = False
        for block in self.blocks:
            vars(block).pop("forward", None)

    def state_dict(self) -> dict[str, Any]:
        return {"absent": self.absent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.absent and not state["absent"]:
            self.join()


def handed_on(x: Tensor, *_: Any, **__: Any) -> Tensor:
    """A block that is not there."""
    return x


def empty(block: nn.Module | nn.Parameter, encoder: str) -> None:
    """Make a block hand on what it is given. Raises UserError."""
    found = [module for name, module in named(block) if name in LAST]
    if len(found) != len(LAST) or any(not isinstance(module, nn.Linear) for module in found):
        raise UserError(
            f"controller.grow.blocks: the blocks of encoder/{encoder} ({type(block).__name__}) "
            f"add nothing to what they are given only if they normalise before, as those of "
            f"timm and encoder/text=bytes do: set it to 0"
        )
    with torch.no_grad():
        for module in found:
            for parameter in module.parameters():
                parameter.zero_()


def named(block: nn.Module | nn.Parameter) -> list[tuple[str, nn.Module]]:
    return list(block.named_modules()) if isinstance(block, nn.Module) else []
