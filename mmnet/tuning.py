"""How much of an encoder is trained, and how fast: freezing, layer-wise rates, LoRA.

Counted in the layers of `Encoder.layers`: embeddings, block 1, block 2, ..., what follows. A
pooling that the encoder adds on top is new, belongs to none of them, and is always trained.

Frozen parameters get no gradient and no place in an optimizer. Their layers still drop out
in training as all others do.
"""

import logging
from collections.abc import Iterable
from typing import Any

from torch import nn

from mmnet.config import Tuning
from mmnet.encoder import parameters_of
from mmnet.errors import UserError


log = logging.getLogger(__name__)

Layer = Iterable[nn.Module | nn.Parameter]


def tune(encoder: Any, tuning: Tuning, modality: str) -> None:
    """Prepare an encoder, its weights in place, for training as `tuning` says.

    A parameter's share of the learning rate becomes its attribute `lr_scale`, which
    mmnet.optimizer reads. Raises UserError for what this encoder cannot do.
    """
    key = f"tuning.{modality}"
    layers = encoder.layers()
    if tuning.freeze is not None:
        if tuning.freeze != "all" and tuning.freeze >= len(layers):
            raise UserError(
                f"{key}.freeze={tuning.freeze}: this encoder has {len(layers)} layers "
                f"(embeddings, {len(layers) - 2} blocks, what follows): write all, or less"
            )
        freeze(layers if tuning.freeze == "all" else layers[: tuning.freeze])
    if tuning.lora_rank is not None:
        freeze(layers)
        add_adapters(encoder, layers[1:-1], tuning, key)
    for above, layer in enumerate(reversed(layers)):
        for parameter in parameters_of(layer):
            setattr(parameter, "lr_scale", tuning.layer_decay**above)  # noqa: B010 (not declared)
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    total = sum(p.numel() for p in encoder.parameters())
    if trained < total:
        log.info(
            "encoder.%s: %s of %s parameters are trained", modality, f"{trained:,}", f"{total:,}"
        )


def leave_pooling(encoder: Any, modality: str, fusion: str) -> None:
    """Train nothing of how an encoder pools, where nobody reads what it pools."""
    idle = [p for p in parameters_of(encoder.pooling()) if p.requires_grad]
    for parameter in idle:
        parameter.requires_grad_(False)
    if idle:
        log.info(
            "encoder.%s: %s parameters of its pooling are not trained, for %s reads tokens",
            modality,
            f"{sum(p.numel() for p in idle):,}",
            fusion,
        )


def freeze(layers: Iterable[Layer]) -> None:
    for layer in layers:
        for parameter in parameters_of(layer):
            parameter.requires_grad_(False)


def add_adapters(encoder: nn.Module, blocks: list[Layer], tuning: Tuning, key: str) -> None:
    """LoRA (Hu et al., arXiv 2106.09685) in every linear layer of the blocks, by peft, in place.

    What adapters add is zero at first. Raises UserError.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"{key}.lora_rank={tuning.lora_rank} needs: pip install peft") from error
    inside = {id(parameter) for block in blocks for parameter in parameters_of(block)}
    linear = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) in inside
    ]
    if not linear:
        raise UserError(
            f"{key}.lora_rank={tuning.lora_rank}: the blocks of this encoder have no linear layers"
        )
    assert tuning.lora_rank is not None
    others = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    inject_adapter_in_model(
        LoraConfig(
            r=tuning.lora_rank,
            lora_alpha=tuning.lora_alpha,
            lora_dropout=tuning.lora_dropout,
            target_modules=linear,
        ),
        encoder,
    )
    for parameter in others:  # peft leaves nothing but its own trained
        parameter.requires_grad_(True)
