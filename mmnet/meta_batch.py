"""Training samples that are not trained on: what a controller knows of generalisation."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmnet.data.lengths import Lengths, OfSome, lengths_of
from mmnet.data.loader import Reading, eval_batches
from mmnet.data.order import Mixture
from mmnet.data.stream import streamed
from mmnet.errors import UserError
from mmnet.hardware import Machine
from mmnet.interfaces import Batch, Sample, Split, TextPrepare


USUAL, SHARE = 128, 16  # null: so many samples, at most one of so many


class Rest:
    """A split without some of its samples."""

    def __init__(self, split: Split, kept: list[int]) -> None:
        self.split, self.kept = split, kept
        self.digest, self.notes = split.digest, split.notes
        if (mixture := getattr(split, "mixture", None)) is not None:
            ends = np.searchsorted(kept, np.cumsum(mixture.sizes))
            self.mixture = Mixture(np.diff(ends, prepend=0).tolist(), mixture.weights)

    def __len__(self) -> int:
        return len(self.kept)

    def lengths(self, words: TextPrepare) -> Lengths:
        return OfSome(lengths_of(self.split, words), self.kept)

    def key(self, index: int) -> str:
        return self.split.key(self.kept[index])

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        return self.split.sample(self.kept[index], modalities, rng)


def carve(split: Split, size: int | None, seed: int, whole: int = 0) -> tuple[Rest | None, Split]:
    """`size` samples for the meta-batch, drawn by `seed`; and the rest, in order.

    None: as many as are usual; where the loss compares the samples of a batch, a batch of `whole`
    at least, if that is no more than an eighth. Raises UserError when fewer than twice as many
    are there.
    """
    if size != 0 and streamed(split) is not None:
        raise UserError(
            "controller.meta_batch: no samples can be left out of a stream: set it to 0, or map "
            "shards that lie on this machine (dataset=webdataset)"
        )
    if size is None:
        size = min(USUAL, len(split) // SHARE)
        if whole <= len(split) // 8:
            size = max(size, whole)
    if size == 0:
        return None, split
    if len(split) < 2 * size:
        raise UserError(
            f"controller.meta_batch={size}: the train split has {len(split)} samples, too few to "
            f"leave so many out; {len(split) // 8} would do, or 0"
        )
    chosen = set(random.Random(f"meta {seed}").sample(range(len(split)), size))
    rest = [index for index in range(len(split)) if index not in chosen]
    return Rest(split, sorted(chosen)), Rest(split, rest)


class MetaBatch:
    """A few batches that stay the same, looked at in turns, and a network's loss on them."""

    def __init__(self, model: Any, batches: Sequence[Batch], machine: Machine) -> None:
        self.model, self.batches, self.machine = model, batches, machine
        self.modalities = [name for name in model.encoders if name in batches[0].inputs]
        self.turn = 0

    def next(self) -> None:
        """Go on to the next batch."""
        self.turn = (self.turn + 1) % len(self.batches)

    def loss(self, without: str | None = None) -> Tensor:
        """Mean over the samples of the batch, a scalar on the device; dropout off.

        `without`: as if that modality were missing of all samples.
        """
        batch = self.batches[self.turn]
        inputs = {name: one for name, one in batch.inputs.items() if name != without}
        training = self.model.training
        self.model.eval()
        try:
            with self.machine.autocast():
                answers = self.model(inputs, batch.targets.get("group"))
            found: Tensor = self.model.head.loss(answers, batch.targets).float()
        finally:
            self.model.train(training)
        return found

    @torch.no_grad()
    def losses(self) -> Tensor:
        """[1 + modalities]: with all of them, and without each; NaN where the head needs it."""
        whole = self.loss()
        unknown = torch.full_like(whole, torch.nan)
        optional = set(self.modalities) - set(self.model.head.modalities)
        if len(self.modalities) < 2:
            optional = set()
        without = [self.loss(name) if name in optional else unknown for name in self.modalities]
        return torch.stack([whole, *without])

    def gradients(self, parameters: list[Tensor]) -> list[Tensor | None]:
        """Of the loss; None for those that it does not reach."""
        return list(torch.autograd.grad(self.loss(), parameters, allow_unused=True))


def read(split: Split, reading: Reading, size: int, machine: Machine) -> list[Batch]:
    """All samples of a split in batches of `size`. Raises UserError when none can be read."""
    found = eval_batches(split, reading, batch_size=size, num_workers=0, device=machine.device)
    batches = [one.batch for one in found if one.batch is not None]
    # One that is much smaller would be a noisier look than the others.
    whole = [batch for batch in batches if 2 * batch.size > size] or batches[:1]
    if not whole:
        raise UserError("controller.meta_batch: none of its samples can be read")
    return whole
