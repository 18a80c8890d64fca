"""What a policy sees of a run: numbers without units, for each group of parameters.

Used twice, by the controller in a real run (P = 1, on the CPU, where the sums come in one copy)
and by meta-training on P small runs at once, so that both see the same. All of it is fp32.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


FEATURES = (
    "rho",  # log10 of the relative update |lr u| / |theta|, if the action stays as it is; + 2.5
    "cos_fast",  # of the gradient with the last update, mean of a few decisions over its noise
    "cos_slow",  # the same over many decisions
    "cos_all",  # the same of all groups as one vector
    "grad_growth",  # of the gradient norm, lately against before
    "grad_share",  # log10 of the mean squared gradient against that of all groups
    "u_rms",  # log10 of the mean squared update + 1: signal to noise, for Adam
    "weight_growth",  # log of the weight norm against that at the start
    "loss_fast",  # training loss, lately against before, in units of its noise
    "loss_slow",  # the same on a longer scale
    "loss_level",  # training loss against that at the start, - 1
    "loss_gap",  # training loss above its best so far
    "gap",  # loss on the meta-batch minus training loss
    "gap_growth",  # lately against before
    "meta_rise",  # loss on the meta-batch above its best so far
    "worth",  # of a tower: what the meta-batch loses without its modality; else 0
    "worth_share",  # of a tower: its worth minus the mean worth of the towers; else 0
    "tower",  # 1 for an encoder's group, else 0
    "fusion",  # 1 for the fusion's group, else 0
    "time",  # -1 at the start, 1 at the end
    "early",  # 1 at the start, gone after a tenth of the run
    "late",  # 1 at the end, nothing before its last third
    "left",  # log10 of the share of the run that is left, -2 at least
    "log_steps",  # log10 of the steps of the run, - 2.5
    "log_passes",  # log10 of 1 + how often each sample will be seen, 2 at most
    "action",  # the log multiplier in force, in units of its bound
    "strength",  # the log multiplier of the regularisation in force, in units of its bound
    "dropout",  # the share that dropout drops in the group
)
VERSION = 3
SCHEMA = hashlib.sha256(f"v{VERSION}:{','.join(FEATURES)}".encode()).hexdigest()[:16]

ACTIONS = ("rate", "strength")  # what a policy changes: log multipliers of a group
BOUNDS = torch.tensor([math.log(100.0), math.log(4.0)])  # a rate's stays within 1/100 and 100
FLOOR = 1e-3  # of the rms of a group's weights, where they are all but zero
WORST = 10.0  # times the first loss: what is read for a loss that is larger or not finite


class Kinds(NamedTuple):
    """What the groups are, [G] each."""

    sizes: Tensor  # how many weights, fp32
    tower: Tensor  # 1.0 for an encoder's
    fusion: Tensor  # 1.0 for the fusion's


class Seen(NamedTuple):
    """What one decision is told; P runs, G groups."""

    grad: Tensor  # [P, G] |g|^2 of this step's gradient
    dot: Tensor  # [P, G] <g, u>, u the last update by the optimizer, rate left out
    update: Tensor  # [P, G] |u|^2
    weight: Tensor  # [P, G] |theta|^2
    loss: Tensor  # [P] training loss, mean over the steps since the last decision
    meta: Tensor | None  # [P] loss on the meta-batch; None without one
    without: Tensor | None  # [P, G] the same without the tower's modality; NaN where unknown
    dropout: Tensor  # [P, G] share that is dropped; 0 where there is no dropout


@dataclass
class Watch:
    """Turns what is seen into features; its memory is in `state`, plain tensors by name."""

    kinds: Kinds
    steps: int  # of the whole run
    passes: float  # how often each sample will be seen in it
    decided: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def features(self, step: int, log_rate: Tensor, actions: Tensor, seen: Seen) -> Tensor:
        """[P, G, F] of `FEATURES`. log_rate [P, G] of the rates in force; actions [P, G, 2]."""
        action, strength = (actions / BOUNDS.to(actions.device)).unbind(2)
        groups = action.shape[1]
        first = self.keep("first", seen.loss.abs().clamp_min(1e-8))
        loss = self.bounded(seen.loss, first)
        meta = loss if seen.meta is None else self.bounded(seen.meta, first)

        cos = seen.dot / (seen.grad * seen.update + 1e-30).sqrt()
        together = seen.dot.sum(1) / (seen.grad.sum(1) * seen.update.sum(1) + 1e-30).sqrt()
        noise = self.mean("cos2", cos * cos, 0.9).sqrt() + 1e-8
        noise_all = self.mean("all2", together * together, 0.9).sqrt() + 1e-8
        cos_fast, cos_slow = self.mean("cos.5", cos, 0.5), self.mean("cos.9", cos, 0.9)
        cos_all = self.mean("all.9", together, 0.9)
        log_grad = 0.5 * (seen.grad + 1e-30).log()
        grad_growth = self.mean("grad.5", log_grad, 0.5) - self.mean("grad.9", log_grad, 0.9)

        before = self.state.get("loss.9", loss)
        fast, slow = self.mean("loss.5", loss, 0.5), self.mean("loss.9", loss, 0.9)
        slowest = self.mean("loss.98", loss, 0.98)
        spread = self.mean("spread", (loss - before) ** 2, 0.9).sqrt() + 1e-3 * first
        best = self.least("best", fast)
        meta_fast = self.mean("meta.5", meta, 0.5)
        gap = meta_fast - fast
        gap_slow = self.mean("gap.9", gap, 0.9)
        rise = meta_fast - self.least("meta.best", meta_fast)

        weight_0 = self.keep("weight", seen.weight)
        floor = FLOOR * self.kinds.sizes.sqrt()
        relative = log_rate + 0.5 * (seen.update + 1e-30).log()
        rho = (relative - torch.maximum(seen.weight.sqrt(), floor).log()) / math.log(10)
        mean_grad = seen.grad.sum(1, keepdim=True) / self.kinds.sizes.sum()
        share = torch.log10((seen.grad / self.kinds.sizes + 1e-30) / (mean_grad + 1e-30))
        worth, worth_share = self.worth(meta, first, seen.without)

        done = step / self.steps

        def wide(x: Tensor) -> Tensor:
            return x[:, None].expand(-1, groups)

        def constant(x: float) -> Tensor:
            return torch.full_like(action, x)

        columns = {
            "rho": (rho + 2.5).clamp(-3, 3),
            "cos_fast": cos_fast / noise,
            "cos_slow": cos_slow / noise,
            "cos_all": wide(cos_all / noise_all),
            "grad_growth": grad_growth.tanh(),
            "grad_share": share.clamp(-2, 2),
            "u_rms": ((seen.update / self.kinds.sizes).clamp_min(1e-6).log10() + 1).clamp(-2, 2),
            "weight_growth": (0.5 * ((seen.weight + 1e-12) / (weight_0 + 1e-12)).log()).clamp(
                -2, 2
            ),
            "loss_fast": wide(((fast - slow) / spread).tanh()),
            "loss_slow": wide(((slow - slowest) / spread).tanh()),
            "loss_level": wide((fast / first - 1).clamp(-1, 2)),
            "loss_gap": wide((4 * (fast - best) / first).clamp(0, 2)),
            "gap": wide((gap / first).clamp(-1, 2)),
            "gap_growth": wide(((gap - gap_slow) / spread).tanh()),
            "meta_rise": wide((4 * rise / first).clamp(0, 2)),
            "worth": worth,
            "worth_share": worth_share,
            "tower": self.kinds.tower.expand_as(action),
            "fusion": self.kinds.fusion.expand_as(action),
            "time": constant(2 * done - 1),
            "early": constant(math.exp(-done / 0.05)),
            "late": constant(math.exp(-(1 - done) / 0.1)),
            "left": constant(max(-2.0, math.log10(1 - done))),
            "log_steps": constant(math.log10(self.steps) - 2.5),
            "log_passes": constant(min(2.0, math.log10(1 + self.passes))),
            "action": action,
            "strength": strength,
            "dropout": seen.dropout,
        }
        self.decided += 1
        return torch.stack([columns[name] for name in FEATURES], 2)

    def worth(self, meta: Tensor, first: Tensor, without: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each tower's, and how that differs from the towers' mean; 0 where nobody knows."""
        tower = self.kinds.tower
        if without is None:
            zero = torch.zeros(len(meta), len(tower))
            return zero, zero
        lost = (without - meta[:, None]) / first[:, None]
        known = tower * without.isfinite()
        worth = lost.nan_to_num(0.0, 0.0, 0.0).clamp(-1, 2) * known
        middle = worth.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
        return worth, (worth - middle) * known

    def bounded(self, loss: Tensor, first: Tensor) -> Tensor:
        """A loss that is not finite, or far above the first one, as the worst one."""
        return torch.nan_to_num(loss, nan=math.inf, posinf=math.inf).minimum(WORST * first)

    def mean(self, name: str, x: Tensor, decay: float) -> Tensor:
        """Exponential mean over decisions that begins as a plain one."""
        old = self.state.get(name, x)
        share = 1 - min(decay, self.decided / (self.decided + 1))
        self.state[name] = old + share * (x - old)
        return self.state[name]

    def keep(self, name: str, x: Tensor) -> Tensor:
        """What it was at the first decision."""
        return self.state.setdefault(name, x.clone())

    def least(self, name: str, x: Tensor) -> Tensor:
        """The least so far."""
        self.state[name] = torch.minimum(self.state.get(name, x), x)
        return self.state[name]

    def state_dict(self) -> dict[str, Any]:
        return {"decided": self.decided, "state": dict(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.decided, self.state = state["decided"], dict(state["state"])
