"""No fusion: the modalities stay apart, for heads that compare them."""

from typing import ClassVar

from torch import nn

from mmnet.interfaces import Features, Fused


class Separate(nn.Module):
    """Hands on what the encoders made; nothing is joined and nothing is trained.

    forward: {modality: Features} -> joint None, tokens as they were.
    """

    joins: ClassVar[bool] = False
    pools: ClassVar[bool] = False
    modalities: ClassVar[int] = 1

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.dim = 0
        self.token_dims = dict(dims)

    def forward(self, features: dict[str, Features]) -> Fused:
        return Fused(None, {name: one.tokens for name, one in features.items()}, features)

    def checkpoint_activations(self) -> None:
        """Nothing to save: there is no activation."""
