"""Text transformers of the BERT family from the transformers library."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertTokenizer, PretrainedConfig

from mmnet.bounds import Fraction, PositiveInt
from mmnet.errors import UserError, first_line
from mmnet.interfaces import Features, Inputs


# Threads inside the tokenizer gain nothing for one caption and warn when workers are forked.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# Encoders that take ids and a mask and give one hidden state a token.
FAMILY = ("albert", "bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta")


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

    def __call__(self, raw: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(raw).ids, dtype=torch.int64)

    def collate(self, tensors: list[Tensor]) -> Inputs:
        values = nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=self.pad)
        lengths = torch.tensor([len(tensor) for tensor in tensors])
        # By length, not by id: a caption may spell out the pad token.
        return Inputs(values, torch.arange(values.shape[1]) < lengths[:, None])

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))


class HuggingFace(nn.Module):
    """A transformers encoder without its pooler.

    `name` is a hub name or a local folder; None builds `architecture` from `dim`, `depth`
    and `num_heads` with random weights. `tokenizer` is a hub name, a local folder or a BERT
    vocab.txt. Weights come from safetensors only, and no code comes with them.

    forward: int64 [B, T], mask [B, T] -> tokens [B, T, D], pooled [B, D].
    """

    def __init__(
        self,
        name: str | None,
        architecture: Literal["bert", "distilbert", "roberta"] | None,
        tokenizer: str,
        pretrained: bool,
        max_length: PositiveInt,
        pooling: Literal["cls", "mean"],
        dim: PositiveInt | None,
        depth: PositiveInt | None,
        num_heads: PositiveInt | None,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.body: Any
        build: Any = AutoModel
        words = load_tokenizer(tokenizer)
        config = load_config(name, architecture, dim, depth, num_heads, dropout, words)
        check_fit(config, words, max_length)
        # A config may name half precision, but weights are trained in fp32.
        kwargs: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": torch.float32}
        if pretrained:
            assert name is not None  # see check
            try:
                self.body = build.from_pretrained(
                    name, config=config, trust_remote_code=False, use_safetensors=True, **kwargs
                )
            except (OSError, RuntimeError, ValueError, SafetensorError) as error:
                raise UserError(
                    f"encoder.text.pretrained: cannot load the weights of {name}: "
                    f"{first_line(error)}"
                ) from error
        else:
            self.body = build.from_config(config, trust_remote_code=False, **kwargs)
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None  # not ours to use, and weights without gradients
        self.dim: int = config.hidden_size
        self.pooling = pooling
        self.prepare = Tokenize(words, max_length)

    @staticmethod
    def check(
        name: str | None,
        architecture: str | None,
        tokenizer: str,
        pretrained: bool,
        max_length: int,
        dim: int | None,
        depth: int | None,
        num_heads: int | None,
        dropout: float,
        **_: Any,
    ) -> None:
        """Refuse what only transformers, the hub or the disk can tell, before anything is built.

        Raises UserError.
        """
        if name is None and pretrained:
            raise UserError("encoder.text.pretrained=true needs encoder.text.name")
        words = load_tokenizer(tokenizer)
        config = load_config(name, architecture, dim, depth, num_heads, dropout, words)
        check_fit(config, words, max_length)

    def forward(self, inputs: Inputs) -> Features:
        values, mask = inputs.values, inputs.mask
        assert mask is not None
        tokens = self.body(input_ids=values, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return Features(tokens, tokens[:, 0], mask)
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        return Features(tokens, (tokens * weight).sum(1) / weight.sum(1).clamp_min(1), mask)

    def checkpoint_activations(self) -> None:
        self.body.activation_checkpointing_enable({"use_reentrant": False})


def load_tokenizer(source: str) -> Any:
    """The fast tokenizer behind `source`. Raises UserError naming the key."""
    try:
        if source.endswith(".txt"):
            if not Path(source).is_file():
                raise OSError("no such file")
            return BertTokenizer(vocab=source)
        return AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False)  # nosec B615: no code comes with it
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder.text.tokenizer={source}: {first_line(error)} (expected a local folder, a "
            f"vocab.txt, or a hub name that is cached or can be reached)"
        ) from error


def load_config(
    name: str | None,
    architecture: str | None,
    dim: int | None,
    depth: int | None,
    num_heads: int | None,
    dropout: float,
    words: Any,
) -> PretrainedConfig:
    """The named model's config, or one built from the numbers. Raises UserError."""
    if name is None:
        if architecture is None or dim is None or depth is None or num_heads is None:
            raise UserError(
                "encoder.text: without a name, architecture, dim, depth and num_heads are needed"
            )
        config = AutoConfig.for_model(
            architecture,
            vocab_size=len(words),
            pad_token_id=words.pad_token_id,
            hidden_size=dim,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
        )
        set_known(config, ("intermediate_size", "hidden_dim"), 4 * dim)
        if architecture == "roberta":  # it counts positions from pad_token_id + 1
            config.max_position_embeddings = 514
    else:
        if not (architecture is None and dim is None and depth is None and num_heads is None):
            raise UserError(
                f"encoder.text.name={name} says its own architecture, dim, depth and num_heads: "
                f"leave them null, or set name=null to build from them"
            )
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)  # nosec B615: no code comes with it
        except (OSError, ValueError) as error:
            raise UserError(
                f"encoder.text.name={name}: {first_line(error)} (expected a local folder, or a "
                f"hub name that is cached or can be reached)"
            ) from error
    set_known(
        config,
        ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
        dropout,
    )
    return config


def set_known(config: PretrainedConfig, keys: tuple[str, ...], value: Any) -> None:
    """Set those of `keys` that this architecture has: each family spells them its own way."""
    for key in keys:
        if key in config.to_dict():
            setattr(config, key, value)


def check_fit(config: PretrainedConfig, words: Any, max_length: int) -> None:
    """Hold tokenizer and length against the model. Raises UserError."""
    if config.model_type not in FAMILY:
        raise UserError(
            f"encoder.text.name: a {config.model_type}; expected one of {', '.join(FAMILY)}"
        )
    if words.pad_token_id is None:
        raise UserError("encoder.text.tokenizer has no padding token")
    # These count positions from the padding token on.
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "mpnet") else 0
    limit = config.max_position_embeddings - offset
    if max_length > limit:
        raise UserError(
            f"encoder.text.max_length={max_length}: this {config.model_type} has {limit} positions"
        )
    if len(words) > config.vocab_size:
        raise UserError(
            f"encoder.text.tokenizer has {len(words)} tokens, the model's embedding "
            f"{config.vocab_size}: they do not belong together"
        )
