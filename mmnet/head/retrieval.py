"""Recall@1, 5, 10 and median rank, image to text and text to image, any captions an image."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


AT = (1, 5, 10)
SCORES_AT_ONCE = 2**24  # 64 MB of fp32


class Retrieval(Metric):
    """How well embeddings find those of their own group in the other modality, by dot product.

    update: image [N, D], text [N, D], group int64 [N], a row each of an image and its text; an
    image with several captions is given once with each.

    i2t: each image asks for all texts; its rank is 1 + how many texts of other groups score at
    least as high as the best one of its own. Images of a group are asked each and averaged, so
    that each group counts once.
    t2i: each text asks for the groups, by their best image; its rank is 1 + how many other
    groups score at least as high as its own.

    A tie is lost, else a network that gives everything the same vector would be perfect.
    compute: {"i2t_recall_1": ..., "t2i_median_rank": ...}; NaN without a single row.
    """

    full_state_update = False
    image: list[Tensor]
    text: list[Tensor]
    group: list[Tensor]

    def __init__(self, scores_at_once: int = SCORES_AT_ONCE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scores_at_once = scores_at_once
        for name in ("image", "text", "group"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, image: Tensor, text: Tensor, group: Tensor) -> None:
        self.image.append(image.float())
        self.text.append(text.float())
        self.group.append(group)

    def compute(self) -> dict[str, Tensor]:
        image, text = dim_zero_cat(self.image), dim_zero_cat(self.text)
        # Groups are numbered anew, from 0 on.
        names, group = torch.unique(dim_zero_cat(self.group), return_inverse=True)
        if not len(names):
            ranks = group.float()
            return {**self.scores("i2t", ranks), **self.scores("t2i", ranks)}
        with torch.autocast(image.device.type, enabled=False):
            return {
                **self.scores("i2t", *self.to_texts(image, text, group, len(names))),
                **self.scores("t2i", self.to_groups(text, image, group, len(names))),
            }

    def to_texts(
        self, image: Tensor, text: Tensor, group: Tensor, groups: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Of each group, the mean rank of its images, and the share of them found within `AT`."""
        ranks = []
        for ask, own in self.asked(image, group):
            score = ask @ text.T  # [asking, N]
            same = own[:, None] == group
            best = score.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
            ranks.append(1 + (~(score < best) & ~same).sum(1))
        rank = torch.cat(ranks)
        return mean_of(rank.float(), group, groups), [
            mean_of((rank <= k).float(), group, groups) for k in AT
        ]

    def to_groups(self, text: Tensor, image: Tensor, group: Tensor, groups: int) -> Tensor:
        """The rank [N] of each text's own group."""
        ranks = []
        for ask, own in self.asked(text, group):
            score = ask @ image.T
            of_group = score.new_full((len(ask), groups), -torch.inf)
            of_group.scatter_reduce_(1, group.expand_as(score), score, "amax")
            best = of_group.gather(1, own[:, None])
            ranks.append((~(of_group < best)).sum(1))  # its own group is one of them
        return torch.cat(ranks)

    def asked(self, embedded: Tensor, group: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """As many rows at once as the scores have room for."""
        rows = max(1, self.scores_at_once // len(group))
        return zip(torch.split(embedded, rows), torch.split(group, rows), strict=True)

    def scores(
        self, way: str, rank: Tensor, within: list[Tensor] | None = None
    ) -> dict[str, Tensor]:
        within = within or [(rank <= k).float() for k in AT]
        median = rank.float().quantile(0.5) if len(rank) else rank.mean()
        found = {f"{way}_recall_{k}": hits.mean() for k, hits in zip(AT, within, strict=True)}
        return {**found, f"{way}_median_rank": median}


def mean_of(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """[N] -> [groups]"""
    total = values.new_zeros(groups).index_add_(0, group, values)
    return total / torch.bincount(group, minlength=groups)
