"""Real encoders, fusion and head as one network: gradients, and what an answer depends on."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmnet.fusion.concat import Concat
from mmnet.head.classification import Classification
from mmnet.interfaces import Features, Inputs
from mmnet.model import Multimodal
from tests.towers import apart, batch_for, convnext, naflex, text_bytes, vit


IMAGES: dict[str, Any] = {"vit": vit, "convnext": convnext, "naflex": naflex}
TARGETS = {"label": torch.arange(4)}


def network(image: str, **changes: Any) -> Multimodal:
    encoders: dict[str, Any] = {"image": IMAGES[image](**changes), "text": text_bytes(**changes)}
    dims = {name: encoder.dim for name, encoder in encoders.items()}
    torch.manual_seed(0)
    fusion = Concat(dims, 24, "concat", 0.0)
    head = Classification(24, 5, None, 0.0, 0.0, 0.0)
    return Multimodal(encoders, fusion, head)


def inputs_for(model: Multimodal) -> dict[str, Inputs]:
    return {name: batch_for(encoder) for name, encoder in model.encoders.items()}


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_every_parameter_gets_a_finite_gradient(image: str, pooling: str) -> None:
    model = network(image, pooling=pooling)
    logits: Any = model(inputs_for(model))
    assert logits.shape == (4, 5)
    loss: Any = model.head.loss(logits, TARGETS)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_answer_depends_on_each_modality(image: str, modality: str) -> None:
    model = network(image).eval()
    inputs = inputs_for(model)
    values, mask, _ = inputs[modality]
    moved = Inputs(values.roll(1, 0), None if mask is None else mask.roll(1, 0))
    one, other = model(inputs), model(inputs | {modality: moved})
    assert isinstance(one, Tensor) and isinstance(other, Tensor)
    assert apart(one, other) > 1e-4


@pytest.mark.parametrize("image", IMAGES)
def test_rows_without_a_modality_may_hold_anything(image: str) -> None:
    model = network(image).eval()
    inputs = inputs_for(model)
    there = torch.tensor([True, False, True, False])
    answers = []
    for fill in (0, 77):
        rows = {}
        for name, one in inputs.items():
            present = there if name == "image" else ~there
            shape = [-1] + [1] * (one.values.ndim - 1)
            values = torch.where(present.view(shape), one.values, torch.full_like(one.values, fill))
            rows[name] = Inputs(values, one.mask, present)
        answers.append(model(rows))
    assert apart(answers[0], answers[1]) < 1e-6


def test_recomputing_activations_changes_no_gradient() -> None:
    plain, frugal = network("vit"), network("vit")
    for encoder in frugal.encoders.values():
        part: Any = encoder
        part.checkpoint_activations()
    inputs = inputs_for(plain)
    for model in (plain, frugal):
        head: Any = model.train().head
        head.loss(model(inputs), TARGETS).backward()
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert apart(one.grad, other.grad) < 1e-6  # type: ignore[arg-type]


def test_concat_adds_up() -> None:
    """Norms are identities on these numbers, so the MLP sees exactly the two vectors."""
    fusion = Concat({"a": 2, "b": 2}, 3, "concat", 0.0)
    seen: list[Tensor] = []
    fusion.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pair = torch.tensor([[1.0, -1.0]])
    features = {"b": Features(pair[:, None], -pair, None), "a": Features(pair[:, None], pair, None)}
    assert fusion(features).joint.shape == (1, 3)
    assert torch.allclose(seen[0], torch.tensor([[1.0, -1.0, -1.0, 1.0]]), atol=1e-4)
