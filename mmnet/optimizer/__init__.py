"""Optimizers: one builder a file; weight decay spares biases, norms and single tokens."""

from collections.abc import Container, Iterable
from typing import Any

from torch import Tensor, nn

from mmnet.errors import UserError


def decay_groups(
    model: nn.Module, weight_decay: float, leave_out: Container[int] = ()
) -> list[dict[str, Any]]:
    """Trainable parameters in groups: matrices, which decay, and vectors, which do not.

    A class token [1, 1, D] is a vector too. Each is split by its share of the learning rate,
    see `by_rate`. `leave_out`: ids of parameters that another optimizer has.

    Raises UserError when nothing of the model is trained.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError(
            "nothing is left to train: every encoder is frozen (tuning.image.freeze, "
            "tuning.text.freeze), and fusion and head have no parameters"
        )
    kept = [parameter for parameter in trained if id(parameter) not in leave_out]
    matrices = [parameter for parameter in kept if parameter.squeeze().ndim >= 2]
    vectors = [parameter for parameter in kept if parameter.squeeze().ndim < 2]
    return [{**group, "weight_decay": weight_decay} for group in by_rate(matrices)] + [
        {**group, "weight_decay": 0.0} for group in by_rate(vectors)
    ]


def by_rate(parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Groups of one `lr_scale` and one `control` each: a parameter's attributes of these names.

    Without them they are 1 and None. `control`: whom a controller steers together.

    The loop sets each group's rate to that of the step times its `lr_scale`.
    """
    groups: dict[tuple[float, Any], list[Tensor]] = {}
    for parameter in parameters:
        key = getattr(parameter, "lr_scale", 1.0), getattr(parameter, "control", None)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": groups[scale, control], "lr_scale": scale, "control": control}
        for scale, control in sorted(groups, key=lambda key: -key[0])
    ]
