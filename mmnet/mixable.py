"""Where pictures can be mixed with each other (dataset.augment.mixup and cutmix)."""

from collections.abc import Iterator
from typing import Any

from mmnet.rules import Blame


# Heads that learn from shares of labels, and the encoder whose pictures have no one shape.
HEADS = ("mmnet.head.classification.Classification", "mmnet.head.multilabel.Multilabel")
SHAPELESS = "mmnet.encoder.image.naflex.NaFlex"


def unmixable(values: dict[str, Any]) -> Iterator[Blame]:
    """What is asked to be mixed and cannot be."""
    image, head = values.get("encoder.image._target_"), values.get("head._target_")
    for key in ("dataset.augment.mixup", "dataset.augment.cutmix"):
        if not values.get(key):
            continue
        if "encoder.text._target_" in values:
            yield (
                (key, "encoder.text._target_"),
                "a text cannot be mixed with another: leave it out (~encoder/text), or set "
                f"{key}=0",
            )
        if image == SHAPELESS:
            yield (
                (key, "encoder.image._target_"),
                "pictures of different shapes cannot be mixed: choose an encoder of one size, "
                f"or set {key}=0",
            )
        if head is not None and head not in HEADS:
            yield (
                (key, "head._target_"),
                "what this head learns from cannot be mixed: choose head=classification or "
                f"head=multilabel, or set {key}=0",
            )
