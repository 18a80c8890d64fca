"""Transformer blocks over tokens of which masks say what may be seen."""

from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F


def block(dim: int, num_heads: int, dropout: float) -> Block:
    """timm's: pre-norm self-attention and MLP. forward: x [B, T, dim], attend = keys(visible)."""
    return Block(dim, num_heads, qkv_bias=True, proj_drop=dropout)


def keys(visible: Tensor | None) -> Tensor | None:
    """Which tokens may be seen, bool [B, T] -> an attention mask [B, 1, 1, T].

    A row that may see nothing sees everything instead: that is finite in every attention kernel,
    and what comes of it is left out by the caller.
    """
    if visible is None:
        return None
    return (visible | ~visible.any(1, keepdim=True))[:, None, None]


class CrossAttend(nn.Module):
    """Pre-norm cross-attention: to each token is added what it takes from others.

    forward: x [B, T, dim], others [B, S, dim], visible bool [B, S] or None -> [B, T, dim].
    A row that may see nothing stays as it is.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = (num_heads, dim // num_heads)
        self.norm = nn.LayerNorm(dim)
        self.others_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, others: Tensor, visible: Tensor | None) -> Tensor:
        query = self.query(self.norm(x)).unflatten(-1, self.heads).transpose(1, 2)
        pair = self.key_value(self.others_norm(others)).unflatten(-1, (2, *self.heads))
        key, value = pair.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, S, dim / heads]
        taken: Tensor = F.scaled_dot_product_attention(query, key, value, attn_mask=keys(visible))
        taken = self.dropout(self.out(taken.transpose(1, 2).flatten(2)))
        if visible is not None:
            taken = taken.masked_fill(~visible.any(1)[:, None, None], 0)
        return x + taken


class CrossBlock(nn.Module):
    """Cross-attention where `crosses`, then self-attention, then an MLP.

    forward: x [B, T, dim] and attend = keys(visible of x); others and visible as in CrossAttend,
    which is left out when others is None.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, crosses: bool) -> None:
        super().__init__()
        self.cross = CrossAttend(dim, num_heads, dropout) if crosses else None
        self.block = block(dim, num_heads, dropout)

    def forward(
        self, x: Tensor, attend: Tensor | None, others: Tensor | None, visible: Tensor | None
    ) -> Tensor:
        if self.cross is not None and others is not None:
            x = self.cross(x, others, visible)
        x = self.block(x, attend)
        return x


def masked_mean(x: Tensor, visible: Tensor | None) -> Tensor:
    """x [B, N, ...] -> [B, ...], the mean over those of N that are visible [B, N]; 0 of none."""
    if visible is None:
        return x.mean(1)
    shown = visible.view(*visible.shape, *[1] * (x.ndim - 2))
    return x.masked_fill(~shown, 0).sum(1) / shown.sum(1).clamp_min(1)
