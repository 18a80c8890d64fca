"""The network: encoders, a fusion and a head, in that order."""

from typing import Any

from torch import Tensor, nn

from mmnet.compose import make
from mmnet.config import Run
from mmnet.interfaces import Inputs, Prepare


class Multimodal(nn.Module):
    """Encode each modality, fuse, answer. forward: {modality: Inputs} -> the head's [B, C]."""

    def __init__(self, encoders: dict[str, nn.Module], fusion: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.head = head

    def forward(self, inputs: dict[str, Inputs]) -> Tensor:
        features = {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}
        answer: Tensor = self.head(self.fusion(features))
        return answer

    def prepare(self) -> dict[str, Prepare]:
        """How each encoder wants its raw samples made into tensors."""
        encoders: dict[str, Any] = dict(self.encoders.items())
        return {name: encoder.prepare for name, encoder in encoders.items()}


def build(run: Run) -> Multimodal:
    """Build the parts in order; widths flow from what was built, not from the config."""
    encoders = {name: make(part) for name, part in run.encoder.items() if part}
    fusion = make(run.fusion, dims={name: encoder.dim for name, encoder in encoders.items()})
    head = make(run.head, dim=fusion.dim)
    if run.hardware.activation_checkpointing:
        for encoder in encoders.values():
            encoder.checkpoint_activations()
    return Multimodal(encoders, fusion, head)
