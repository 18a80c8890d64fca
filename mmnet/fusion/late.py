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
        some = next(iter(features.values())).pooled
        size = some.shape[0]  # not len(), which an export would take for a constant
        vectors, present = {}, []
        for name, norm in self.norms.items():
            there = torch.full((size,), name in features, device=some.device)
            if name in features:
                vector = norm(features[name].pooled)
                found = features[name].present
                if found is not None:
                    there = found
                    vector = vector.masked_fill(~found[:, None], 0)
            else:
                vector = some.new_zeros(size, self.token_dims[name])
            vectors[name] = vector
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
