"""A transformer over the bytes of a text: no vocabulary, no download."""

from typing import Any, Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmnet.bounds import Fraction, PositiveInt
from mmnet.encoder import padded, weights
from mmnet.encoder.pooling import Pooling
from mmnet.errors import UserError
from mmnet.interfaces import Features, Inputs


PAD, MASK = 256, 257  # past the last byte


class ToBytes:
    """Text -> int64 [T] of its UTF-8 bytes, at most `max_length` of them."""

    blank = " "
    vocab_size = MASK + 1
    mask_id: int | None = MASK
    special_ids = (PAD, MASK)

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.digest = f"bytes {max_length}"

    def __call__(self, raw: str) -> Tensor:
        return torch.tensor(list(raw.encode()[: self.max_length]), dtype=torch.int64)

    def collate(self, tensors: list[Tensor]) -> Inputs:
        return padded(tensors, PAD)

    def text(self, ids: list[int]) -> str:
        return bytes(token for token in ids if token < PAD).decode(errors="replace")

    def lengths(self, texts: list[str]) -> list[int]:
        return [min(len(text.encode()), self.max_length) for text in texts]


class Bytes(nn.Module):
    """Pre-norm transformer over UTF-8 bytes.

    The tokenizer-free reading of ByT5 (Xue et al., arXiv 2105.13626), in small. `causal`: a byte
    sees itself and those before it, as in CLIP's text tower (Radford et al., arXiv 2103.00020),
    which pools at the last. `pretrained` is None or a .safetensors file of such a tower, that of
    a run included, see mmnet.encoder.weights.

    forward: int64 [B, T], mask [B, T] -> tokens [B, T, D], pooled [B, D].
    """

    def __init__(
        self,
        pretrained: str | None,
        max_length: PositiveInt,
        causal: bool,
        pooling: Literal["mean", "attention", "last"],
        dim: PositiveInt,
        depth: PositiveInt,
        num_heads: PositiveInt,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.causal = causal
        self.prepare = ToBytes(max_length)
        self.embed = nn.Embedding(ToBytes.vocab_size, dim, padding_idx=PAD)
        self.position = nn.Parameter(torch.empty(max_length, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, qkv_bias=True, proj_drop=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.pool = Pooling(pooling, dim)
        self.recompute = False
        nn.init.normal_(self.position, std=0.02)
        nn.init.normal_(self.embed.weight, std=0.02)
        if pretrained is not None:
            weights.load(self, pretrained, "text")

    @staticmethod
    def check(pretrained: str | None, **_: Any) -> None:
        """Refuse a file that is not there. Raises UserError."""
        if pretrained == "hub":
            raise UserError("encoder.text.pretrained=hub: no weights of this tower are published")
        weights.check_source("text", pretrained)

    def forward(self, inputs: Inputs) -> Features:
        values, mask = inputs.values, inputs.mask
        assert mask is not None
        x = self.dropout(self.embed(values) + self.position[: values.shape[1]])
        attend = mask[:, None, None, :]  # [B, 1, 1, T]: every query may see the real keys
        if self.causal:
            length = values.shape[1]
            earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
            attend = attend & earlier  # [B, 1, T, T]
        for block in self.blocks:
            x = run(block, x, attend, self.recompute and self.training)
        tokens = self.norm(x)
        return Features(tokens, self.pool(tokens, mask), mask)

    def layers(self) -> list[list[nn.Module | nn.Parameter]]:
        blocks: list[list[nn.Module | nn.Parameter]] = [[block] for block in self.blocks]
        return [[self.embed, self.position], *blocks, [self.norm]]

    def pooling(self) -> list[nn.Module]:
        return [self.pool]

    def checkpoint_activations(self) -> None:
        self.recompute = True


def run(block: nn.Module, x: Tensor, attend: Tensor, recompute: bool) -> Any:
    """One block, its activations kept for backward or computed again."""
    if recompute:
        return checkpoint(block, x, attend, use_reentrant=False)
    return block(x, attend)
