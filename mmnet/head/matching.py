"""Does the text belong to the image?"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction
from mmnet.interfaces import Answers, Features, Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Matching(nn.Module):
    """A yes or no for each pair. forward: joint [B, dim] -> {"match": logits [B]}.

    With `hard_negatives`, and in training only, each sample's image is also joined with the text
    of another group that is nearest to its own text, and its text with the nearest image, by
    cosine of what the encoders say (ALBEF, Li et al., arXiv 2107.07651, with a similarity for
    each modality). forward adds logits [B] "other_text", "other_image", and "text_from",
    "image_from" int64 [B]: whose these are, -1 where there is no other. They count as further
    samples that do not match, as far as that is sure: a text is known to be wrong for the images
    of other groups only if it is right for its own.
    """

    targets: ClassVar[tuple[str, ...]] = ("match", "group")
    needs: ClassVar[Literal["joint"]] = "joint"
    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    whole_batch: ClassVar[bool] = False
    higher_is_better: ClassVar[dict[str, bool]] = {"accuracy": True, "auroc": True}

    def __init__(self, dim: int, fusion: Any, hard_negatives: bool, dropout: Fraction) -> None:
        super().__init__()
        # In a tuple, so that it does not become part of this module: it is the network's.
        self.fusion = (fusion,)
        self.hard_negatives = hard_negatives
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(dim, 1)

    def forward(self, fused: Fused) -> Answers:
        answers = {"match": self.score(fused)}
        mining = self.hard_negatives and self.training and fused.groups is not None
        if mining and {"image", "text"} <= fused.features.keys():
            answers |= self.mined(fused)
        return answers

    def score(self, fused: Fused) -> Tensor:
        """-> [B]"""
        assert fused.joint is not None
        logits: Tensor = self.logits(self.dropout(fused.joint)).squeeze(-1)
        return logits

    def mined(self, fused: Fused) -> dict[str, Tensor]:
        """Answers to pairs of different groups that look alike."""
        assert fused.groups is not None
        image, text = fused.features["image"], fused.features["text"]
        both = image.there() & text.there()
        text_from = nearest(text.pooled, fused.groups, both, text.there())
        image_from = nearest(image.pooled, fused.groups, both, image.there())
        pairs = {
            "image": stacked(image, taken(image, image_from)),
            "text": stacked(taken(text, text_from), text),
        }
        pairs = {name: pairs[name] for name in fused.features}  # in the fusion's order
        other_text, other_image = self.score(self.fusion[0](pairs)).chunk(2)
        return {
            "other_text": other_text,
            "other_image": other_image,
            "text_from": text_from,
            "image_from": image_from,
        }

    def loss(self, answers: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        match = targets["match"]
        own = F.binary_cross_entropy_with_logits(answers["match"].float(), match.float())
        if "other_text" not in answers:
            return own
        text_from, image_from = answers["text_from"], answers["image_from"]
        sure_of_text = (text_from >= 0) & (match[text_from.clamp_min(0)] == 1)
        sure_of_image = (image_from >= 0) & (match == 1)
        others = torch.cat([answers["other_text"], answers["other_image"]]).float()
        sure = torch.cat([sure_of_text, sure_of_image])
        wrong = F.softplus(others).where(sure, 0.0).sum()
        return (own * len(match) + wrong) / (len(match) + sure.sum())

    def metrics(self) -> "MetricCollection":
        from torchmetrics import MetricCollection
        from torchmetrics.classification import BinaryAccuracy

        from mmnet.head.scores import YesNoAUROC

        return MetricCollection(
            {"accuracy": BinaryAccuracy(), "auroc": YesNoAUROC()}, compute_groups=False
        )

    def update(
        self, metrics: "MetricCollection", answers: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> None:
        metrics.update(answers["match"].float().sigmoid(), targets["match"])

    def words(
        self, answers: dict[str, Tensor], targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        says = {True: "belongs", False: "does not"}
        chances = answers["match"].float().sigmoid().tolist()
        return [
            (
                says[truth == 1],
                f"{says[chance > 0.5]}  {max(chance, 1 - chance):.0%}",
                (chance > 0.5) == (truth == 1),
            )
            for truth, chance in zip(targets["match"].tolist(), chances, strict=True)
        ]


def nearest(pooled: Tensor, groups: Tensor, asking: Tensor, known: Tensor) -> Tensor:
    """int64 [B]: for each sample that is `asking`, who of another group is most alike.

    Only those that are `known` can be; -1 where nobody is.
    """
    with torch.autocast(pooled.device.type, enabled=False):
        unit = F.normalize(pooled.detach().float(), dim=-1)
        alike = unit @ unit.T
    possible = (groups[:, None] != groups) & asking[:, None] & known
    index = alike.masked_fill(~possible, -torch.inf).argmax(1)
    return index.where(possible.any(1), -1)


def taken(features: Features, index: Tensor) -> Features:
    """Row `index` of each [B]; where that is -1, any."""
    index = index.clamp_min(0)
    return Features(
        features.tokens[index],
        features.pooled[index],
        None if features.mask is None else features.mask[index],
        None if features.present is None else features.present[index],
    )


def stacked(one: Features, other: Features) -> Features:
    """[B] and [B] of one modality -> [2B]"""

    def both(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        return None if x is None or y is None else torch.cat([x, y])

    return Features(
        torch.cat([one.tokens, other.tokens]),
        torch.cat([one.pooled, other.pooled]),
        both(one.mask, other.mask),
        both(one.present, other.present),
    )
