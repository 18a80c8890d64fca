"""The learnt part of the double loop: features in, a change of each group's rate out."""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmnet.controller.features import ACTIONS, FEATURES, SCHEMA
from mmnet.errors import UserError, first_line


Kind = Literal["lstm", "linear"]
State = tuple[Tensor, Tensor]  # hidden and cell, [P, G, H] each


class Policy(NamedTuple):
    """P policies of one kind, side by side; a shipped one has P = 1.

    linear: o = x . skip + bias. lstm: the same plus a readout of an LSTM over decisions, its
    weights shared by all groups, its state each group's own; gates in the order input, forget,
    cell, output, one bias, 1 added to the forget gate.
    """

    kind: Kind
    hidden: int
    weights: dict[str, Tensor]  # [P, in, out] each

    def start(self, groups: int) -> State:
        zero = torch.zeros(len(self.weights["skip"]), groups, self.hidden)
        return zero, zero

    def act(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """[P, G, F] -> [P, G, A] of `ACTIONS`, any real numbers; and the next state."""
        w = self.weights
        out = features @ w["skip"] + w["bias"]
        if self.kind == "lstm":
            h, c = state
            gates = features @ w["wx"] + h @ w["wh"] + w["b"]
            taken, kept, new, told = gates.chunk(4, dim=2)
            c = torch.sigmoid(kept + 1) * c + torch.sigmoid(taken) * torch.tanh(new)
            h = torch.sigmoid(told) * torch.tanh(c)
            out, state = out + h @ w["out"], (h, c)
        return out, state


def shapes(kind: Kind, hidden: int) -> dict[str, tuple[int, int]]:
    """The weights of one policy."""
    inputs, outputs = len(FEATURES), len(ACTIONS)
    found = {"skip": (inputs, outputs), "bias": (1, outputs)}
    if kind == "lstm":
        found |= {
            "wx": (inputs, 4 * hidden),
            "wh": (hidden, 4 * hidden),
            "b": (1, 4 * hidden),
            "out": (hidden, outputs),
        }
    return found


def from_flat(kind: Kind, hidden: int, flat: Tensor) -> Policy:
    """[P, W] -> P policies."""
    wanted = shapes(kind, hidden)
    sizes = [math.prod(shape) for shape in wanted.values()]
    parts = torch.split(flat, sizes, 1)
    return Policy(
        kind,
        hidden,
        {
            name: part.reshape(-1, *shape)
            for (name, shape), part in zip(wanted.items(), parts, strict=True)
        },
    )


def to_flat(policy: Policy) -> Tensor:
    """-> [P, W]"""
    return torch.cat([policy.weights[n].flatten(1) for n in shapes(policy.kind, policy.hidden)], 1)


def fresh(kind: Kind, hidden: int, generator: torch.Generator) -> Policy:
    """Where meta-training begins: a proportional controller of the relative update.

    It holds 0.01 of the norm in a run of 300 steps, falling in proportion to what is left of it,
    and less in longer runs, as steps^-0.4; regularisation it leaves as it is. The rest is small.
    """
    parts = {
        name: 0.2 * torch.randn(1, *shape, generator=generator)
        for name, shape in shapes(kind, hidden).items()
    }
    parts["skip"] = 0.02 * torch.randn(1, len(FEATURES), len(ACTIONS), generator=generator)
    parts["skip"][0, FEATURES.index("rho"), 0] = -1.5
    parts["skip"][0, FEATURES.index("left"), 0] = 1.5
    parts["skip"][0, FEATURES.index("log_steps"), 0] = -0.4 * 1.5
    parts["bias"] = torch.tensor([[[1.5 * (math.log10(0.01) + 2.5), 0.0]]])
    return Policy(kind, hidden, parts)


def save(policy: Policy, path: Path, record: dict[str, Any]) -> None:
    """One policy as safetensors; `record`: how it was trained, in plain words and numbers."""
    meta = {
        "kind": policy.kind,
        "hidden": str(policy.hidden),
        "schema": SCHEMA,
        "features": ",".join(FEATURES),
        **{key: str(value) for key, value in record.items()},
    }
    save_file({k: v[0].contiguous() for k, v in policy.weights.items()}, path, metadata=meta)


def from_file(path: Path) -> Policy:
    """A policy that `save` wrote. Raises UserError for what was trained on other features."""
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"controller.policy={path}: cannot be read: {first_line(error)}") from error
    if meta.get("schema") != SCHEMA:
        theirs = set(meta.get("features", "").split(","))
        ours = set(FEATURES)
        differ = ", ".join(sorted(theirs ^ ours)) if theirs != ours else "their definitions"
        raise UserError(
            f"controller.policy={path}: trained on features {meta.get('schema', 'unknown')}, and "
            f"this mmnet computes {SCHEMA}; they differ in {differ}: train it anew"
        )
    kind: Any = meta["kind"]
    hidden = int(meta["hidden"])
    for name, shape in shapes(kind, hidden).items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise UserError(f"controller.policy={path}: no policy: {name} must be {list(shape)}")
    return Policy(kind, hidden, {name: tensors[name][None] for name in shapes(kind, hidden)})
