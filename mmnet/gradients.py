"""The gradients of one optimizer step, in the way that its head's loss needs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as compiled

from mmnet import gradcache
from mmnet.data.loader import TrainStep
from mmnet.interfaces import Answers, Batch
from mmnet.job import Job


def accumulate(
    job: Job, network: Callable[..., Any], parameters: list[nn.Parameter], data: TrainStep
) -> Tensor:
    """Add the gradients of the mean loss over the samples of `data`; returns it, detached.

    Micro-batches weigh as many samples as they hold, so splitting the batch changes nothing.
    """
    head: Any = job.model.head
    device = job.machine.device

    def forward(batch: Batch) -> Answers:
        with job.machine.autocast():
            answers: Answers = network(batch.inputs, batch.targets.get("group"))
        return answers

    if getattr(head, "per_task", False):
        return separately(job, forward, parameters, data)
    if head.whole_batch:
        return gradcache.backward(data.batches, forward, head.loss, job.scaler.scale, device)
    total = torch.zeros((), device=device)
    for batch in data.batches:
        share = batch.size / data.samples
        loss = head.loss(forward(batch), batch.targets)
        asked: Tensor = job.scaler.scale(job.balance.loss(loss, batch, share) * share)
        asked.backward()  # type: ignore[no-untyped-call]
        total += loss.detach() * share
    return total


def separately(
    job: Job, forward: gradcache.Forward, parameters: list[nn.Parameter], data: TrainStep
) -> Tensor:
    """The same for a multitask head that wants each task's gradients by themselves."""
    head: Any = job.model.head
    parameters = [p for p in parameters if p.requires_grad]  # some may be frozen by now
    gradients: dict[str, list[Tensor | None]] = {}
    means: dict[str, Tensor] = {}
    # Compiled code may otherwise overwrite what forward kept, which one backward can bear.
    with compiled.patch(donated_buffer=False):
        for batch in data.batches:
            losses = head.losses(forward(batch), batch.targets)
            for number, (task, loss) in enumerate(losses.items(), start=1):
                loss = loss * (batch.size / data.samples)
                found = torch.autograd.grad(
                    job.scaler.scale(loss),
                    parameters,
                    retain_graph=number < len(losses),
                    allow_unused=True,
                )
                before = gradients.setdefault(task, [None] * len(parameters))
                gradients[task] = [add(a, b) for a, b in zip(before, found, strict=True)]
                means[task] = means.get(task, 0) + loss.detach()
    combined = head.combine(gradients, means)
    for parameter, gradient in zip(parameters, combined, strict=True):
        if gradient is not None:
            parameter.grad = add(parameter.grad, gradient)
    return torch.stack(list(means.values())).sum()


def add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Their sum, where None is zero."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
