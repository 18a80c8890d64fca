"""Policies by name: those that come with mmnet, and files of meta-training's."""

import importlib.resources
from pathlib import Path

import torch

from mmnet.controller import policy
from mmnet.errors import UserError


def shipped() -> dict[str, Path]:
    """The policies that come with mmnet, by name."""
    folder = Path(str(importlib.resources.files("mmnet.controller") / "policies"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find(name: str, hidden: int) -> policy.Policy:
    """A policy by its name or file. Raises UserError."""
    known = shipped()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UserError(
            f"controller.policy={name}: no such file, and none of those that come with mmnet: "
            f"{', '.join(known)}"
        )
    found = policy.from_file(path)
    if found.kind == "lstm" and found.hidden != hidden:
        widths = {p.hidden: n for n, p in ((n, policy.from_file(f)) for n, f in known.items())}
        there = ", ".join(f"{width} (controller.policy={n})" for width, n in widths.items())
        raise UserError(
            f"controller.hidden_dim={hidden}: {name} is {found.hidden} wide; there are {there}. "
            f"Another width: python -m mmnet.meta_train controller.hidden_dim={hidden}"
        )
    return found


def changed(found: policy.Policy, ablation: str) -> policy.Policy:
    """The policy, or a placebo of it: the same numbers in other places."""
    if ablation != "permuted":
        return found
    generator = torch.Generator().manual_seed(0)
    return found._replace(
        weights={
            name: w.flatten()[torch.randperm(w.numel(), generator=generator)].view(w.shape)
            for name, w in found.weights.items()
        }
    )
