"""Text transformers of the BERT family from the transformers library."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig
from transformers.utils import logging as transformers_logging

from mmnet.bounds import Fraction, PositiveInt
from mmnet.encoder import hub, padded, weights
from mmnet.encoder.pooling import Pooling
from mmnet.encoder.text.sources import check_fit, load_config, load_tokenizer
from mmnet.errors import UserError, first_line
from mmnet.interfaces import Features, Inputs


# Threads inside the tokenizer gain nothing for one caption and warn when workers are forked.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Tokenize:
    """Text -> int64 [T] token ids, special tokens included, at most `max_length` of them."""

    blank = ""  # the special tokens alone

    def __init__(self, words: Any, max_length: int) -> None:
        self.tokenizer: Tokenizer = words.backend_tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)
        self.pad: int = words.pad_token_id
        self.vocab_size = len(words)
        self.mask_id: int | None = words.mask_token_id
        self.special_ids = tuple(words.all_special_ids)
        self.digest = hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def __call__(self, raw: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(raw).ids, dtype=torch.int64)

    def collate(self, tensors: list[Tensor]) -> Inputs:
        return padded(tensors, self.pad)

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(one) for one in self.tokenizer.encode_batch_fast(texts)]


class HuggingFace(nn.Module):
    """A transformers encoder without its pooler: the BERT family, or CLIP's causal text tower.

    `name` is a hub name or a local folder; None builds `architecture` from `dim`, `depth`
    and `num_heads`. `tokenizer` is a hub name, a local folder or a BERT vocab.txt. `pretrained`
    is None (random weights), "hub" (those published as `name`, or in its folder) or a
    .safetensors file, see mmnet.encoder.weights. No code comes with them.

    forward: int64 [B, T], mask [B, T] -> tokens [B, T, D], pooled [B, D].
    """

    def __init__(
        self,
        name: str | None,
        architecture: Literal["bert", "distilbert", "roberta", "modernbert", "clip"] | None,
        tokenizer: str,
        pretrained: str | None,
        max_length: PositiveInt,
        pooling: Literal["cls", "mean", "attention", "last"],
        dim: PositiveInt | None,
        depth: PositiveInt | None,
        num_heads: PositiveInt | None,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        words = load_tokenizer(tokenizer)
        config = load_config(name, architecture, dim, depth, num_heads, dropout, words)
        check_fit(config, words, max_length, pooling)
        self.body: Any
        self.body = load_body(name, config) if pretrained == "hub" else new_body(config)
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None  # not ours to use, and weights without gradients
        self.dim: int = config.hidden_size
        self.pool = Pooling(pooling, self.dim)
        self.prepare = Tokenize(words, max_length)
        if pretrained not in (None, "hub"):
            weights.load(self, str(pretrained), "text", own="body.")

    @staticmethod
    def check(
        name: str | None,
        architecture: str | None,
        tokenizer: str,
        pretrained: str | None,
        max_length: int,
        pooling: str,
        dim: int | None,
        depth: int | None,
        num_heads: int | None,
        dropout: float,
        **_: Any,
    ) -> None:
        """Refuse what only transformers, the hub or the disk can tell, before anything is built.

        Raises UserError.
        """
        weights.check_source("text", pretrained)
        if name is None and pretrained == "hub":
            raise UserError("encoder.text.pretrained=hub needs encoder.text.name")
        words = load_tokenizer(tokenizer)
        config = load_config(name, architecture, dim, depth, num_heads, dropout, words)
        check_fit(config, words, max_length, pooling)

    def forward(self, inputs: Inputs) -> Features:
        values, mask = inputs.values, inputs.mask
        assert mask is not None
        tokens = self.body(input_ids=values, attention_mask=mask.long()).last_hidden_state
        return Features(tokens, self.pool(tokens, mask), mask)

    def layers(self) -> list[list[nn.Module | nn.Parameter]]:
        place, blocks = next(
            (name, part) for name, part in self.body.named_modules() if type(part) is nn.ModuleList
        )
        before: list[nn.Module | nn.Parameter] = []
        after: list[nn.Module | nn.Parameter] = []
        for name, parameter in self.body.named_parameters():
            if not name.startswith(f"{place}."):
                (after if name.startswith("final") else before).append(parameter)
        trunk: list[list[nn.Module | nn.Parameter]] = [[block] for block in blocks]
        return [before, *trunk, after]

    def pooling(self) -> list[nn.Module]:
        return [self.pool]

    def checkpoint_activations(self) -> None:
        self.body.activation_checkpointing_enable({"use_reentrant": False})


def new_body(config: PretrainedConfig) -> nn.Module:
    """The model that a config describes, its weights drawn at random."""
    build: Any = AutoModel
    body: nn.Module = build.from_config(config, trust_remote_code=False, dtype=torch.float32)
    return body


def load_body(name: str | None, config: PretrainedConfig) -> nn.Module:
    """The model with its published weights, from safetensors only. Raises UserError."""
    build: Any = AutoModel
    source = f"encoder.text.pretrained=hub: {name}"
    try:
        with silence(), hub.asked(str(name)):
            body, found = build.from_pretrained(
                name,
                config=config,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,  # a config may name half precision
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"encoder.text.pretrained: cannot load the weights of {name}: {first_line(error)}"
        ) from error
    missing = sorted(n for n in found["missing_keys"] if not n.startswith("pooler."))
    matched = [n for n in body.state_dict() if n not in missing and not n.startswith("pooler.")]
    weights.Report(matched, missing, sorted(found["unexpected_keys"]), []).settle(source)
    loaded: nn.Module = body
    return loaded


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the library's progress bars and its own report: ours is one line."""
    chatter: Any = transformers_logging
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()
