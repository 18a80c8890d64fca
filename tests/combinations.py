"""Which encoders, fusions and heads go together, small enough to train a few steps each."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmnet.config import CONF


SEED = 0

# By group and file, at test sizes. None: without this modality.
IMAGES: dict[str | None, tuple[str, ...]] = {
    "vit_micro": (),
    "convnext_micro": (),
    "naflex_micro": (),
    None: (),
}
TEXTS: dict[str | None, tuple[str, ...]] = {
    "bytes_micro": (),
    "bytes_causal": ("encoder.text.dim=32", "encoder.text.depth=1", "encoder.text.num_heads=2"),
    "bert_micro": ("encoder.text.dim=32", "encoder.text.depth=1"),
    None: (),
}
TOKENWISE = ("early", "cross_attention", "bottleneck", "perceiver")
FUSIONS = sorted(
    path.stem for path in (CONF / "fusion").glob("*.yaml") if path.stem != "concat_micro"
)
HEADS = sorted(path.stem for path in (CONF / "head").glob("*.yaml"))

Combination = dict[str, str | None]


def words(one: Combination, vocabulary: Path) -> list[str]:
    """The command line of a combination."""
    image, text = one["image"], one["text"]
    found = [
        f"encoder/image={image}" if image else "~encoder/image",
        f"encoder/text={text}" if text else "~encoder/text",
        f"fusion={one['fusion']}",
        f"head={one['head']}",
        *IMAGES[image],
        *TEXTS[text],
    ]
    if text == "bert_micro":
        found.append(f"encoder.text.tokenizer={vocabulary}")
    if one["fusion"] in TOKENWISE:
        found += ["fusion.dim=32", "fusion.num_heads=2"]
    return found


def sensible(one: Combination) -> bool:
    """Whether it makes sense; what does not is refused by the config check."""
    both = one["image"] is not None and one["text"] is not None
    if one["image"] is None and one["text"] is None:
        return False
    if not both and one["fusion"] not in ("concat", "early", "perceiver", "separate"):
        return False
    if one["head"] == "contrastive":
        return both and one["fusion"] == "separate"
    if one["head"] == "matching":
        return both and one["fusion"] != "separate"
    if one["head"] == "masked_lm":
        return one["text"] is not None and (one["fusion"] != "separate" or not both)
    return one["fusion"] != "separate"


def everything() -> Iterator[Combination]:
    """The whole product, sensible or not."""
    for image, text, fusion, head in itertools.product(IMAGES, TEXTS, FUSIONS, HEADS):
        yield {"image": image, "text": text, "fusion": fusion, "head": head}


def pairwise(among: list[Combination]) -> list[Combination]:
    """Few of `among` that hold every pair of choices that any of them holds; greedy, seeded."""

    def pairs(one: Combination) -> set[Any]:
        return set(itertools.combinations(one.items(), 2))

    among = list(among)
    random.Random(SEED).shuffle(among)
    missing = set().union(*map(pairs, among))
    chosen = []
    while missing:
        best = max(among, key=lambda one: len(pairs(one) & missing))
        missing -= pairs(best)
        chosen.append(best)
    return chosen
