"""One label a sample."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from mmnet.errors import UserError
from mmnet.interfaces import Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Classification(nn.Module):
    """Linear softmax classifier. forward: joint [B, dim] -> logits [B, num_classes].

    Loss of a sample: weight of its class * (1 - p)^focal_gamma * cross-entropy, where p is what
    its class was given (focal loss, Lin et al., arXiv 1708.02002). The weights are brought to a
    mean of 1, and the loss is the mean over samples, not over weights: so it does not depend on
    which samples share a micro-batch. Where pictures are mixed, "label" is [B, C] shares, and p
    and the weight are means by them. Metric top5 is there from six classes on.

    Raises UserError unless there is one of `class_weights` for each class.
    """

    targets: ClassVar[tuple[str, ...]] = ("label",)
    needs: ClassVar[Literal["joint"]] = "joint"
    modalities: ClassVar[tuple[str, ...]] = ()
    whole_batch: ClassVar[bool] = False
    higher_is_better: ClassVar[dict[str, bool]] = {
        "accuracy": True,
        "top5": True,
        "macro_f1": True,
        "auroc": True,
        "ece": False,
    }

    def __init__(
        self,
        dim: int,
        num_classes: PositiveInt,
        class_weights: list[PositiveFloat] | None,
        label_smoothing: Fraction,
        focal_gamma: NonNegativeFloat,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.check(num_classes, class_weights)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.smoothed = label_smoothing  # that in training, which a controller may change
        self.focal_gamma = focal_gamma
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(dim, num_classes)
        weights = None if class_weights is None else torch.tensor(class_weights)
        # Not in the checkpoint: the config says them.
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", None if weights is None else weights / weights.mean(), persistent=False
        )

    @staticmethod
    def check(num_classes: int, class_weights: list[float] | None, **_: Any) -> None:
        """Raises UserError, see above."""
        if class_weights is not None and len(class_weights) != num_classes:
            raise UserError(
                f"head.class_weights: {len(class_weights)} numbers; with head.num_classes="
                f"{num_classes} it must be {num_classes}, or null"
            )

    def forward(self, fused: Fused) -> Tensor:
        assert fused.joint is not None
        logits: Tensor = self.logits(self.dropout(fused.joint))
        return logits

    def loss(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        label, logits = targets["label"], logits.float()
        smoothing = self.smoothed if self.training else self.label_smoothing
        each = F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
        shared = label.ndim == 2  # shares of classes, [B, C], where pictures were mixed
        if self.focal_gamma:
            chances = logits.softmax(-1)
            given = chances * label if shared else chances.gather(1, label[:, None])
            wrong = 1 - given.sum(1)
            # Below 1 a power has no slope at 0.
            each = wrong.clamp_min(1e-6) ** self.focal_gamma * each
        if self.class_weights is not None:
            weights = label @ self.class_weights if shared else self.class_weights[label]
            each = weights * each
        return each.mean()

    def metrics(self) -> "MetricCollection":
        # Imported here: it takes a second, and training starts without it.
        from torchmetrics import Metric, MetricCollection
        from torchmetrics.classification import (
            MulticlassAccuracy,
            MulticlassCalibrationError,
            MulticlassConfusionMatrix,
            MulticlassF1Score,
        )

        from mmnet.head.scores import ClassAUROC

        classes = self.num_classes
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "macro_f1": MulticlassF1Score(classes, average="macro"),
            "auroc": ClassAUROC(classes),
            "ece": MulticlassCalibrationError(classes, n_bins=15, norm="l1"),
            "confusion": MulticlassConfusionMatrix(classes),
        }
        if classes > 5:
            metrics["top5"] = MulticlassAccuracy(classes, average="micro", top_k=5)
        # Groups are found by equal states after one batch: one without a mistake would have top5
        # and accuracy share theirs from then on.
        return MetricCollection(metrics, compute_groups=False)

    def update(
        self, metrics: "MetricCollection", logits: Tensor, targets: dict[str, Tensor]
    ) -> None:
        # torchmetrics takes logits that happen to lie in [0, 1] for probabilities.
        metrics.update(logits.float().softmax(-1), targets["label"])

    def words(
        self, logits: Tensor, targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        chances, answers = logits.float().softmax(-1).max(-1)
        return [
            (names.classes[truth], f"{names.classes[answer]}  {chance:.0%}", truth == answer)
            for truth, answer, chance in zip(
                targets["label"].tolist(), answers.tolist(), chances.tolist(), strict=True
            )
        ]
