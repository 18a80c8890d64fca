"""The network: encoders, a fusion and a head, in that order."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor, nn

from mmnet.compose import make
from mmnet.config import Part, Run
from mmnet.errors import UserError
from mmnet.interfaces import Answers, Inputs, Prepare
from mmnet.tuning import leave_pooling, tune


# In place of what only data can tell: to build a network that is only looked at, or whose
# weights come from a file.
NO_DATA = {"num_labels": 1, "value_mean": 0.0, "value_std": 1.0}


class Multimodal(nn.Module):
    """Encode each modality, fuse, answer. forward: {modality: Inputs} -> the head's answers.

    A modality may be missing, of some samples (`Inputs.present`) or of all (no such key).
    `groups` int64 [B] says which samples show the same; heads that look for hard negatives
    leave those out.
    """

    def __init__(self, encoders: dict[str, nn.Module], fusion: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.head = head

    def forward(self, inputs: dict[str, Inputs], groups: Tensor | None = None) -> Answers:
        """Raises UserError when nothing of a sample is there."""
        refuse_nothing(inputs, list(self.encoders))
        features = {
            name: encoder(inputs[name])._replace(present=inputs[name].present)
            for name, encoder in self.encoders.items()
            if name in inputs
        }
        answers: Answers = self.head(self.fusion(features)._replace(groups=groups))
        return answers

    def prepare(self) -> dict[str, Prepare]:
        """How each encoder wants its raw samples made into tensors."""
        encoders: dict[str, Any] = dict(self.encoders.items())
        return {name: encoder.prepare for name, encoder in encoders.items()}


def refuse_nothing(inputs: dict[str, Inputs], known: list[str]) -> None:
    """Raise UserError unless each sample has one of the `known` modalities.

    Rows on a GPU are not looked at, which would wait for it; the data path refuses them earlier.
    """
    there = [inputs[name].present for name in known if name in inputs]
    if not there:
        given = f"only {', '.join(inputs)}" if inputs else "nothing"
        raise UserError(f"this network reads {' or '.join(known)}, and was given {given}")
    if torch.compiler.is_compiling() or any(rows is None or rows.is_cuda for rows in there):
        return
    nothing = ~torch.stack([rows for rows in there if rows is not None]).any(0)
    if nothing.any():
        raise UserError(
            f"sample {int(nothing.nonzero()[0])} of the batch has neither {' nor '.join(known)}"
        )


def build(run: Run, **of_data: Any) -> Multimodal:
    """Build the parts in order; widths flow from what was built, not from the config.

    `of_data`: what the head may need to know of the training data, see `facts`.
    """
    encoders = {name: make(part) for name, part in run.encoder.items() if part}
    for name, encoder in encoders.items():
        tune(encoder, getattr(run.tuning, name), name)
    fusion = make(run.fusion, dims={name: encoder.dim for name, encoder in encoders.items()})
    needs = {get_object(one["_target_"]).needs for _, one in heads(run.head)}
    if not fusion.pools and "pooled" not in needs:
        for name, encoder in encoders.items():
            leave_pooling(encoder, name, type(fusion).__name__)
    head = make_head(run.head, facts(encoders, fusion, **of_data))
    if run.hardware.activation_checkpointing:
        for part in (*encoders.values(), fusion):
            part.checkpoint_activations()
    return Multimodal(encoders, fusion, head)


def heads(part: Part, key: str = "head") -> Iterator[tuple[str, Part]]:
    """A head with its key; of one that is made of heads, those."""
    inner = [(name, task) for name, task in part.get("tasks", {}).items()]
    if not inner:
        yield key, part
    for name, task in inner:
        yield from heads(task, f"{key}.tasks.{name}")


def without_data(run: Run) -> Multimodal:
    """The network of a run whose data nobody has read: `NO_DATA`, and a label for each class."""
    known = {"num_labels": run.dataset["num_classes"]} if run.dataset.get("num_classes") else {}
    return build(run, **known)


def facts(encoders: dict[str, Any], fusion: Any, **of_data: Any) -> dict[str, Any]:
    """What a head may ask for by naming it in its constructor.

    dim, token_dims: of the fusion; fusion: itself; dims: of the encoders by modality;
    words: the text encoder's `prepare`, None without one; of the training data: num_labels,
    value_mean, value_std. make_head: makes a head of its settings and of these facts, for heads
    that are made of heads.
    """
    found: dict[str, Any] = {
        "dim": fusion.dim,
        "token_dims": fusion.token_dims,
        "fusion": fusion,
        "dims": {name: encoder.dim for name, encoder in encoders.items()},
        "words": encoders["text"].prepare if "text" in encoders else None,
        **NO_DATA,
        **of_data,
    }
    found["make_head"] = lambda part: make_head(part, found)
    return found


def make_head(part: dict[str, Any], known: dict[str, Any]) -> Any:
    """A head with the facts that its constructor names."""
    named = inspect.signature(get_object(part["_target_"])).parameters
    return make(part, **{name: value for name, value in known.items() if name in named})
