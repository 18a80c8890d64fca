"""One training run, built and in motion: its objects, and their state as plain data."""

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmnet.average import Average
from mmnet.checkpoint import Checkpoint
from mmnet.config import Run
from mmnet.data.bad import BadSamples
from mmnet.data.loader import Reading
from mmnet.hardware import Machine
from mmnet.interfaces import Names, Optimizer, Schedule, Split
from mmnet.model import Multimodal
from mmnet.outer import Balance, Controller


@dataclass
class Counters:
    """The counters of a run; everything in here is part of a checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    samples: int = 0  # that went through the network
    seconds: float = 0.0  # spent in steps, over all starts of the run
    first_step_after: float = 0.0  # seconds from the start of the process, first start only
    evaluated_at: int = 0  # the last step that was evaluated
    final: dict[str, float] = field(default_factory=dict)  # the last evaluation
    best: dict[str, float] = field(default_factory=dict)  # the best one
    best_step: int = 0
    without_best: int = 0  # evaluations since the best one
    skipped: int = 0  # steps whose loss or gradient was not finite
    recently_skipped: list[int] = field(default_factory=list)  # those among the last 100


@dataclass
class Job:
    """Everything the loop works with."""

    run: Run
    folder: Path
    machine: Machine
    model: Multimodal
    reading: Reading
    optimizer: Optimizer
    schedule: Schedule
    balance: Balance
    controller: Controller
    scaler: torch.amp.GradScaler
    average: Average
    train: Split
    val: Split
    names: Names
    bad: BadSamples
    total: int  # optimizer steps of the whole run
    counters: Counters
    modalities: dict[str, Any] = field(default_factory=dict)  # see mmnet.contribution.report

    def state(self) -> dict[str, Any]:
        """All but the weights, in types that torch loads with weights_only."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "balance": self.balance.state_dict(),
            "controller": self.controller.state_dict(),
            "bad": self.bad.state_dict(),
            "counters": asdict(self.counters),
            "rng": rng_state(self.machine.device),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `checkpoint` was taken. A missing piece is a KeyError."""
        state = checkpoint.state
        self.model.load_state_dict(checkpoint.weights)
        self.average.load(checkpoint.averaged)
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty unless the run was in fp16 then
            self.scaler.load_state_dict(state["scaler"])
        self.balance.load_state_dict(state["balance"])
        self.controller.load_state_dict(state["controller"])
        self.bad.load_state_dict(state["bad"])
        self.counters = Counters(**state["counters"])
        set_rng_state(state["rng"], self.machine.device)


def seed_everything(seed: int) -> None:
    """Seed every generator that a part may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state(device: torch.device) -> dict[str, Any]:
    """Every generator's state, as tensors and plain numbers."""
    version, words, gauss = random.getstate()
    words_of_numpy: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = words_of_numpy
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """What `rng_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
