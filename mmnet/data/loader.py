"""Raw samples to batches on the device, in this process or in workers, with the same result."""

import math
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmnet.data.batch import blanks, collate
from mmnet.data.deadline import Deadline, TooSlow
from mmnet.data.masking import HideTokens
from mmnet.data.mixing import Mixing
from mmnet.data.order import SampleRandom, draw
from mmnet.errors import UserError
from mmnet.interfaces import IGNORED, TARGETS, BadSample, Batch, Inputs, Prepare, Split


# A terminal or a scheduler sends them to every process, and the trainer wants to save first.
# Elsewhere than on Linux a worker could not tell the trainer's own SIGTERM from theirs.
GROUP_SIGNALS = [signal.SIGINT, signal.SIGTERM] if sys.platform == "linux" else [signal.SIGINT]


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
    """The data of one optimizer step."""

    step: int
    batches: list[Batch]  # one a micro-batch; those that lost all their samples are left out
    samples: int  # in all of them
    bad: list[tuple[str, str]]  # (key, reason) of each sample that could not be read


class EvalBatch(NamedTuple):
    """One batch in the order of the split."""

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
) -> Generator[TrainStep, None, None]:
    """Steps `first_step` to `last_step` of the endless shuffled sequence, epoch after epoch.

    Step k holds positions (k - 1) * batch_size up to k * batch_size, across the border of two
    epochs where it falls so; its micro-batches are consecutive slices of them. A sample that
    cannot be read makes its micro-batch smaller.

    Raises UserError when a worker fails.
    """
    steps = range(first_step, last_step + 1)
    slices = (
        range(start, min(start + micro_batch_size, step * batch_size))
        for step in steps
        for start in range((step - 1) * batch_size, step * batch_size, micro_batch_size)
    )
    with closing(_read(_Reader(split, reading, seed), slices, num_workers, device)) as reads:
        for step in steps:
            batches, samples, bad = [], 0, []
            for _ in range(math.ceil(batch_size / micro_batch_size)):
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
) -> Generator[EvalBatch, None, None]:
    """All samples, or the first `limit`, once, in order and without augmentation.

    Raises UserError when a worker fails.
    """
    size = len(split) if limit is None else min(limit, len(split))
    slices = (range(i, min(i + batch_size, size)) for i in range(0, size, batch_size))
    return _read(_Reader(split, reading, None), slices, num_workers, device)


class _Reader(Dataset[EvalBatch]):
    """Positions -> the batch they make. `seed` None: positions are indices."""

    def __init__(self, split: Split, reading: Reading, seed: int | None) -> None:
        self.split, self.reading, self.seed = split, reading, seed
        self.modalities = tuple(reading.prepare)
        self.blank = blanks(reading.prepare)

    def __getitem__(self, positions: range) -> EvalBatch:
        rows: list[_Row] = []
        indices: list[int] = []
        bad: list[tuple[str, str]] = []
        with Deadline() as deadline:
            for index, rng in self._drawn(positions):
                try:
                    deadline.begin()
                    rows.append(self._row(index, rng))
                    indices.append(index)
                except BadSample as problem:
                    bad.append((problem.key, problem.reason))
                except TooSlow as problem:
                    bad.append((self.split.key(index), str(problem)))
                finally:
                    deadline.end()
        batch = self._collate(rows) if rows else None
        if batch is not None and self.reading.mix is not None and self.seed is not None:
            batch = self.reading.mix(batch, positions.start)
        return EvalBatch(batch, indices, bad)

    def _row(self, index: int, rng: SampleRandom | None) -> _Row:
        """One sample as tensors. Raises BadSample."""
        sample: dict[str, Any] = dict(self.split.sample(index, self.modalities, rng))
        there = [name for name in self.modalities if name in sample]
        if not there:
            lacks = " and ".join(f"no {name}" for name in self.modalities)
            raise BadSample(self.split.key(index), lacks)
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

    def _drawn(self, positions: range) -> Iterator[tuple[int, SampleRandom | None]]:
        if self.seed is None:
            yield from ((index, None) for index in positions)
        else:
            rng = SampleRandom(self.seed)
            for epoch, index in draw(self.seed, len(self.split), positions):
                yield index, rng.at(epoch, index)


def _as_long_as(rows: list[Tensor], length: int) -> Tensor:
    """int64 [T] each -> [B, length], IGNORED where a row has ended."""
    padded = torch.full((len(rows), length), IGNORED)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


def _read(
    reader: _Reader, slices: Iterator[range], num_workers: int, device: torch.device
) -> Generator[EvalBatch, None, None]:
    reads: Iterable[EvalBatch] = (
        _in_workers(reader, slices, num_workers, device)
        if num_workers > 0
        else map(reader.__getitem__, slices)
    )
    for batch, indices, bad in reads:
        if batch is not None and device.type != "cpu":
            batch = _move(batch, device, pin=reader.reading.pin_memory and num_workers == 0)
        yield EvalBatch(batch, indices, bad)


def _in_workers(
    reader: _Reader, slices: Iterator[range], num_workers: int, device: torch.device
) -> Iterator[EvalBatch]:
    loader: DataLoader[EvalBatch] = DataLoader(
        reader,
        batch_size=None,  # a slice is a batch already
        sampler=slices,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_trainer,
        pin_memory=reader.reading.pin_memory,
        generator=torch.Generator(),  # else its seed is drawn from the run's own numbers
    )
    try:
        yield from _started(loader)
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"reading data in workers failed: {said[-1]}. hardware.num_workers={num_workers}: "
            f"fewer workers need less memory, and 0 reads in the training process, where an "
            f"error shows its origin"
        ) from error


def _started(loader: "DataLoader[EvalBatch]") -> Iterator[EvalBatch]:
    """Start the workers, without the handler by which torch raises their death anywhere.

    It would strike in the middle of whatever the trainer is doing. Waiting for the next batch
    finds a dead worker as well, within five seconds.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    # Workers are born with these signals blocked, so that there is no moment without.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        with warnings.catch_warnings():
            # Python 3.12 and later: true, and so it is of every DataLoader.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            iterator = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return iterator


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Obey the trainer's own SIGTERM only; torch's workers leave when their parent has gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    if signal.SIGTERM in GROUP_SIGNALS:
        threading.Thread(target=_leave_when_the_trainer_says_so, daemon=True).start()


def _leave_when_the_trainer_says_so() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


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
