"""One label a sample."""

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction, PositiveInt
from mmnet.interfaces import Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Classification(nn.Module):
    """Linear softmax classifier. forward: [B, dim] -> logits [B, num_classes]."""

    targets: ClassVar[tuple[str, ...]] = ("label",)
    needs: ClassVar[Literal["joint"]] = "joint"
    modalities: ClassVar[tuple[str, ...]] = ()
    whole_batch: ClassVar[bool] = False
    higher_is_better: ClassVar[dict[str, bool]] = {"accuracy": True, "macro_f1": True}

    def __init__(
        self, dim: int, num_classes: PositiveInt, label_smoothing: Fraction, dropout: Fraction
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(dim, num_classes)

    def forward(self, fused: Fused) -> Tensor:
        assert fused.joint is not None
        logits: Tensor = self.logits(self.dropout(fused.joint))
        return logits

    def loss(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(
            logits.float(), targets["label"], label_smoothing=self.label_smoothing
        )

    def metrics(self) -> "MetricCollection":
        # Imported here: it takes a second, and training starts without it.
        from torchmetrics import MetricCollection
        from torchmetrics.classification import (
            MulticlassAccuracy,
            MulticlassConfusionMatrix,
            MulticlassF1Score,
        )

        classes = self.num_classes
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "macro_f1": MulticlassF1Score(classes, average="macro"),
                "confusion": MulticlassConfusionMatrix(classes),
            }
        )

    def update(
        self, metrics: "MetricCollection", logits: Tensor, targets: dict[str, Tensor]
    ) -> None:
        metrics.update(logits.float(), targets["label"])

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
