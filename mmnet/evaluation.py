"""One pass over a split: the head's loss and metrics."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmnet.data.loader import EvalBatch
from mmnet.errors import UserError
from mmnet.hardware import Machine
from mmnet.stop import Stop


class Interrupted(Exception):
    """A signal came in the middle of an evaluation, which is given up."""


class Evaluation(NamedTuple):
    """What an evaluation found."""

    values: dict[str, float]  # "loss" and the head's scalar metrics
    tables: dict[str, Tensor]  # the head's other metrics: "confusion" [C, C], truth by answer
    bad: list[tuple[str, str]]  # (key, reason) of every sample that could not be read


def evaluate(
    network: nn.Module, batches: Iterable[EvalBatch], machine: Machine, stop: Stop
) -> Evaluation:
    """Evaluate `network` (encoders, fusion, head); its training mode is left as it was.

    The loss is the mean over samples, not over batches. Raises Interrupted when `stop` is
    requested, and UserError when no sample can be read.
    """
    head: Any = network.head
    metrics = head.metrics().to(machine.device)
    loss, count, bad = 0.0, 0, []
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            for batch, indices, broken in batches:
                if stop.requested:
                    raise Interrupted
                bad += broken
                if batch is None:
                    continue
                with machine.autocast():
                    logits = network(batch.inputs)
                loss += head.loss(logits, batch.targets).item() * len(indices)
                count += len(indices)
                head.update(metrics, logits.float(), batch.targets)
    finally:
        network.train(training)
    if not count:
        raise UserError("no sample to evaluate on could be read")
    found = metrics.compute()
    scalars = {name: value.item() for name, value in found.items() if value.ndim == 0}
    tables = {name: value.cpu() for name, value in found.items() if value.ndim > 0}
    return Evaluation({"loss": loss / count, **scalars}, tables, bad)
