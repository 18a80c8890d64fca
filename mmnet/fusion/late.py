"""What late fusions share: pooled vectors in, one joint vector out, tokens as they were."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmnet.interfaces import Features, Fused


class Late(nn.Module):
    """A fusion of pooled vectors: say in `join` how one vector is made of them."""

    joins: ClassVar[bool] = True

    def __init__(self, dims: dict[str, int], dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.token_dims = dict(dims)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name, width in dims.items()})

    def forward(self, features: dict[str, Features]) -> Fused:
        tokens = {name: one.tokens for name, one in features.items()}
        return Fused(self.join(features), tokens, features)

    def join(self, features: dict[str, Features]) -> Tensor:
        """-> [B, dim]"""
        raise NotImplementedError

    def vectors(self, features: dict[str, Features]) -> tuple[dict[str, Tensor], Tensor]:
        """Each modality's normalised pooled vector, zero where it is missing; who is present.

        -> {modality: [B, D]}, bool [B, M] in the order of `dims`.
        """
        some = next(iter(features.values())).pooled
        vectors, present = {}, []
        for name, norm in self.norms.items():
            there = some.new_zeros(len(some), dtype=torch.bool)
            vector = some.new_zeros(len(some), self.token_dims[name])
            if name in features:
                vector = norm(features[name].pooled)
                found = features[name].present
                there = torch.ones_like(there) if found is None else found
                if found is not None:
                    vector = vector.masked_fill(~found[:, None], 0)
            vectors[name] = vector
            present.append(there)
        return vectors, torch.stack(present, 1)

    def checkpoint_activations(self) -> None:
        """Nothing to save: one vector a sample and layer."""
