"""What the transformers library has of a text tower: its tokenizer and its config."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, BertTokenizer, PretrainedConfig

from mmnet.encoder import hub
from mmnet.errors import UserError, first_line


# Encoders that take ids and a mask and give one hidden state a token.
FAMILY = ("albert", "bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta")
CAUSAL = ("clip_text_model",)  # a token sees itself and those before it
# What they call the dropout of hidden states and of attention.
DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
    *("embedding_dropout", "mlp_dropout"),
)


def load_tokenizer(source: str) -> Any:
    """The fast tokenizer behind `source`. Raises UserError naming the key."""
    try:
        if source.endswith(".txt"):
            if not Path(source).is_file():
                raise OSError("no such file")
            return BertTokenizer(vocab=source)
        if not Path(source).exists():
            hub.look_for_it()
        return AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False)  # nosec B615: no code comes with it
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder.text.tokenizer={source}: {first_line(error)} (expected a local folder, a "
            f"vocab.txt such as BERT's, or a hub name that is cached or can be reached; "
            f"encoder/text=bytes needs none)"
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
            "clip_text_model" if architecture == "clip" else architecture,
            vocab_size=len(words),
            pad_token_id=words.pad_token_id,
            **specials(architecture, words),
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
        if not Path(name).exists():
            hub.look_for_it()
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)  # nosec B615: no code comes with it
        except (OSError, ValueError) as error:
            raise UserError(
                f"encoder.text.name={name}: {first_line(error)} (expected a local folder, or a "
                f"hub name that is cached or can be reached)"
            ) from error
        if config.model_type == "clip":  # both towers
            config = config.text_config
    set_known(config, DROPOUTS, dropout)
    return config


def specials(architecture: str, words: Any) -> dict[str, int | None]:
    """Ids of the first and the last token of a text, which not every tokenizer has by that name."""
    first, last = (words.cls_token_id, words.bos_token_id), (words.sep_token_id, words.eos_token_id)
    begin, end = (next((one for one in ids if one is not None), None) for ids in (first, last))
    more = {"cls_token_id": begin, "sep_token_id": end} if architecture == "modernbert" else {}
    return {"bos_token_id": begin, "eos_token_id": end, **more}


def set_known(config: PretrainedConfig, keys: tuple[str, ...], value: Any) -> None:
    """Set those of `keys` that this architecture has: each family spells them its own way."""
    for key in keys:
        if key in config.to_dict():
            setattr(config, key, value)


def check_fit(config: PretrainedConfig, words: Any, max_length: int, pooling: str) -> None:
    """Hold tokenizer, length and pooling against the model. Raises UserError."""
    if config.model_type not in (*FAMILY, *CAUSAL):
        raise UserError(
            f"encoder.text.name: a {config.model_type}; expected one of {', '.join(FAMILY)}, clip"
        )
    if config.model_type in CAUSAL and pooling == "cls":
        raise UserError(
            "encoder.text.pooling=cls: the first token of a causal tower sees none but itself; "
            "it could be last, mean or attention"
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
