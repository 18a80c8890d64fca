"""One pass over a split: the head's loss and metrics."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmnet.data.loader import EvalBatch, eval_batches
from mmnet.errors import UserError
from mmnet.gradcache import joined, together
from mmnet.hardware import Machine
from mmnet.interfaces import Answers, Batch, Split
from mmnet.job import Job
from mmnet.stop import Stop


class Interrupted(Exception):
    """A signal came in the middle of an evaluation, which is given up."""


class Losses:
    """The mean loss over samples that come in batches."""

    def __init__(self, head: Any, loss_batch: int) -> None:
        self.head, self.loss_batch = head, loss_batch
        self.held: list[tuple[Answers, Batch]] = []  # compared with one another, not yet done
        self.total, self.samples = 0.0, 0

    def add(self, answers: Answers, batch: Batch) -> None:
        self.held.append((answers, batch))
        self.samples += batch.size
        if not self.head.whole_batch or self._holding() >= self.loss_batch:
            self.close()

    def close(self) -> None:
        """Take the loss over what is held."""
        if self.held:
            answers = joined([one for one, _ in self.held])
            loss = self.head.loss(answers, together([batch for _, batch in self.held]))
            self.total += loss.item() * self._holding()
            self.held = []

    def mean(self) -> float:
        return self.total / self.samples

    def _holding(self) -> int:
        return sum(batch.size for _, batch in self.held)


class Evaluation(NamedTuple):
    """What an evaluation found."""

    values: dict[str, float]  # "loss" and the head's scalar metrics
    tables: dict[str, Tensor]  # the head's other metrics: "confusion" [C, C], truth by answer
    bad: list[tuple[str, str]]  # (key, reason) of every sample that could not be read


def evaluate_split(
    job: Job, split: Split, stop: Stop, *, num_workers: int, limit: int | None = None
) -> Evaluation:
    """Evaluate a split, or its first `limit` samples, with the weights that the run hands out."""
    batches = eval_batches(
        split,
        job.reading,
        batch_size=job.run.micro_batch_size,
        num_workers=num_workers,
        device=job.machine.device,
        limit=limit,
    )
    with job.average.evaluated() as network:
        return evaluate(network, batches, job.machine, stop, job.run.trainer.batch_size)


def evaluate(
    network: nn.Module,
    batches: Iterable[EvalBatch],
    machine: Machine,
    stop: Stop,
    loss_batch: int,
) -> Evaluation:
    """Evaluate `network` (encoders, fusion, head); its training mode is left as it was.

    The loss is the mean over samples, not over batches. A loss that compares samples is taken
    over `loss_batch` of them at a time, however many go through the network at once; the last
    of these batches is smaller, and each counts by its samples. Raises
    Interrupted when `stop` is requested, and UserError when no sample can be read.
    """
    head: Any = network.head
    metrics = head.metrics().to(machine.device)
    bad: list[tuple[str, str]] = []
    losses = Losses(head, loss_batch)
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            for batch, _, broken in batches:
                if stop.requested:
                    raise Interrupted
                bad += broken
                if batch is None:
                    continue
                with machine.autocast():
                    answers = network(batch.inputs)
                losses.add(answers, batch)
                head.update(metrics, answers, batch.targets)
            losses.close()
    finally:
        network.train(training)
    if not losses.samples:
        raise UserError("no sample to evaluate on could be read")
    found = metrics.compute()
    scalars = {name: value.item() for name, value in found.items() if value.ndim == 0}
    tables = {name: value.cpu() for name, value in found.items() if value.ndim > 0}
    return Evaluation({"loss": losses.mean(), **scalars}, tables, bad)
