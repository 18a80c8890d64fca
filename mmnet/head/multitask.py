"""Several heads on one network, each with a name, a weight and metrics of its own."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from hydra.utils import get_object
from torch import Tensor, nn

from mmnet.bounds import Heads, NonNegativeFloat, PositiveFloat
from mmnet.errors import UserError, refuse_other_names
from mmnet.head.balance import Gradients, GradNorm, PCGrad, Uncertainty
from mmnet.interfaces import Answers, Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Multitask(nn.Module):
    """Every task's answers to the same fused vectors. forward: Fused -> {task: [B, ...]}.

    A task that answers several things has them as "task/name". Loss: the sum of the tasks',
    times their `weights`. In training it is balanced by `weighting`: fixed leaves it so;
    uncertainty learns a factor for each task; pcgrad and gradnorm work on the gradients of each
    task by itself (`losses` and `combine`), see mmnet.head.balance. An evaluation is by the
    weights alone, so that one can be compared with the next. `alpha` is GradNorm's: 0 lets all
    tasks pull alike, more hurries those that lag behind.

    Raises UserError unless `weights` names each task, and nothing else.
    """

    def __init__(
        self,
        make_head: Callable[[dict[str, Any]], Any],
        tasks: Heads,
        weighting: Literal["fixed", "uncertainty", "pcgrad", "gradnorm"],
        weights: dict[str, PositiveFloat],
        alpha: NonNegativeFloat,
    ) -> None:
        super().__init__()
        refuse_other_names("head.weights", "task", weights, tasks)
        made = {name: make_head(part) for name, part in tasks.items()}
        self.tasks = nn.ModuleDict(made)
        # Not in the checkpoint: the config says them.
        self.weights: Tensor
        self.register_buffer(
            "weights", torch.tensor([weights[name] for name in tasks]), persistent=False
        )
        balances: dict[str, Callable[[], nn.Module]] = {
            "fixed": nn.Identity,
            "uncertainty": lambda: Uncertainty(len(tasks)),
            "pcgrad": PCGrad,
            "gradnorm": lambda: GradNorm(len(tasks), alpha),
        }
        self.balance = balances[weighting]()
        self.learns_factors = weighting == "uncertainty"
        self.per_task = weighting in ("pcgrad", "gradnorm")
        heads = list(made.values())
        self.targets = every([head.targets for head in heads])
        self.modalities = every([head.modalities for head in heads])
        self.whole_batch = any(head.whole_batch for head in heads)
        self.higher_is_better = {
            f"{name}_{metric}": better
            for name, head in made.items()
            for metric, better in head.higher_is_better.items()
        }
        self.hide = next((head.hide for head in heads if "tokens" in head.targets), None)

    @staticmethod
    def check(tasks: dict[str, Any], weights: dict[str, float], **_: Any) -> None:
        """Refuse what the tasks themselves refuse, or cannot be together. Raises UserError."""
        refuse_other_names("head.weights", "task", weights, tasks)
        hiding = []
        for name, part in tasks.items():
            if "tasks" in part:
                raise UserError(
                    f"head.tasks.{name} is made of tasks itself: name them in head.tasks"
                )
            head = get_object(part["_target_"])
            if "tokens" in head.targets:
                hiding.append(f"head.tasks.{name}")
            if hasattr(head, "check"):
                try:
                    head.check(**{key: value for key, value in part.items() if key != "_target_"})
                except UserError as error:
                    raise UserError(str(error).replace("head.", f"head.tasks.{name}.")) from None
        if len(hiding) > 1:
            raise UserError(f"{' and '.join(hiding)} would hide words of one text: leave one out")

    def forward(self, fused: Fused) -> dict[str, Tensor]:
        answers = {}
        for name, head in self.tasks.items():
            of_task = head(fused)
            if isinstance(of_task, Tensor):
                answers[name] = of_task
            else:
                answers |= {f"{name}/{key}": value for key, value in of_task.items()}
        return answers

    def losses(self, answers: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each task's loss times its weight."""
        return {
            name: weight * head.loss(of_task(answers, name), targets)
            for (name, head), weight in zip(self.heads(), self.weights, strict=True)
        }

    def loss(self, answers: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        losses = torch.stack(list(self.losses(answers, targets).values()))
        if self.learns_factors and self.training:
            losses = self.balance(losses, self.weights)
        return losses.sum()

    def combine(self, gradients: dict[str, Gradients], means: dict[str, Tensor]) -> Gradients:
        """One gradient a parameter, of those of the mean of each of `losses`."""
        combined: Gradients = self.balance(
            list(gradients.values()), torch.stack(list(means.values())), self.weights
        )
        return combined

    def metrics(self) -> "TaskMetrics":
        return TaskMetrics({name: head.metrics() for name, head in self.heads()})

    def update(
        self, metrics: "TaskMetrics", answers: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> None:
        for name, head in self.heads():
            head.update(metrics.of_task(name), of_task(answers, name), targets)

    def words(
        self, answers: dict[str, Tensor], targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        """All tasks side by side; right if all are that can be."""
        columns = [
            head.words(of_task(answers, name), targets, names) for name, head in self.heads()
        ]
        rows = []
        for row in zip(*columns, strict=True):
            marks = [right for _, _, right in row if right is not None]
            rows.append(
                (
                    " · ".join(truth for truth, _, _ in row),
                    " · ".join(answer for _, answer, _ in row),
                    all(marks) if marks else None,
                )
            )
        return rows

    def heads(self) -> list[tuple[str, Any]]:
        return list(self.tasks.items())


class TaskMetrics(nn.ModuleDict):
    """Each task's metrics; what they find is called "task_metric"."""

    def __init__(self, metrics: "dict[str, MetricCollection]") -> None:
        super().__init__({name: one.clone(prefix=f"{name}_") for name, one in metrics.items()})

    def of_task(self, name: str) -> Any:
        return self[name]

    def compute(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name in self:
            found |= self.of_task(name).compute()
        return found


def of_task(answers: dict[str, Tensor], name: str) -> Answers:
    """What a task answered, under the names that it gave."""
    if name in answers:
        return answers[name]
    own = f"{name}/"
    return {key.removeprefix(own): value for key, value in answers.items() if key.startswith(own)}


def every(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """All names, each once."""
    return tuple(dict.fromkeys(name for one in lists for name in one))
