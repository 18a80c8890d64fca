"""Backward for losses that compare the samples of a batch, a micro-batch at a time.

GradCache (Gao et al., arXiv 2101.06983): answers of all micro-batches without a graph, one loss
over all of them, and its gradient with respect to each answer; then each micro-batch again,
with a graph, that gradient as what comes from above. The gradients are those of the whole
batch, at the memory of one micro-batch and the price of a second forward.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmnet.interfaces import IGNORED, Answers, Batch


Forward = Callable[[Batch], Answers]


def together(batches: list[Batch]) -> dict[str, Tensor]:
    """The targets of several batches as of one."""
    return {name: stack([b.targets[name] for b in batches]) for name in batches[0].targets}


def joined(answers: list[Answers]) -> Answers:
    """The answers to several batches as to one."""
    if isinstance(answers[0], Tensor):
        return stack([one for one in answers if isinstance(one, Tensor)])
    named: list[Any] = answers
    return {name: stack([one[name] for one in named]) for name in named[0]}


def stack(parts: list[Tensor]) -> Tensor:
    """Along the samples; tokens grow to the longest text, by what a loss leaves out."""
    if parts[0].ndim == 1 or len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(parts)
    longest = max(part.shape[1] for part in parts)
    fill = IGNORED if parts[0].dtype == torch.int64 else 0
    padded = []
    for part in parts:
        room = part.new_full((part.shape[0], longest, *part.shape[2:]), fill)
        room[:, : part.shape[1]] = part
        padded.append(room)
    return torch.cat(padded)


def backward(
    batches: list[Batch],
    forward: Forward,
    loss_of: Callable[[Answers, dict[str, Tensor]], Tensor],
    scale: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Tensor:
    """Add the gradients of the loss over all `batches`; returns it, detached.

    `scale` is the gradient scaler's. Dropout draws the same numbers in both passes.
    """
    if len(batches) == 1:
        loss = loss_of(forward(batches[0]), batches[0].targets)
        scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    states, cached = [], []
    with torch.no_grad():
        for batch in batches:
            states.append(random_state(device))
            cached.append(forward(batch))
    after = random_state(device)
    leaves = [leaf(answers) for answers in cached]
    loss = loss_of(joined(leaves), together(batches))
    scale(loss).backward()  # type: ignore[no-untyped-call]
    for batch, state, above in zip(batches, states, leaves, strict=True):
        set_random_state(state, device)
        below = tensors(forward(batch))
        gradients = [part.grad for part in tensors(above)]
        # An answer that no parameter has a part in, such as that to a modality that is not there,
        # has nowhere to hand its gradient to.
        pairs = [
            (b, g)
            for b, g in zip(below, gradients, strict=True)
            if g is not None and b.requires_grad
        ]
        torch.autograd.backward([b for b, _ in pairs], [g for _, g in pairs])
    set_random_state(after, device)
    return loss.detach()


def leaf(answers: Answers) -> Answers:
    """The same numbers, as something to take gradients with respect to."""

    def own(part: Tensor) -> Tensor:
        return part.detach().requires_grad_(part.is_floating_point())

    if isinstance(answers, Tensor):
        return own(answers)
    return {name: own(part) for name, part in answers.items()}


def tensors(answers: Answers) -> list[Tensor]:
    return [answers] if isinstance(answers, Tensor) else list(answers.values())


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the generators that a forward pass draws from."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
