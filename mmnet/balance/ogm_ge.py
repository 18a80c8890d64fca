"""On-the-fly gradient modulation with generalisation enhancement."""

import torch
from torch import Tensor

from mmnet.balance.unimodal import Probed, Unimodal, tower_parameters
from mmnet.bounds import PositiveFloat
from mmnet.interfaces import Batch
from mmnet.outer import Plan


class OgmGe(Probed):
    """The encoder that is ahead learns more slowly (Peng et al., arXiv 2203.15332).

    How far it is ahead: the probability that a classifier on its features gives to the right
    class, over the mean of the others'; r > 1 multiplies its gradient with 1 - tanh(alpha r).
    `noise` adds Gaussian noise of the size of the gradient's own spread to matrices, as the paper
    does to convolutions. The classifiers are probes on detached features, with rate `probe_lr`,
    since not every fusion has a linear layer that could be split by modality.
    """

    def __init__(self, alpha: PositiveFloat, noise: bool, probe_lr: PositiveFloat) -> None:
        self.alpha, self.noise, self.probe_lr = alpha, noise, probe_lr

    def begin(self, plan: Plan) -> None:
        self.unimodal = Unimodal(plan, self.probe_lr)
        self.towers = tower_parameters(plan)
        self.right: dict[str, Tensor] = {}

    def loss(self, joint: Tensor, batch: Batch, share: float) -> Tensor:
        """Trains the probes on the side; the joint loss stays what it is."""
        for name in self.unimodal.heads:
            if name not in batch.inputs:
                continue
            probe = share * self.unimodal.loss(name, batch, detached=True)
            probe.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                chances = self.unimodal.logits(name, batch, detached=True).softmax(-1)
                labels = self.unimodal.labels(name, batch)
                mean = chances.gather(1, labels[:, None]).mean().nan_to_num(0.0)
            self.right[name] = self.right.get(name, 0) + share * mean
        return joint

    @torch.no_grad()
    def modulate(self) -> None:
        """Between backward and clipping."""
        for name, mine in self.right.items():
            others = [other for key, other in self.right.items() if key != name]
            ahead = mine / (torch.stack(others).mean() + 1e-8) if others else mine * 0
            factor = torch.where(ahead > 1, 1 - torch.tanh(self.alpha * ahead), 1.0)
            for parameter in self.towers[name]:
                if parameter.grad is None:
                    continue
                parameter.grad.mul_(factor.to(parameter.grad.dtype))
                if self.noise and parameter.ndim > 1:
                    spread = parameter.grad.std() + 1e-8
                    parameter.grad.add_(torch.randn_like(parameter.grad) * spread)
        self.right = {}
