"""What a network costs, told before it trains."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import mmnet
from mmnet import anatomy
from mmnet.compose import load
from mmnet.config import CONF
from mmnet.errors import UserError
from mmnet.inspect import inspect


MICRO = ("model=micro", "hardware=cpu", "hardware.precision=fp32")


def told(*words):
    return "\n".join(inspect(load(*MICRO, *words)))


def row_of(text, name):
    return next(line for line in text.splitlines() if line.split()[:1] == [name]).split()


def test_the_tree_adds_up():
    text = told()
    network = mmnet.build("model=micro")
    count = sum(p.numel() for p in network.parameters())
    assert f"{count:,}" in row_of(text, "total")
    assert f"{sum(p.numel() for p in network.encoders['image'].parameters()):,}" in text
    assert "[B, 17, 32] [B, 32]" in text  # tokens and pooled of the image encoder
    assert row_of(text, "head")[2:4] == ["[B,", "4]"]


def test_flops_of_a_linear_layer_are_counted_exactly():
    rows = {row.name: row for row in anatomy.rows(mmnet.build("model=micro"), 3)}
    assert rows["logits"].flops == 2 * 32 * 4
    body = rows["body"]
    # Patches, then each block's qkv, projection, attention (two products) and MLP.
    tokens, dim = 17, 32
    block = 2 * tokens * dim * (3 * dim + dim + 8 * dim) + 2 * 2 * tokens * tokens * dim
    assert body.flops == 2 * 16 * dim * 3 * 64 + 2 * block


def test_memory_grows_with_the_batch_as_it_does():
    network, run = mmnet.build(*MICRO), load(*MICRO)
    found = anatomy.memory(network, run, "fp32")
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert found.fixed == pytest.approx(4 * weights, rel=0.02)  # gradient and two moments
    kept = [anatomy.activations(network, n, "fp32") for n in (8, 16)]
    assert kept[1] - kept[0] == pytest.approx(8 * found.per_sample, rel=0.05)
    assert anatomy.memory(network, run, "bf16").per_sample < 0.8 * found.per_sample


def test_a_moving_average_and_plain_sgd_count_for_what_they_hold():
    def fixed(*words):
        return anatomy.memory(mmnet.build(*MICRO), load(*MICRO, *words), "fp32").fixed

    weights = 4 * sum(p.numel() for p in mmnet.build(*MICRO).parameters())
    assert fixed("trainer.ema_decay=0.9") - fixed() == weights
    plain = fixed("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")
    assert plain == pytest.approx(2 * weights, rel=0.02)


def test_the_largest_micro_batch_that_fits_is_named():
    small = told("hardware.memory_gb=0.02", "trainer.batch_size=96")
    (line,) = [line for line in small.splitlines() if "the largest that fits" in line]
    micro = int(line.rpartition("=")[2])
    assert 96 % micro == 0 and micro < 96
    assert "the whole batch of 96 fits at once" in told(
        "hardware.memory_gb=2", "trainer.batch_size=96"
    )
    assert "not one sample fits" in told("hardware.memory_gb=0.0001")
    found = anatomy.Memory(fixed=100, per_sample=10)
    assert (found.fits(1000), found.fits(120)) == (80, 0)


class Wrong(nn.Module):
    dim, prepare = 32, None

    def __init__(self, inner):
        super().__init__()
        self.inner, self.prepare = inner, inner.prepare

    def forward(self, inputs):
        features = self.inner(inputs)
        return features._replace(pooled=torch.cat([features.pooled] * 2, 1))


def test_widths_that_do_not_agree_are_told_by_part():
    network = mmnet.build(*MICRO)
    network.encoders["text"] = Wrong(network.encoders["text"])
    with pytest.raises(
        UserError, match=r"^fusion: Concat cannot take tokens of image \[2, 17, 32\]"
    ):
        anatomy.check_widths(network)
    network = mmnet.build(*MICRO)
    network.head.logits = nn.Linear(48, 4)
    with pytest.raises(UserError, match=r"^head: Classification cannot take .*\[2, 32\]"):
        anatomy.check_widths(network)


LOCAL = [p.stem for p in sorted((CONF / "model").glob("*.yaml")) if p.stem != "guide"]


@pytest.mark.parametrize("model", LOCAL)
def test_every_preset_can_be_looked_at(model):
    assert "at once" in "\n".join(inspect(load(f"model={model}", "hardware=cpu")))


@pytest.mark.parametrize(
    "words",
    [
        *([f"fusion={path.stem}"] for path in sorted((CONF / "fusion").glob("*.yaml"))),
        ["encoder/image=naflex_micro"],
        ["encoder/image=convnext_micro"],
        ["encoder.image.pooling=attention", "encoder.text.pooling=attention"],
    ],
    ids=" ".join,
)
def test_every_part_can_be_looked_at(words):
    head = ["head=contrastive"] if words == ["fusion=separate"] else []
    assert "at once" in "\n".join(inspect(load(*MICRO, *words, *head, "hardware=cpu")))


def test_pictures_are_as_large_as_they_are_read():
    network = mmnet.build(*MICRO, "encoder/image=naflex_micro", "encoder.image.max_patches=49")
    assert anatomy.longest(network, 2)["image"].values.shape[1] == 49


@pytest.mark.train
def test_the_command():
    def run(*words):
        command = [sys.executable, "-m", "mmnet.inspect", *words]
        return subprocess.run(command, capture_output=True, text=True)

    good = run(*MICRO)
    assert good.returncode == 0 and "MFLOPs a sample" in good.stdout
    wrong = run("modle=micro")
    assert wrong.returncode == 2 and "did you mean 'model'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert "mmnet.inspect" in run("--help").stdout
