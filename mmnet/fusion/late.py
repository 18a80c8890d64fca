"""What late fusions share: pooled vectors in, one joint vector out, tokens as they were."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmnet.fusion import refuse_others
from mmnet.interfaces import Features, Fused


class Late(nn.Module):
    """A fusion of pooled vectors: say in `join` how one vector is made of them.

    Raises UserError when there are fewer encoders than it joins.
    """

    joins: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    modalities: ClassVar[int]

    def __init__(self, dims: dict[str, int], dim: int) -> None:
        super().__init__()
        refuse_others(dims, type(self).__name__, self.modalities)
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

        -> {modality: [B, D]}, bool [B, M], both in the order of `dims`.
        """
        some = next(iter(features.values()))
        vectors, present = {}, []
        for name, norm in self.norms.items():
            if name in features:
                there = features[name].there()
                vectors[name] = norm(features[name].pooled)
                if features[name].present is not None:
                    vectors[name] = vectors[name].masked_fill(~there[:, None], 0)
            else:
                there = torch.zeros_like(some.there())
                size = some.pooled.shape[0]  # not len(), which an export takes for a constant
                vectors[name] = some.pooled.new_zeros(size, self.token_dims[name])
            present.append(there)
        return vectors, torch.stack(present, 1)

    def checkpoint_activations(self) -> None:
        """Nothing to save: one vector a sample and layer."""


def shares(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the modalities that are there.

    scores [B, M, ...], present bool [B, M] -> [B, M, ...]; equal shares where none is there.
    """
    absent = ~present.view(*present.shape, *[1] * (scores.ndim - 2))
    return scores.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(1)
