"""MMPareto: each encoder descends on the joint loss and on its own at once."""

import torch
from torch import Tensor

from mmnet.balance.unimodal import Probed, Unimodal, tower_parameters
from mmnet.bounds import PositiveFloat
from mmnet.interfaces import Batch
from mmnet.outer import Plan


class MMPareto(Probed):
    """Gradients of an encoder for the joint loss and for its own classifier's, brought together.

    Wei & Hu, arXiv 2405.17730: where they agree they are added; where they conflict, the
    direction is that of the shortest vector between them, which descends on both. Its length is
    that of the plain sum times `gamma`.
    """

    def __init__(self, gamma: PositiveFloat, head_lr: PositiveFloat) -> None:
        self.gamma, self.head_lr = gamma, head_lr

    def begin(self, plan: Plan) -> None:
        self.unimodal = Unimodal(plan, self.head_lr)
        self.towers = tower_parameters(plan)
        self.own: dict[str, list[Tensor]] = {}

    def loss(self, joint: Tensor, batch: Batch, share: float) -> Tensor:
        """Keeps the gradients of the encoders' own losses; the joint one stays what it is."""
        for name, parameters in self.towers.items():
            if name not in batch.inputs or not parameters:
                continue
            head = list(self.unimodal.heads[name].parameters())
            loss = share * self.unimodal.loss(name, batch)
            found = torch.autograd.grad(
                loss, [*head, *parameters], retain_graph=True, allow_unused=True
            )
            for parameter, gradient in zip(head, found[: len(head)], strict=True):
                if gradient is not None:
                    parameter.grad = gradient + (0 if parameter.grad is None else parameter.grad)
            mine = [
                torch.zeros_like(parameter) if gradient is None else gradient
                for parameter, gradient in zip(parameters, found[len(head) :], strict=True)
            ]
            before = self.own.get(name, [torch.zeros_like(p) for p in parameters])
            self.own[name] = [a + b for a, b in zip(before, mine, strict=True)]
        return joint

    @torch.no_grad()
    def modulate(self) -> None:
        """Between backward and clipping."""
        for name, own in self.own.items():
            parameters = self.towers[name]
            joint = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            aa, ab, bb = (inner(x, y) for x, y in ((joint, joint), (joint, own), (own, own)))
            # The shortest point between them; 1/2 each where they do not conflict.
            shortest = ((bb - ab) / (aa - 2 * ab + bb).clamp_min(1e-20)).clamp(0, 1)
            share = torch.where(ab < 0, shortest, 0.5)
            whole = (aa + 2 * ab + bb).clamp_min(0).sqrt()
            mixed = share**2 * aa + 2 * share * (1 - share) * ab + (1 - share) ** 2 * bb
            scale = self.gamma * whole / mixed.clamp_min(1e-20).sqrt()
            for parameter, one, other in zip(parameters, joint, own, strict=True):
                parameter.grad = (scale * (share * one + (1 - share) * other)).to(parameter.dtype)
        self.own = {}


def inner(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """The dot product over all tensors, fp32."""
    return torch.stack([(a * b).sum().float() for a, b in zip(one, other, strict=True)]).sum()
