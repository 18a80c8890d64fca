"""One vector of many tokens: the first, their mean, what a learned query attends to, the last."""

from typing import Literal

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn


Method = Literal["cls", "mean", "attention", "last"]


class Pooling(nn.Module):
    """Tokens [B, T, D] and their mask [B, T] (True: real; None: all are) -> [B, D].

    `cls` takes the first token, `last` the last real one (as CLIP's text tower does), `mean`
    averages the real ones. `attention` lets a learned query attend to the real ones and adds an
    MLP: the multi-head attention pooling of Set Transformer (Lee et al., arXiv 1810.00825) as
    SigLIP has it (Zhai et al., arXiv 2303.15343), in timm's implementation.
    """

    def __init__(self, method: Method, dim: int) -> None:
        super().__init__()
        self.method = method
        if method == "attention":
            self.attend = AttentionPoolLatent(
                dim, num_heads=heads(dim), mlp_ratio=4.0, norm_layer=nn.LayerNorm
            )

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if self.method == "cls":
            return tokens[:, 0]
        if self.method == "attention":
            visible = None if mask is None else mask[:, None, None, :]  # one query for all heads
            attended: Tensor = self.attend(tokens, attn_mask=visible)
            return attended
        if self.method == "last":
            if mask is None:
                return tokens[:, -1]
            row = torch.arange(tokens.shape[0], device=tokens.device)
            return tokens[row, mask.sum(1) - 1]
        if mask is None:
            return tokens.mean(1)
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1)


def heads(dim: int) -> int:
    """Attention heads of 64 channels, as ViTs have them; one where that does not divide."""
    return dim // 64 if dim % 64 == 0 else 1
