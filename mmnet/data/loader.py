"""Raw samples to batches on the device, in this process or in workers, with the same result."""

import random
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmnet.data.batch import blanks, collate
from mmnet.data.deadline import Deadline, TooSlow
from mmnet.data.lengths import lengths_of
from mmnet.data.masking import HideTokens
from mmnet.data.mixing import Mixing
from mmnet.data.order import ALONE, Bucketed, Mixed, Order, SampleRandom, Share, Shuffled
from mmnet.data.stream import Held, Raw, filled, streamed
from mmnet.data.workers import in_workers
from mmnet.interfaces import IGNORED, TARGETS, BadSample, Batch, Inputs, Prepare, Split


class _Row(NamedTuple):
    tensors: dict[str, Tensor]  # of the modalities that are there
    targets: dict[str, Any]


class Reading(NamedTuple):
    """What is made of each sample."""

    prepare: dict[str, Prepare]  # of the modalities that are read; others are not decoded
    targets: tuple[str, ...]  # names of TARGETS
    hide: HideTokens | None = None  # makes the target "tokens"
    mix: Mixing | None = None  # of pictures, in training
    pin_memory: bool = False  # copies to the device from memory that stays in its place


class TrainStep(NamedTuple):
    """The data of one optimizer step, or a rank's share of it."""

    step: int
    batches: list[Batch]  # one a micro-batch; those that lost all their samples are left out
    samples: int  # in all of them
    bad: list[tuple[str, str]]  # (key, reason) of each sample that could not be read


class EvalBatch(NamedTuple):
    """One batch in the order of the split, or a rank's share of it."""

    batch: Batch | None  # None where no sample of it could be read
    indices: list[int]  # of its samples
    bad: list[tuple[str, str]]  # (key, reason) of each sample that could not be read


def train_steps(
    split: Split,
    reading: Reading,
    *,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    num_workers: int,
    device: torch.device,
    share: Share = ALONE,
    bucket_batches: int | None = None,
) -> Generator[TrainStep, None, None]:
    """Steps `first_step` to `last_step` of the endless shuffled sequence, epoch after epoch.

    Step k holds positions (k - 1) * batch_size up to k * batch_size, across the border of two
    epochs where it falls so; its micro-batches are consecutive slices of `share` of them, the
    last of them smaller where they do not divide evenly. A sample that cannot be read makes its
    micro-batch smaller. bucket_batches: sort by length of text in windows of so many steps.

    Raises UserError when a worker fails, or a stream does.
    """
    steps = range(first_step, last_step + 1)

    def cut(step: int) -> list[range]:
        own = share.of(range((step - 1) * batch_size, step * batch_size))
        return [own[i : i + micro_batch_size] for i in range(0, len(own), micro_batch_size)]

    positions = (one for step in steps for one in cut(step))
    slices: Iterator[Slice] = positions
    order = None
    if (source := streamed(split)) is not None:
        start = (first_step - 1) * batch_size
        slices = filled(source.stream(seed, start), start, positions)
    else:
        order = order_of(split, reading, seed, batch_size, bucket_batches)
    reader = _Reader(split, reading, seed, order)
    with closing(_read(reader, slices, num_workers, device)) as reads:
        for step in steps:
            batches, samples, bad = [], 0, []
            for _ in cut(step):
                batch, indices, broken = next(reads)
                if batch is not None:
                    batches.append(batch)
                samples += len(indices)
                bad += broken
            yield TrainStep(step, batches, samples, bad)


def eval_batches(
    split: Split,
    reading: Reading,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    limit: int | None = None,
    share: Share = ALONE,
) -> Generator[EvalBatch, None, None]:
    """All samples, or the first `limit`, once, in order and without augmentation.

    Of several ranks each reads its `share` of every run of world * batch_size samples; where the
    last of them holds fewer samples than there are ranks, some have a batch less.

    Raises UserError when a worker fails.
    """
    size = len(split) if limit is None else min(limit, len(split))
    at_once = batch_size * share.world
    runs = (range(start, min(start + at_once, size)) for start in range(0, size, at_once))
    slices = (own for run in runs if len(own := share.of(run)))
    return _read(_Reader(split, reading, None, None), slices, num_workers, device)


def order_of(
    split: Split, reading: Reading, seed: int, batch_size: int, bucket_batches: int | None
) -> Order:
    """What stands where in training."""
    mixture = getattr(split, "mixture", None)
    order: Order = Shuffled(seed, len(split)) if mixture is None else Mixed(seed, mixture)
    if bucket_batches is None:
        return order
    words: Any = reading.prepare["text"]
    return Bucketed(order, seed, batch_size, bucket_batches, lengths_of(split, words))


Slice = range | list[Raw]  # positions, or what a stream has there


class _Due(NamedTuple):
    """A sample that is to be read."""

    split: Split | Held
    number: int
    rng: SampleRandom | None  # one object for all


class _Reader(Dataset[EvalBatch]):
    """Positions -> the batch they make. `seed` None: positions are indices."""

    def __init__(
        self, split: Split, reading: Reading, seed: int | None, order: Order | None
    ) -> None:
        self.split, self.reading, self.order = split, reading, order
        self.rng = None if seed is None else SampleRandom(seed)
        self.modalities = tuple(reading.prepare)
        self.blank = blanks(reading.prepare)

    def __getitem__(self, asked: Slice) -> EvalBatch:
        rows: list[_Row] = []
        indices: list[int] = []
        bad: list[tuple[str, str]] = []
        with Deadline() as deadline:
            for due in self._drawn(asked):
                try:
                    deadline.begin()
                    rows.append(self._row(*due))
                    indices.append(due.number)
                except BadSample as problem:
                    bad.append((problem.key, problem.reason))
                except TooSlow as problem:
                    bad.append((due.split.key(due.number), str(problem)))
                finally:
                    deadline.end()
        batch = self._collate(rows) if rows else None
        if batch is not None and self.reading.mix is not None and self.rng is not None:
            batch = self.reading.mix(batch, place_of(asked))
        return EvalBatch(batch, indices, bad)

    def _row(self, split: Split | Held, index: int, rng: SampleRandom | None) -> _Row:
        """One sample as tensors. Raises BadSample."""
        sample: dict[str, Any] = dict(split.sample(index, self.modalities, rng))
        there = [name for name in self.modalities if name in sample]
        if not there:
            lacks = " and ".join(f"no {name}" for name in self.modalities)
            raise BadSample(split.key(index), lacks)
        tensors = {name: self.reading.prepare[name](sample[name]) for name in there}
        targets = {name: sample[name] for name in self.reading.targets if name != "tokens"}
        if self.reading.hide is not None:
            if "text" in tensors:
                tensors["text"], targets["tokens"] = self.reading.hide(
                    tensors["text"], rng or random.Random(index)
                )
            else:
                targets["tokens"] = torch.tensor([IGNORED])
        return _Row(tensors, targets)

    def _collate(self, rows: list[_Row]) -> Batch:
        inputs = collate(self.reading.prepare, [row.tensors for row in rows], self.blank)
        targets = {}
        for name in self.reading.targets:
            values = [row.targets[name] for row in rows]
            if name == "tokens":
                targets[name] = _as_long_as(values, inputs["text"].values.shape[1])
            else:
                targets[name] = torch.tensor(values, dtype=TARGETS[name])
        return Batch(inputs, targets, len(rows))

    def _drawn(self, asked: Slice) -> Iterator[_Due]:
        if isinstance(asked, list):
            assert self.rng is not None
            held = Held(self.split, asked)
            for number, raw in enumerate(asked):
                yield _Due(held, number, self.rng.at(raw.epoch, raw.number))
        elif self.rng is None or self.order is None:
            for index in asked:
                yield _Due(self.split, index, None)
        else:
            for epoch, index in self.order(asked):
                yield _Due(self.split, index, self.rng.at(epoch, index))


def _as_long_as(rows: list[Tensor], length: int) -> Tensor:
    """int64 [T] each -> [B, length], IGNORED where a row has ended."""
    padded = torch.full((len(rows), length), IGNORED)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


def _read(
    reader: _Reader, slices: Iterator[Slice], num_workers: int, device: torch.device
) -> Generator[EvalBatch, None, None]:
    reads: Iterable[EvalBatch] = (
        in_workers(reader, slices, num_workers, reader.reading.pin_memory)
        if num_workers > 0
        else map(reader.__getitem__, slices)
    )
    for batch, indices, bad in reads:
        if batch is not None and device.type != "cpu":
            batch = _move(batch, device, pin=reader.reading.pin_memory and num_workers == 0)
        yield EvalBatch(batch, indices, bad)


def place_of(asked: Slice) -> int:
    """A number that no other batch of a run begins with."""
    first = asked[0]
    return first if isinstance(first, int) else first.epoch << 64 | first.number


def _move(batch: Batch, device: torch.device, *, pin: bool) -> Batch:
    def there(tensor: Tensor) -> Tensor:
        return (tensor.pin_memory() if pin else tensor).to(device, non_blocking=True)

    inputs = {
        name: Inputs(
            there(one.values),
            None if one.mask is None else there(one.mask),
            None if one.present is None else there(one.present),
        )
        for name, one in batch.inputs.items()
    }
    targets = {name: there(target) for name, target in batch.targets.items()}
    return Batch(inputs, targets, batch.size)
