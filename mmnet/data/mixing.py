"""Pictures of a batch mixed with each other, and their labels with them."""

import random
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import CutMix, MixUp

from mmnet.data.seeded import seeded
from mmnet.interfaces import Batch


class Mixing(NamedTuple):
    """mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899).

    As torchvision has them: each sample is mixed with the one before it in the micro-batch, all
    of them by one share that is drawn from Beta(alpha, alpha). Where both alphas are above 0
    each batch is given one of the two, by the toss of a coin.
    """

    mixup: float  # alpha; 0: none
    cutmix: float
    num_classes: int | None  # of "label"; None: the target is "labels"
    seed: int

    def __call__(self, batch: Batch, position: int) -> Batch:
        """The batch that begins at `position`, mixed: "label" becomes float32 [B, C] shares.

        What is drawn depends on the seed and the position alone.
        """
        name = "labels" if self.num_classes is None else "label"
        rng = random.Random(self.seed << 64 | position)
        images, target = batch.inputs["image"], batch.targets[name]
        with seeded(rng.getrandbits(63)):
            values, target = self._mixed(images.values, target, rng)
        inputs = {**batch.inputs, "image": images._replace(values=values)}
        return Batch(inputs, {**batch.targets, name: target}, batch.size)

    def _mixed(self, values: Tensor, target: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
        if rng.random() < (self.cutmix > 0) / ((self.cutmix > 0) + (self.mixup > 0)):
            values, target = CutMix(alpha=self.cutmix, num_classes=self.num_classes)(values, target)
            return values, target
        mix = MixUp(alpha=self.mixup, num_classes=self.num_classes)
        mixed, target = mix(values.float(), target)
        return mixed.round_().to(torch.uint8), target
