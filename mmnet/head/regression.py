"""One quantity a sample."""

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction, PositiveFloat, Range
from mmnet.interfaces import Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Regression(nn.Module):
    """A number. forward: joint [B, dim] -> [B], standardised by the training data's values.

    The loss is taken in those standard units, and so is `huber_delta`, where the squared error
    becomes a straight line; `quantile` is which one of the distribution to answer (0.5: the
    median) by the pinball loss. `in_units` turns answers into the value's own units, in which
    the metrics are. Mean and deviation are in the checkpoint.
    """

    targets: ClassVar[tuple[str, ...]] = ("value",)
    needs: ClassVar[Literal["joint"]] = "joint"
    modalities: ClassVar[tuple[str, ...]] = ()
    whole_batch: ClassVar[bool] = False
    higher_is_better: ClassVar[dict[str, bool]] = {
        "mae": False,
        "rmse": False,
        "r2": True,
        "spearman": True,
    }
    value_mean: Tensor
    value_std: Tensor

    def __init__(
        self,
        dim: int,
        value_mean: float,
        value_std: float,
        loss: Literal["mse", "huber", "quantile"],
        huber_delta: PositiveFloat,
        quantile: Annotated[float, Range(0, 1, open=True, says="a number between 0 and 1")],
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.kind, self.huber_delta, self.quantile = loss, huber_delta, quantile
        self.register_buffer("value_mean", torch.tensor(float(value_mean)))
        self.register_buffer("value_std", torch.tensor(float(value_std)))
        self.dropout = nn.Dropout(dropout)
        self.value = nn.Linear(dim, 1)

    def forward(self, fused: Fused) -> Tensor:
        assert fused.joint is not None
        value: Tensor = self.value(self.dropout(fused.joint)).squeeze(-1)
        return value

    def in_units(self, answers: Tensor) -> Tensor:
        """Answers [B] in the value's own units, float64: large values may differ by little."""
        return answers.double() * self.value_std.double() + self.value_mean.double()

    def loss(self, answers: Tensor, targets: dict[str, Tensor]) -> Tensor:
        answers, value = answers.float(), (targets["value"] - self.value_mean) / self.value_std
        if self.kind == "mse":
            return F.mse_loss(answers, value)
        if self.kind == "huber":
            return F.huber_loss(answers, value, delta=self.huber_delta)
        error = value - answers
        return torch.maximum(self.quantile * error, (self.quantile - 1) * error).mean()

    def metrics(self) -> "MetricCollection":
        from torchmetrics import MetricCollection
        from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, SpearmanCorrCoef

        from mmnet.head.scores import ScaledR2

        with warnings.catch_warnings(action="ignore"):  # that it keeps all values
            spearman = SpearmanCorrCoef().set_dtype(torch.float64)  # else it rounds them
        return MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
                "r2": ScaledR2(self.value_mean.item(), self.value_std.item()),
                "spearman": spearman,
            },
            compute_groups=False,
        )

    def update(
        self, metrics: "MetricCollection", answers: Tensor, targets: dict[str, Tensor]
    ) -> None:
        metrics.update(self.in_units(answers), targets["value"].double())

    def words(
        self, answers: Tensor, targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        return [
            (f"{truth:.4g} {names.unit}".strip(), f"{answer:.4g} {names.unit}".strip(), None)
            for truth, answer in zip(
                targets["value"].tolist(), self.in_units(answers).tolist(), strict=True
            )
        ]
