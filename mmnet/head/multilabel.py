"""Any number of labels a sample."""

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat
from mmnet.interfaces import Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Multilabel(nn.Module):
    """A yes or no for each label. forward: joint [B, dim] -> logits [B, C].

    Loss: mean over labels, then over samples, of binary cross-entropy, or of the asymmetric loss
    (Ridnik et al., arXiv 2009.14119), by which the many easy absent labels do not drown the few
    that hold. `positive_weight` multiplies the terms of labels that hold. Labels of which nobody
    knows (NaN) are left out of the means and of the metrics; a sample of none but such costs 0.
    """

    targets: ClassVar[tuple[str, ...]] = ("labels",)
    needs: ClassVar[Literal["joint"]] = "joint"
    modalities: ClassVar[tuple[str, ...]] = ()
    whole_batch: ClassVar[bool] = False
    higher_is_better: ClassVar[dict[str, bool]] = {"mAP": True, "macro_f1": True, "auroc": True}

    def __init__(
        self,
        dim: int,
        num_labels: int,
        loss: Literal["bce", "asymmetric"],
        gamma_negative: NonNegativeFloat,
        gamma_positive: NonNegativeFloat,
        clip: Fraction,
        positive_weight: PositiveFloat,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.gamma_negative, self.gamma_positive, self.clip = gamma_negative, gamma_positive, clip
        if loss == "bce":  # what the asymmetric loss becomes
            self.gamma_negative = self.gamma_positive = self.clip = 0.0
        self.positive_weight = positive_weight
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(dim, num_labels)

    def forward(self, fused: Fused) -> Tensor:
        assert fused.joint is not None
        logits: Tensor = self.logits(self.dropout(fused.joint))
        return logits

    def loss(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        known = ~targets["labels"].isnan()
        labels = targets["labels"].nan_to_num(0)
        positive, negative = asymmetric(
            logits.float(), self.gamma_negative, self.gamma_positive, self.clip
        )
        costs = labels * self.positive_weight * positive + (1 - labels) * negative
        return ((costs * known).sum(1) / known.sum(1).clamp_min(1)).mean()

    def metrics(self) -> "MetricCollection":
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MultilabelF1Score

        from mmnet.head.scores import UNKNOWN, LabelAUROC, LabelAveragePrecision

        return MetricCollection(
            {
                "mAP": LabelAveragePrecision(self.num_labels),
                "macro_f1": MultilabelF1Score(
                    self.num_labels, average="macro", ignore_index=UNKNOWN
                ),
                "auroc": LabelAUROC(self.num_labels),
            },
            compute_groups=[["auroc", "mAP"], ["macro_f1"]],
        )

    def update(
        self, metrics: "MetricCollection", logits: Tensor, targets: dict[str, Tensor]
    ) -> None:
        from mmnet.head.scores import UNKNOWN

        labels = targets["labels"].nan_to_num(UNKNOWN).long()
        metrics.update(logits.float().sigmoid(), labels)

    def words(
        self, logits: Tensor, targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        def listed(row: list[bool]) -> str:
            return ", ".join(n for n, holds in zip(names.labels, row, strict=True) if holds) or "–"

        labels, answers = targets["labels"], logits > 0
        known, truths = ~labels.isnan(), labels > 0.5  # False of a NaN
        right = ((truths == answers) | ~known).all(1)
        return [
            (listed(truth), listed(answer), holds if some else None)
            for truth, answer, holds, some in zip(
                truths.tolist(),
                answers.tolist(),
                right.tolist(),
                known.any(1).tolist(),
                strict=True,
            )
        ]


def asymmetric(
    logits: Tensor, gamma_negative: float, gamma_positive: float, clip: float
) -> tuple[Tensor, Tensor]:
    """What each label costs if it holds, and if it does not.

    With p = sigmoid(logit) and p' = max(p - clip, 0): -(1 - p)^gamma_positive log p, and
    -p'^gamma_negative log(1 - p').
    """
    positive = -F.logsigmoid(logits)
    if gamma_positive:
        positive = torch.sigmoid(-logits).clamp_min(1e-8) ** gamma_positive * positive
    negative = -F.logsigmoid(-logits)
    if clip:
        negative = -torch.log((torch.sigmoid(-logits) + clip).clamp_max(1))
    if gamma_negative:
        # Clamped: below 1 a power has no slope at 0.
        shifted = (torch.sigmoid(logits) - clip).clamp_min(1e-8)
        negative = shifted**gamma_negative * negative
    return positive, negative
