"""Which weights are evaluated and saved: the trained ones, or an average of them."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn


class Average(Protocol):
    """Follows training and hands out the network to evaluate."""

    def update(self, step: int) -> None:
        """After optimizer step `step`."""

    def evaluated(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The network with the weights to evaluate; training's own are untouched afterwards."""

    def averaged(self) -> dict[str, Tensor] | None:
        """The weights to evaluate, where they differ from the trained ones."""

    def load(self, averaged: dict[str, Tensor] | None) -> None:
        """Go on from what `averaged` gave."""


class Last:
    """No average: the weights of the last step."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def update(self, step: int) -> None:
        pass

    def evaluated(self) -> contextlib.AbstractContextManager[nn.Module]:
        return contextlib.nullcontext(self.model)

    def averaged(self) -> dict[str, Tensor] | None:
        return None

    def load(self, averaged: dict[str, Tensor] | None) -> None:
        pass


class Ema:
    """Exponential moving average, by timm.

    `decay` is reached gradually, as min(decay, 1 - step^(-2/3)): a short run would otherwise
    end with an average of mostly random weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True, foreach=True)

    def update(self, step: int) -> None:
        self.ema.update(self.model, step)

    def evaluated(self) -> contextlib.AbstractContextManager[nn.Module]:
        return contextlib.nullcontext(self.ema.module)

    def averaged(self) -> dict[str, Tensor] | None:
        return dict(self.ema.module.state_dict())

    def load(self, averaged: dict[str, Tensor] | None) -> None:
        assert averaged is not None
        self.ema.module.load_state_dict(averaged)


class ScheduleFree:
    """The average that a Schedule-Free optimizer keeps between its two sequences.

    Its eval() and train() move the weights back and forth by rounding arithmetic, so the
    trained ones are put back from a copy: evaluating must not change training by one bit.
    """

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer

    def update(self, step: int) -> None:
        pass

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        trained = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer.eval()
        try:
            yield self.model
        finally:
            self.optimizer.train()
            with torch.no_grad():
                for parameter, value in zip(self.model.parameters(), trained, strict=True):
                    parameter.copy_(value)

    def averaged(self) -> dict[str, Tensor] | None:
        with self.evaluated() as model:
            return {name: value.clone() for name, value in model.state_dict().items()}

    def load(self, averaged: dict[str, Tensor] | None) -> None:
        pass  # the optimizer's state holds it


def follow(model: nn.Module, optimizer: Any, ema_decay: float | None) -> Average:
    """The average that a run asks for."""
    if ema_decay is not None:
        return Ema(model, ema_decay)
    if isinstance(optimizer, torch.optim.Optimizer) and "train_mode" in optimizer.param_groups[0]:
        return ScheduleFree(model, optimizer)
    return Last(model)
