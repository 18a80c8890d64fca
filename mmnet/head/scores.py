"""torchmetrics' scores, where they are not defined left out rather than 0, a warning or an error.

A class without a sample, or with nothing else, has no area under its curve: counted as 0, as
torchmetrics does, it would make a small validation split look worse than it is. mypy is told to
ignore what torchmetrics does itself: its areas inherit from its curves.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAUROC,
    MultilabelAUROC,
    MultilabelAveragePrecision,
)
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.regression import R2Score
from torchmetrics.text import Perplexity
from torchmetrics.utilities import dim_zero_cat


UNKNOWN = -1  # a label of which nobody knows whether it holds


class ClassAUROC(MulticlassAUROC):
    """One class against the rest, mean over classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none")

    def compute(self) -> Tensor:  # type: ignore[override]
        target = dim_zero_cat(self.target)
        positives = torch.bincount(target, minlength=self.num_classes)
        with warnings.catch_warnings(action="ignore"):
            return super().compute()[both_kinds(positives, len(target))].mean()


class LabelAUROC(MultilabelAUROC):
    """Mean over labels, each over the samples of which it is known."""

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none", ignore_index=UNKNOWN)

    def compute(self) -> Tensor:  # type: ignore[override]
        answers, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        defined = (target == 1).any(0) & (target == 0).any(0)
        return mean_of(binary_auroc, answers[:, defined], target[:, defined])


class LabelAveragePrecision(MultilabelAveragePrecision):
    """Mean over labels, each over the samples of which it is known: mAP."""

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none", ignore_index=UNKNOWN)

    def compute(self) -> Tensor:  # type: ignore[override]
        answers, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        defined = (target == 1).any(0)
        return mean_of(binary_average_precision, answers[:, defined], target[:, defined])


class YesNoAUROC(BinaryAUROC):
    """Of one yes-or-no question; NaN where all answers are alike."""

    def compute(self) -> Tensor:  # type: ignore[override]
        target = dim_zero_cat(self.target)
        with warnings.catch_warnings(action="ignore"):
            area = super().compute()
        return area.where(both_kinds(target.sum(), len(target)), torch.nan)


class ScaledR2(R2Score):
    """R2 of values that are standardised first, which does not change it; NaN of one sample.

    torchmetrics takes a sum of squares below 1e-4 for none, and loses that of values which
    differ by little against their mean.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update((preds - self.mean) / self.std, (target - self.mean) / self.std)

    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else self.residual * torch.nan


class TokenPerplexity(Perplexity):
    """Of logits [N, V] and ids [N], finite however sure a wrong answer was."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.total_log_probs += F.cross_entropy(preds, target, reduction="sum")
        self.count += len(target)


def mean_of(score: Callable[..., Tensor], answers: Tensor, target: Tensor) -> Tensor:
    """Of the scores of the columns of [N, C], 0-d: each over the rows whose target is known."""
    found = [
        score(answer, held, ignore_index=UNKNOWN)
        for answer, held in zip(answers.unbind(1), target.unbind(1), strict=True)
    ]
    return torch.stack(found).mean() if found else answers.new_tensor(torch.nan)


def both_kinds(positives: Tensor, total: int) -> Tensor:
    """Where there is something to rank above something else."""
    return (positives > 0) & (positives < total)
