"""Images and texts that belong together, near each other; all others apart."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import PositiveInt
from mmnet.interfaces import Answers, Features, Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


MODALITIES = ("image", "text")
FIRST_SCALE = {"infonce": 1 / 0.07, "siglip": 10.0}
FIRST_BIAS = -10.0  # of siglip: nearly all pairs do not belong together
MAX_SCALE = 100.0


class Contrastive(nn.Module):
    """Each modality's pooled vector, projected and brought to length 1, for comparison.

    forward: pooled [B, D] of image and text -> {"image", "text": [B, embed_dim], "both": bool
    [B], whether both are there}; a modality that the batch lacks is zeros.

    Loss over the pairs of the batch: infonce, softmax over each row and column with a learned
    scale of at most 100 (CLIP, Radford et al., arXiv 2103.00020), or siglip, a yes or no for
    each pair with a learned scale and bias (Zhai et al., arXiv 2303.15343). Other pairs of one
    group belong together as well, and are left out; so are samples that lack a modality, and
    those that a task beside this one gave a text of another (target `match`).
    """

    targets: ClassVar[tuple[str, ...]] = ("group",)
    needs: ClassVar[Literal["pooled"]] = "pooled"
    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    whole_batch: ClassVar[bool] = True
    higher_is_better: ClassVar[dict[str, bool]] = {
        "i2t_recall_1": True,
        "i2t_recall_5": True,
        "i2t_recall_10": True,
        "i2t_median_rank": False,
        "t2i_recall_1": True,
        "t2i_recall_5": True,
        "t2i_recall_10": True,
        "t2i_median_rank": False,
    }

    def __init__(
        self, dims: dict[str, int], loss: Literal["infonce", "siglip"], embed_dim: PositiveInt
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.project = nn.ModuleDict(
            {name: nn.Linear(dims[name], embed_dim, bias=False) for name in MODALITIES}
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE[loss])))
        self.bias: nn.Parameter | None = None
        if loss == "siglip":
            self.bias = nn.Parameter(torch.tensor(FIRST_BIAS))

    def forward(self, fused: Fused) -> Answers:
        features = fused.features
        some = next(iter(features.values()))
        answers = {
            name: self.embed(name, features[name])
            if name in features
            else some.pooled.new_zeros(len(some.pooled), self.embed_dim, dtype=torch.float32)
            for name in MODALITIES
        }
        answers["both"] = (
            features["image"].there() & features["text"].there()
            if set(MODALITIES) <= features.keys()
            else torch.zeros_like(some.there())
        )
        return answers

    def embed(self, name: str, features: Features) -> Tensor:
        """-> fp32 [B, embed_dim]"""
        return F.normalize(self.project[name](features.pooled).float(), dim=-1)

    def scale(self) -> Tensor:
        """What similarities are multiplied with, at most `MAX_SCALE`."""
        limit = math.log(MAX_SCALE)
        if not self.training:
            return self.log_scale.clamp(max=limit).exp()
        # The parameter itself is held, as in the paper: beyond the limit a clamped one has no
        # gradient by which to come back.
        with torch.no_grad():
            self.log_scale.clamp_(max=limit)
        return self.log_scale.exp()

    def loss(self, answers: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        image, text, both = answers["image"], answers["text"], belong(answers, targets)
        with torch.autocast(image.device.type, enabled=False):
            logits = self.scale() * image.float() @ text.float().T
            if self.bias is None:
                return infonce(logits, targets["group"], both)
            return siglip(logits + self.bias, targets["group"], both)

    def metrics(self) -> "MetricCollection":
        from torchmetrics import MetricCollection

        from mmnet.head.retrieval import Retrieval

        return MetricCollection({"retrieval": Retrieval()})

    def update(
        self, metrics: "MetricCollection", answers: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> None:
        both = belong(answers, targets)
        metrics.update(answers["image"][both], answers["text"][both], targets["group"][both])

    def words(
        self, answers: dict[str, Tensor], targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        """Which of the texts shown, counted from 1, is nearest to each image."""
        both = belong(answers, targets)
        score = (answers["image"] @ answers["text"].T).masked_fill(~both, -torch.inf)
        group = targets["group"].tolist()
        return [
            (f"text {row}", f"text {nearest + 1}", group[nearest] == group[row - 1])
            if there
            else ("no pair", "", None)
            for row, (nearest, there) in enumerate(
                zip(score.argmax(1).tolist(), both.tolist(), strict=True), start=1
            )
        ]


def infonce(logits: Tensor, group: Tensor, both: Tensor) -> Tensor:
    """Cross-entropy of each image among the texts and each text among the images, averaged.

    logits [B, B], images in rows; group int64 [B]; both bool [B]: who takes part.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    # A row that takes no part is left alone with itself, and costs nothing.
    logits = logits.masked_fill(~(own | apart(group, both)), -torch.inf)
    index = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(logits, index, reduction="sum")
    to_image = F.cross_entropy(logits.T, index, reduction="sum")
    return (to_text + to_image) / 2 / both.sum().clamp_min(1)


def siglip(logits: Tensor, group: Tensor, both: Tensor) -> Tensor:
    """-log sigmoid of each pair, summed over texts and averaged over images; see infonce."""
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    signs = torch.where(own, 1.0, -1.0)
    counts = (own & both) | apart(group, both)
    each = -F.logsigmoid(signs * logits)
    return each.where(counts, 0.0).sum() / both.sum().clamp_min(1)


def belong(answers: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """bool [B]: has both, and the text is its own: another task may pair some with a wrong one."""
    match = targets.get("match")
    return answers["both"] if match is None else answers["both"] & (match == 1)


def apart(group: Tensor, both: Tensor) -> Tensor:
    """bool [B, B]: the pairs that do not belong together."""
    return (group[:, None] != group) & both[:, None] & both
