"""A linear classifier on what each encoder pools: what the encoder could say alone."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.interfaces import Batch, Features
from mmnet.outer import Plan


class Unimodal:
    """Classifiers by encoder, outside the network, trained by an AdamW of their own.

    `features` holds what the encoders made of the last batch that went through the network, with
    its graph.
    """

    def __init__(self, plan: Plan, lr: float) -> None:
        self.encoders: dict[str, Any] = dict(plan.model.encoders.items())
        device = next(plan.model.parameters()).device
        classes = plan.model.head.num_classes
        generator = torch.Generator().manual_seed(0)  # and not a number from the run's own
        self.heads = nn.ModuleDict()
        for name, encoder in self.encoders.items():
            head = nn.Linear(encoder.dim, classes, device="meta").to_empty(device="cpu")
            bound = encoder.dim**-0.5
            with torch.no_grad():
                head.weight.uniform_(-bound, bound, generator=generator)
                head.bias.zero_()
            self.heads[name] = head.to(device)
        self.optimizer = torch.optim.AdamW(self.heads.parameters(), lr=lr, weight_decay=0.01)
        self.features: dict[str, Features] = {}
        for name, encoder in self.encoders.items():
            encoder.register_forward_hook(self.keep(name))

    def keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Features) -> None:
            self.features[name] = output

        return hook

    def logits(self, name: str, batch: Batch, detached: bool) -> Tensor:
        """[B', C] of the samples that have the modality; `detached`: the encoder learns nothing."""
        pooled = self.features[name].pooled.float()
        rows = batch.inputs[name].present
        if rows is not None:
            pooled = pooled[rows]
        logits: Tensor = self.heads[name](pooled.detach() if detached else pooled)
        return logits

    def labels(self, name: str, batch: Batch) -> Tensor:
        """[B'] likewise."""
        label, rows = batch.targets["label"], batch.inputs[name].present
        return label if rows is None else label[rows]

    def loss(self, name: str, batch: Batch, detached: bool = False) -> Tensor:
        """Mean cross-entropy over the samples that have the modality; 0 where none has."""
        logits = self.logits(name, batch, detached)
        if not len(logits):
            return logits.sum()
        return F.cross_entropy(logits, self.labels(name, batch))

    def step(self) -> None:
        """Of the classifiers alone."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])


class Probed:
    """What ways of balancing that have such classifiers share."""

    labels: ClassVar[bool] = True
    meta_batch: int | None = 0
    unimodal: Unimodal

    def stepped(self) -> None:
        """After the optimizer's step."""
        self.unimodal.step()

    def state_dict(self) -> dict[str, Any]:
        return self.unimodal.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.unimodal.load_state_dict(state)


def tower_parameters(plan: Plan) -> dict[str, list[nn.Parameter]]:
    """What learns in each encoder."""
    return {
        name: [p for p in encoder.parameters() if p.requires_grad]
        for name, encoder in plan.model.encoders.items()
    }
