"""Frozen layers, layer-wise rates and LoRA: what is trained, by how much, and what is not."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmnet.compose import load
from mmnet.config import Tuning
from mmnet.errors import ConfigError, UserError
from mmnet.interfaces import Inputs
from mmnet.job import Job
from mmnet.optimizer.adamw import adamw
from mmnet.optimizer.muon import muon
from mmnet.tuning import tune
from tests.jobs import make_job, resume, run_job, state_of
from tests.towers import apart, batch_for, bert, convnext, naflex, text_bytes, vit


AS_IT_IS = Tuning(freeze=None, layer_decay=1.0, lora_rank=None, lora_alpha=4, lora_dropout=0.0)
SHORT = ("trainer.steps=2", "dataset.val_samples=8", "trainer.batch_size=8")


def trained(folder: Path, *words: str) -> tuple[dict[str, Tensor], dict[str, Tensor], Job]:
    """Weights before and after two steps."""
    job = make_job(folder, *SHORT, *words)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    return before, dict(run_job(job).model.state_dict()), job


def tuned(encoder: Any, **changes: Any) -> Any:
    tune(encoder, Tuning(**vars(AS_IT_IS) | changes), "image")
    return encoder


# Freezing

LOWER = {
    "image": ("body.patch_embed", "body.cls_token", "body.pos_embed", "body.blocks.0."),
    "text": ("embed.", "position"),
}
LATER = pytest.mark.train  # alike enough to wait
OPTIMIZERS = (
    pytest.param(("optimizer=adamw",), id="adamw"),
    pytest.param(("optimizer=nadamw",), id="nadamw", marks=LATER),
    pytest.param(("optimizer=sgd",), id="sgd", marks=LATER),
    pytest.param(("optimizer=muon",), id="muon"),
    pytest.param(("optimizer=schedule_free", "schedule=constant"), id="schedule_free", marks=LATER),
)


@pytest.mark.parametrize("words", OPTIMIZERS)
def test_frozen_layers_stay_as_they_are(words: tuple[str, ...], tmp_path: Path) -> None:
    """In every byte: weight decay does not touch them either."""
    before, after, job = trained(
        tmp_path / "run", *words, "tuning.image.freeze=2", "tuning.text.freeze=1"
    )
    stepped = {id(p) for group in job.optimizer.param_groups for p in group["params"]}
    for name, parameter in job.model.named_parameters():
        tower, _, inner = name.removeprefix("encoders.").partition(".")
        frozen = name.startswith("encoders.") and inner.startswith(LOWER[tower])
        assert torch.equal(before[name], after[name]) == frozen, name
        assert parameter.requires_grad != frozen
        assert (id(parameter) in stepped) != frozen
        assert not frozen or parameter.grad is None


def test_a_whole_tower_frozen(tmp_path: Path) -> None:
    before, after, job = trained(tmp_path / "run", "tuning.image.freeze=all")
    image = [name for name in before if name.startswith("encoders.image.")]
    assert image and all(torch.equal(before[name], after[name]) for name in image)
    assert not all(torch.equal(before[name], after[name]) for name in before)
    states: Any = job.optimizer.state_dict()["state"]
    whole = sum(p.requires_grad for p in job.model.parameters())
    assert len(states) == whole == len(list(job.model.parameters())) - len(image)


def test_a_pooling_of_our_own_is_trained_on_top_of_a_frozen_tower(tmp_path: Path) -> None:
    words = ("encoder.image.pooling=attention", "tuning.image.freeze=all")
    before, after, _ = trained(tmp_path / "run", *words)
    image = [name for name in before if name.startswith("encoders.image.")]
    pool = {name for name in image if ".pool." in name}
    assert pool == {name for name in image if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("build", [vit, convnext, naflex, text_bytes])
def test_layers_are_counted_from_the_input(build: Any) -> None:
    layers = build().layers()
    for count in range(1, len(layers)):
        encoder = tuned(build(), freeze=count)
        own = [p for n, p in encoder.named_parameters() if not n.startswith("pool.")]
        states = [
            {p.requires_grad for part in layer for p in ([part] if is_one(part) else of(part))}
            for layer in encoder.layers()
        ]
        assert states == [{False}] * count + [{True}] * (len(layers) - count)
        assert 0 < sum(p.requires_grad for p in own) < len(own)
    with pytest.raises(UserError, match=rf"has {len(layers)} layers .*: write all, or less"):
        tuned(build(), freeze=len(layers))
    assert not any(p.requires_grad for p in tuned(build(), freeze="all").parameters())


def is_one(part: Any) -> bool:
    return isinstance(part, nn.Parameter)


def of(part: Any) -> Any:
    return part.parameters()


def test_recomputing_activations_above_frozen_layers(tmp_path: Path) -> None:
    """Where nothing below asks for a gradient."""
    words = ("tuning.image.freeze=2", "tuning.text.freeze=1")
    _, plain, _ = trained(tmp_path / "plain", *words)
    _, frugal, _ = trained(tmp_path / "frugal", *words, "hardware.activation_checkpointing=true")
    assert all(apart(plain[name], frugal[name]) < 1e-6 for name in plain)


def test_how_much_is_trained_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmnet")
    tuned(vit())
    assert not caplog.messages
    encoder = tuned(vit(), freeze=1)
    total = sum(p.numel() for p in encoder.parameters())
    left = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert caplog.messages == [f"encoder.image: {left:,} of {total:,} parameters are trained"]


def test_nothing_left_to_train_is_an_error() -> None:
    for build in (
        lambda model: adamw(model, 0.1, 0.1, (0.9, 0.99), 1e-8),
        lambda model: muon(model, 0.1, 0.1, 0.9, (0.9, 0.99), 1e-8),
    ):
        with pytest.raises(UserError, match=r"nothing is left to train: .*tuning\.image\.freeze"):
            build(tuned(vit(), freeze="all"))


def test_muon_with_matrices_alone_or_with_none() -> None:
    only, without = nn.Linear(4, 4, bias=False), nn.LayerNorm(4)
    for model, kind in ((only, torch.optim.Muon), (without, torch.optim.AdamW)):
        optimizer = muon(model, 0.1, 0.0, 0.9, (0.9, 0.99), 1e-8)
        assert isinstance(optimizer, kind)
        start = [p.clone() for p in model.parameters()]
        (model(torch.randn(3, 4)) * torch.randn(3, 4)).sum().backward()
        optimizer.step()
        assert all(not torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))


# Layer-wise rates


@pytest.mark.parametrize("words", OPTIMIZERS)
def test_each_layer_moves_by_its_share_of_the_rate(words: tuple[str, ...], tmp_path: Path) -> None:
    """One step, without weight decay: as far as without layer_decay, times decay^k."""
    alone = (
        *words,
        "optimizer.weight_decay=0",
        "trainer.steps=1",
        "trainer.grad_clip=null",
        "schedule.warmup_ratio=0",
    )

    def steps(name: str, *more: str) -> tuple[dict[str, float], Job]:
        before, after, job = trained(tmp_path / name, *alone, *more)
        moved = {key: float((after[key] - before[key]).norm()) for key in before}
        return moved, job

    plain, _ = steps("plain")
    decayed, job = steps("decayed", "tuning.image.layer_decay=0.5", "tuning.text.layer_decay=0.1")
    shares = {
        "encoders.image.body.norm.weight": 1.0,
        "encoders.image.body.blocks.1.mlp.fc1.weight": 0.5,
        "encoders.image.body.blocks.0.attn.qkv.bias": 0.25,
        "encoders.image.body.blocks.0.mlp.fc2.weight": 0.25,
        "encoders.image.body.cls_token": 0.125,
        "encoders.image.body.patch_embed.proj.weight": 0.125,
        "encoders.text.norm.bias": 1.0,
        "encoders.text.blocks.0.mlp.fc1.weight": 0.1,
        "encoders.text.embed.weight": 0.01,
        "head.logits.weight": 1.0,
    }
    for name, share in shares.items():
        assert plain[name] > 0
        assert decayed[name] / plain[name] == pytest.approx(share, rel=2e-3), name
    rates = {
        round(group["lr"] / max(g["lr"] for g in job.optimizer.param_groups), 6): group
        for group in job.optimizer.param_groups
    }
    assert sorted(rates) == [0.01, 0.1, 0.125, 0.25, 0.5, 1.0]


def test_without_decay_there_are_as_few_groups_as_before(tmp_path: Path) -> None:
    job = make_job(tmp_path / "run")
    assert [group["lr_scale"] for group in job.optimizer.param_groups] == [1.0, 1.0]


# LoRA


def test_adapters_change_nothing_at_first_and_alone_are_trained() -> None:
    for build in (vit, convnext, naflex, text_bytes):
        plain, adapted = build().eval(), tuned(build(), lora_rank=2).eval()
        inputs = batch_for(plain)
        assert apart(adapted(inputs).pooled, plain(inputs).pooled) < 1e-6
        names = {n for n, p in adapted.named_parameters() if p.requires_grad}
        assert names and all(".lora_A." in name or ".lora_B." in name for name in names)
        linear = {
            name
            for layer in plain.layers()[1:-1]
            for block in layer
            for name, module in plain.named_modules()
            if isinstance(module, nn.Linear) and any(module is inner for inner in block.modules())
        }
        assert {name.partition(".lora_")[0] for name in names} == linear


def test_adapters_reach_attention_and_mlp_of_a_bert(tmp_path: Path) -> None:
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijk"]))
    encoder = tuned(bert(words, pooling="attention"), lora_rank=2)
    names = {n.partition(".lora_")[0] for n, p in encoder.named_parameters() if ".lora_" in n}
    inner = {name.rpartition("layer.0.")[2] for name in names if "layer.0." in name}
    assert inner == {
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        *("attention.output.dense", "intermediate.dense", "output.dense"),
    }
    assert all(p.requires_grad for p in encoder.pool.parameters())  # it is new


def test_adapters_are_scaled_and_drop_out() -> None:

    def output(**changes: Any) -> Tensor:
        encoder = tuned(vit(), lora_rank=2, **changes).train()
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if ".lora_" in name:
                    parameter.copy_(0.01 * torch.randn_like(parameter))
            found: Tensor = encoder(batch_for(encoder)).tokens
        return found

    base = vit().train()
    plain = base(batch_for(base)).tokens
    once, twice = (output(lora_alpha=alpha) - plain for alpha in (1, 2))
    assert apart(2 * once, twice) < 0.05 * twice.abs().max()
    assert once.abs().max() > 1e-3
    assert apart(output(lora_alpha=1, lora_dropout=0.5) - plain, once) > 1e-4


@pytest.mark.parametrize("words", OPTIMIZERS)
def test_training_adapters_leaves_the_tower_as_it_is(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    before, after, job = trained(tmp_path / "run", *words, "tuning.image.lora_rank=2")
    for name, value in before.items():
        if name.startswith("encoders.image."):
            assert torch.equal(value, after[name]) == (".lora_" not in name), name
    assert any(".lora_B." in name for name in before)
    assert not torch.equal(before["head.logits.weight"], after["head.logits.weight"])
    assert len({id(p) for g in job.optimizer.param_groups for p in g["params"]}) == sum(
        p.requires_grad for p in job.model.parameters()
    )


def test_the_rate_of_adapters_decays_with_their_layer() -> None:
    encoder = tuned(vit(), lora_rank=2, layer_decay=0.5)
    scales = {
        name.split(".")[2]: parameter.lr_scale
        for name, parameter in encoder.named_parameters()
        if ".lora_" in name
    }
    assert scales == {"0": 0.25, "1": 0.5}


def test_a_tower_without_linear_layers_has_no_place_for_adapters() -> None:
    convolutional = convnext(name="convnext_atto")  # its MLPs are convolutions
    with pytest.raises(UserError, match="no linear layers"):
        tuned(convolutional, lora_rank=2)


def test_without_peft_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"tuning\.image\.lora_rank=2 needs: pip install peft"):
        tuned(vit(), lora_rank=2)


# Stopped and resumed


@pytest.mark.train
@pytest.mark.parametrize(
    "words",
    [
        ("tuning.image.freeze=2", "tuning.text.freeze=all"),
        ("tuning.image.lora_rank=2", "tuning.text.lora_rank=1", "trainer.ema_decay=0.9"),
        ("tuning.image.layer_decay=0.7", "optimizer=muon", "tuning.text.lora_rank=2"),
        ("tuning.image.lora_rank=2", "optimizer=schedule_free", "schedule=constant"),
    ],
)
def test_stopped_and_resumed_it_ends_the_same(words: tuple[str, ...], tmp_path: Path) -> None:
    whole = run_job(make_job(tmp_path / "whole", *words))
    first = run_job(make_job(tmp_path / "parts", *words), stop_after=5)
    assert first.counters.step == 5
    assert state_of(run_job(resume(first))) == state_of(whole)


# What is refused, before anything is built


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tuning.image.freeze=half",), "expected all or a whole number of at least 1 or null"),
        (("tuning.image.freeze=0",), "expected all or a whole number of at least 1 or null"),
        (("tuning.text.layer_decay=1.1",), "expected a number in (0, 1]"),
        (("tuning.text.frezee=1",), "did you mean 'tuning.text.freeze'?"),
        (("tuning.txt.freeze=1",), "no such setting; did you mean 'tuning.text'?"),
        (("layer_decay=0.5",), "did you mean 'tuning.image.layer_decay'?"),
        (("tuning.image.freeze=1", "tuning.image.lora_rank=2"), "LoRA freezes the encoder"),
        (("tuning.image.freeze=all", "tuning.image.layer_decay=0.5"), "has no learning rate"),
        (("model=image_only", "tuning.text.freeze=all"), "there is no encoder/text"),
        (("tuning=all",), "expected a section of settings"),
        (("tuning.image=all",), "expected a section of settings"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load("model=micro", *words)
    assert says in str(error.value)
    assert len(error.value.problems) == 1


@pytest.mark.train
def test_a_tower_with_adapters_is_one_graph() -> None:
    encoder = tuned(vit(), lora_rank=2).train()
    inputs: Inputs = batch_for(encoder)
    compiled: Any = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    assert apart(compiled(inputs).pooled, encoder(inputs).pooled) < 1e-5
