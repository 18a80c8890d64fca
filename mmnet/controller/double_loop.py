"""The double loop: a policy watches training and sets rates and regularisation by group."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from mmnet.bounds import ControllerPart, NonNegativeInt, PositiveFloat, PositiveInt
from mmnet.controller import groups, guard, shipped
from mmnet.controller.clock import decisions
from mmnet.controller.features import ACTIONS, FEATURES, Seen, Watch
from mmnet.controller.freezing import Freezing
from mmnet.controller.groups import By
from mmnet.controller.growth import Growth
from mmnet.controller.loss_guard import LossGuard
from mmnet.controller.observer import SUMS
from mmnet.controller.online import Online
from mmnet.controller.patch_dropping import PatchDropping
from mmnet.controller.regularisation import Regularisation
from mmnet.controller.steering import Steering, as_clipped
from mmnet.outer import Plan, Signal


FALLBACK = 0.006  # controller=calibrated's rho, for the rest of a run that blew up twice


class DoubleLoop(Steering):
    """At each decision the policy answers what it sees with a change of each log multiplier.

    Between decisions the multipliers hold: of each group's learning rate, and with `regularise` of
    its regularisation. Rates never move a group by more than `rho_max` of its norm. `policy`: one
    that comes with mmnet, by name, or a file of meta-training's. `shadow`: see mmnet.shadow.
    `ablation`: "none"; "identity", which decides and keeps all multipliers at 1; "permuted", the
    policy's weights at random places (a placebo); "memoryless", an LSTM whose state is cleared.

    Raises UserError for a policy that cannot be read or was trained on other features.
    """

    def __init__(
        self,
        enabled: bool,
        policy: str,
        hidden_dim: PositiveInt,
        by: Literal["parts", "blocks"],
        update_frequency: PositiveInt | None,
        rho_max: PositiveFloat,
        meta_batch: NonNegativeInt | None,
        regularise: bool,
        online: ControllerPart,
        freeze: ControllerPart,
        grow: ControllerPart,
        drop_patches: ControllerPart,
        shadow: bool,
        ablation: Literal["none", "identity", "permuted", "memoryless"],
    ) -> None:
        self.enabled, self.rho_max, self.ablation = enabled, rho_max, ablation
        self.by: By = by
        self.longest = update_frequency
        self.meta_batch = meta_batch if enabled else 0
        self.shadow = shadow
        self.acts = enabled and ablation != "identity"
        self.regularise = regularise and self.acts
        self.policy = shipped.changed(shipped.find(policy, hidden_dim), ablation)
        self.online: Online = online
        self.freezing: Freezing = freeze
        self.growth: Growth = grow
        self.patch_dropping: PatchDropping = drop_patches

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self.meta = plan.meta
        self.watch = Watch(self.kinds, plan.steps, plan.passes)
        self.when = set(decisions(plan.steps, self.longest))
        count = len(self.names)
        self.actions = torch.zeros(1, count, len(ACTIONS))
        self.limit = torch.full((1, count), torch.inf)
        self.memory = self.policy.start(count)
        self.losses: list[float] = []
        self.rate = math.nan  # the schedule's, when rates were last set
        self.guard = LossGuard(count)
        self.online.begin(plan, self.observer)
        self.freezing.begin(plan, self.observer)
        self.changes: tuple[Growth | PatchDropping, ...] = ()
        if self.acts:
            self.changes = self.growth, self.patch_dropping
        for change in self.changes:
            change.begin(plan)
        self.regularisation = None
        if self.regularise:
            self.regularisation = Regularisation(plan.model, plan.optimizer, self.names)

    def losing(self) -> dict[str, float]:
        if self.regularisation is None:
            return {}
        strength = self.regularisation.strength
        return {groups.tower(n): strength[n] for n in self.names if groups.tower(n)}

    @property
    def deciding(self) -> bool:
        return self.enabled and self.step in self.when

    @property
    def correcting(self) -> bool:
        return self.acts and self.meta is not None and self.online.due(self.step)

    def look(self) -> Tensor | None:
        """What to bring from the device in this step, beside the loss; gradients are there."""
        brought = []
        if self.deciding:
            each = self.observer.each()
            if self.freezing.enabled and self.acts:
                brought.append(each.flatten())
            else:
                brought.append(self.observer.sums(each).flatten())
            if self.meta is not None:
                brought.append(self.meta.losses())
        if self.correcting:
            brought.append(self.online.look(self.by_name))
        if self.meta is not None and brought:
            self.meta.next()
        return torch.cat(brought) if brought else None

    def steer(self, signal: Signal) -> None:
        """Set the rates of this step; `signal.seen` is what `look` gave."""
        self.decision = {}
        if not self.enabled:
            return
        self.losses.append(signal.loss)
        seen = signal.seen
        # Between decisions nothing changes but, in the warm-up, the schedule's rate.
        fresh = self.deciding or self.correcting or signal.rate != self.rate
        if self.correcting:
            width = 5 * len(self.names)
            self.online.correct(seen[-width:])
            seen = seen[:-width]
        if self.deciding:
            self.decide(signal._replace(seen=seen))
        self.step += 1
        if self.acts:
            if fresh:
                self.rate = signal.rate
                self.set()
            else:
                self.put_again()
            self.change()

    def decide(self, signal: Signal) -> None:
        seen, each = self.seen(signal)
        if seen is None:
            self.decision = {"skipped": 1.0}
            return
        log_rate = torch.full_like(self.limit, signal.rate).log() + self.actions[..., 0]
        features = self.watch.features(self.step, log_rate, self.actions, seen)
        memory = self.memory
        if self.ablation == "memoryless":
            memory = self.policy.start(len(self.names))
        out, self.memory = self.policy.act(features, memory)
        self.decision = {
            f"{group}/{name}": value
            for number, group in enumerate(self.names)
            for name, value in zip(FEATURES, features[0, number].tolist(), strict=True)
        }
        if not self.acts:
            return
        before, verdict = self.guard.judge(seen.loss.item(), self.actions)
        self.actions = before if verdict != "well" else self.guard.limited(guard.moved(before, out))
        if not self.regularise:
            self.actions[..., 1] = 0.0
        sizes = self.watch.kinds.sizes
        rho_max = self.rho_max
        if self.guard.dismissed:
            rho_max = FALLBACK * (1 - self.step / self.steps)
        self.limit = guard.largest_rate(seen.weight, seen.update, sizes, rho_max)
        if verdict != "well":
            self.decision[verdict.replace(" ", "_")] = 1.0
        if each is not None:
            rates = torch.tensor([self.by_name.get(name, 0.0) for name in self.names])
            self.decision |= self.freezing.decide(self.step, each, rates)
        self.decision |= {
            f"{group}/{name}": value
            for name, values in (
                ("multiplier", self.multipliers()[0, :, 0]),
                ("strength_multiplier", self.multipliers()[0, :, 1]),
                ("limit", self.limit[0]),
                ("correction", self.online.bias[0, :, 0].exp()),
            )
            for group, value in zip(self.names, values.tolist(), strict=True)
        }

    def multipliers(self) -> Tensor:
        """[1, G, 2] of rate and regularisation, as policy and online loop have it together."""
        return (self.actions + self.online.bias).exp()

    def set(self) -> None:
        """Rates and regularisation of the step to come."""
        multipliers = self.multipliers()
        rates = torch.minimum(self.rate * multipliers[..., 0], self.limit)
        self.put(self.limit if self.guard.dismissed else rates)
        if self.regularisation is not None:
            strength = multipliers[0, :, 1].tolist()
            self.regularisation.set(dict(zip(self.names, strength, strict=True)))

    def change(self) -> None:
        """The network itself, where that is asked for."""
        if self.freezing.enabled:
            self.freezing.prepare(due=self.step in self.when)
        for change in self.changes:
            self.decision |= change.prepare(self.step)

    def seen(self, signal: Signal) -> tuple[Seen | None, Tensor | None]:
        """What was brought, in order, and the sums of each parameter where freezing wants them.

        None if some of it is not finite: then nothing is decided.
        """
        by_parameter = self.freezing.enabled and self.acts
        rows = len(self.observer.parameters) if by_parameter else len(self.names)
        sums = as_clipped(torch.tensor(signal.seen[: rows * SUMS]).view(rows, SUMS), signal)
        each = sums if by_parameter else None
        if by_parameter:
            group = self.observer.group.cpu()
            sums = torch.zeros(len(self.names), SUMS).index_add(0, group, sums)
        if not sums.isfinite().all():
            return None, None
        loss = torch.tensor([sum(self.losses) / len(self.losses)])
        self.losses = []
        grad, dot, update, weight = sums.T[:, None]
        dropped = torch.zeros_like(grad)
        if self.regularisation is not None:
            dropped = self.regularisation.dropped()
        meta = without = None
        if self.meta is not None:
            whole, *others = signal.seen[rows * SUMS :]
            by_tower = dict(zip(self.meta.modalities, others, strict=True))
            towers = [by_tower.get(groups.tower(group), math.nan) for group in self.names]
            meta, without = torch.tensor([whole]), torch.tensor([towers])
        return Seen(grad, dot, update, weight, loss, meta, without, dropped), each

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "losses": list(self.losses),
            "actions": self.actions,
            "limit": self.limit,
            "memory": list(self.memory),
            "watch": self.watch.state_dict(),
            "guard": self.guard.state_dict(),
            "online": self.online.state_dict(),
            "freezing": self.freezing.state_dict(),
            "changes": [change.state_dict() for change in self.changes],
            "turn": 0 if self.meta is None else self.meta.turn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.losses = list(state["losses"])
        self.actions, self.limit = state["actions"], state["limit"]
        hidden, cell = state["memory"]
        self.memory = hidden, cell
        self.watch.load_state_dict(state["watch"])
        self.guard.load_state_dict(state["guard"])
        self.online.load_state_dict(state["online"])
        self.freezing.load_state_dict(state["freezing"])
        for change, its in zip(self.changes, state["changes"], strict=True):
            change.load_state_dict(its)
        if self.meta is not None:
            self.meta.turn = state["turn"]
        if self.regularisation is not None and self.step:
            strength = self.multipliers()[0, :, 1].tolist()
            self.regularisation.set(dict(zip(self.names, strength, strict=True)))
