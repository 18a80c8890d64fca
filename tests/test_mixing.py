"""Batches of pictures: mixed with each other, the same in any number of workers, within a time."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmnet.compose import load
from mmnet.data import deadline
from mmnet.data.augment import Augment, augmented
from mmnet.data.deadline import Deadline, TooSlow
from mmnet.data.loader import Reading, TrainStep, train_steps
from mmnet.data.mixing import Mixing
from mmnet.encoder.image.timm import Resize
from mmnet.errors import ConfigError
from mmnet.head.classification import Classification
from mmnet.interfaces import BadSample, Batch, Inputs, Sample
from tests.jobs import fingerprint


B, C = 8, 5


def batch_of(labels: Tensor | None = None, multi: Tensor | None = None) -> Batch:
    images = torch.randint(0, 256, (B, 3, 12, 12), generator=torch.Generator().manual_seed(1))
    targets = {"label": torch.arange(B) % C if labels is None else labels}
    if multi is not None:
        targets = {"labels": multi}
    return Batch({"image": Inputs(images.to(torch.uint8), None)}, targets, B)


# What is mixed


def test_mixup_shares_pictures_and_labels_alike() -> None:
    plain = batch_of()
    images, labels = plain.inputs["image"].values.float(), F.one_hot(plain.targets["label"], C)
    shares = []
    for position in range(30):
        mixed = Mixing(0.8, 0, C, seed=3)(plain, position)
        target = mixed.targets["label"]
        assert target.shape == (B, C) and torch.allclose(target.sum(1), torch.ones(B))
        share = float(target[0, 0])  # sample 0 is of class 0, and its neighbour of another
        expected = share * labels + (1 - share) * labels.roll(1, 0)
        assert torch.allclose(target, expected)
        blend = share * images + (1 - share) * images.roll(1, 0)
        values = mixed.inputs["image"].values
        assert values.dtype == torch.uint8
        assert (values - blend).abs().max() <= 0.51
        shares.append(share)
    assert min(shares) < 0.2 and max(shares) > 0.8


def test_cutmix_shares_labels_by_area() -> None:
    plain = batch_of()
    images = plain.inputs["image"].values
    shares = set()
    for position in range(30):
        mixed = Mixing(0, 1.0, C, seed=3)(plain, position)
        values, share = mixed.inputs["image"].values, float(mixed.targets["label"][0, 0])
        own = (values == images).all(1)
        other = (values == images.roll(1, 0)).all(1)
        assert (own | other).all()
        assert float(own[0].float().mean()) == pytest.approx(share, abs=0.01)
        shares.add(round(share, 3))
    assert len(shares) > 10


def test_of_both_each_batch_is_given_one() -> None:
    images = batch_of().inputs["image"].values
    cut = 0
    for position in range(60):
        values = Mixing(0.8, 0.8, C, seed=3)(batch_of(), position).inputs["image"].values
        own, other = (values == images).all(1), (values == images.roll(1, 0)).all(1)
        cut += bool((own | other).all())
    assert 15 < cut < 45


def test_several_labels_are_shared_too() -> None:
    multi = torch.tensor([[1.0, 0, 0], [0, 1, 1]]).repeat(B // 2, 1)
    mixed = Mixing(0.8, 0, None, seed=3)(batch_of(multi=multi), 4).targets["labels"]
    share = float(mixed[0, 0])
    assert torch.allclose(mixed, share * multi + (1 - share) * multi.roll(1, 0))


def test_what_is_drawn_follows_from_seed_and_position_alone() -> None:
    def digest(seed: int, position: int) -> str:
        mixed = Mixing(0.8, 0.8, C, seed)(batch_of(), position)
        return fingerprint([mixed.inputs["image"].values, mixed.targets])

    state = torch.get_rng_state()
    found = [digest(seed, position) for seed in (0, 1) for position in (0, 8, 16)]
    assert torch.equal(torch.get_rng_state(), state), "the run's own numbers were drawn"
    assert len(set(found)) == 6
    torch.rand(3)
    assert digest(1, 8) == found[4]


# What is learnt from it


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 3.0, 1.0, 0.5]])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_whole_shares_are_classes(
    focal_gamma: float, class_weights: list[float] | None, label_smoothing: float
) -> None:
    head = Classification(4, C, class_weights, label_smoothing, focal_gamma, 0.0)
    label, logits = torch.arange(B) % C, torch.randn(B, C)
    shares = F.one_hot(label, C).float()
    assert head.loss(logits, {"label": shares}) == pytest.approx(
        float(head.loss(logits, {"label": label})), rel=1e-5
    )


def test_the_loss_of_shares_is_shares_of_the_losses() -> None:
    head = Classification(4, C, None, 0.0, 0.0, 0.0)
    one, other, logits = torch.arange(B) % C, (torch.arange(B) + 2) % C, torch.randn(B, C)
    shares = 0.3 * F.one_hot(one, C) + 0.7 * F.one_hot(other, C)
    losses = [float(head.loss(logits, {"label": label})) for label in (one, other)]
    assert head.loss(logits, {"label": shares}) == pytest.approx(
        0.3 * losses[0] + 0.7 * losses[1], rel=1e-5
    )


# Where it is refused


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        ((), "encoder.text._target_"),
        (("~encoder/text", "encoder/image=naflex_micro"), "encoder.image._target_"),
        (("head=contrastive", "fusion=separate"), "head._target_"),
    ],
)
@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_only_pictures_with_labels_are_mixed(words: tuple[str, ...], blamed: str, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        load("dataset=sbu", "model=micro", f"dataset.augment.{key}=0.2", *words)
    text = str(error.value)
    assert f"dataset.augment.{key}" in text and blamed in text


# The same in any number of workers


HOW = Augment(0.3, 0.5, (0.4, 0.4, 0.4, 0.1), "rand", True, True, 0.8, 0.8)


class Blots:
    """Pictures that are drawn, some of them bad."""

    digest, notes = "", dict[str, int]()

    def __len__(self) -> int:
        return 60

    def key(self, index: int) -> str:
        return f"blot {index}"

    def sample(self, index: int, modalities: tuple[str, ...], rng: Any) -> Sample:
        if index % 13 == 5:
            raise BadSample(self.key(index), "broken")
        draw = torch.Generator().manual_seed(index)
        picture = torch.randint(0, 256, (3, 30, 40), generator=draw).to(torch.uint8)
        return {"image": augmented(picture, 16, HOW, rng), "label": index % C}


def steps(split: Any, workers: int, mix: Mixing | None = None, **changes: Any) -> list[TrainStep]:
    settings: dict[str, Any] = {
        "batch_size": 8,
        "micro_batch_size": 4,
        "seed": 5,
        "first_step": 1,
        "last_step": 6,
    } | changes
    reading = Reading({"image": Resize(16)}, ("label",), mix=mix)
    return list(
        train_steps(split, reading, num_workers=workers, device=torch.device("cpu"), **settings)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # few cores
@pytest.mark.parametrize("workers", [1, 3])
def test_every_number_of_workers_makes_the_same_of_pictures(workers: int) -> None:
    mix = Mixing(0.8, 0.8, C, seed=5)
    digests = [
        [fingerprint([list(batch) for batch in step.batches]) for step in steps(Blots(), n, mix)]
        for n in (0, workers)
    ]
    assert digests[0] == digests[1]
    later = steps(Blots(), 0, mix, first_step=4)
    assert [fingerprint([list(b) for b in step.batches]) for step in later] == digests[0][3:]
    assert len(set(digests[0])) == 6
    for step in steps(Blots(), 0, mix):
        for batch in step.batches:
            assert batch.targets["label"].shape == (batch.size, C)


# Within a time


class Stuck(Blots):
    """One of its samples waits for what never comes."""

    def __init__(self, folder: Path) -> None:
        self.pipe = folder / "pipe"
        os.mkfifo(self.pipe)

    def sample(self, index: int, modalities: tuple[str, ...], rng: Any) -> Sample:
        if index == 7:
            self.pipe.read_bytes()
        return super().sample(index, modalities, rng)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_takes_too_long_is_a_bad_one(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.4)
    found = steps(Stuck(tmp_path), workers, last_step=8)
    bad = {key: reason for step in found for key, reason in step.bad}
    assert bad == {
        "blot 7": "took longer than 0.4 s",
        **{f"blot {i}": "broken" for i in (5, 18, 31, 44, 57)},
    }
    assert sum(step.samples for step in found) == 64 - sum(len(step.bad) for step in found)


def test_an_alarm_that_was_set_before_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    struck: list[float] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: struck.append(time.monotonic()))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        monkeypatch.setattr(deadline, "SECONDS", 0.05)
        with pytest.raises(TooSlow, match=r"took longer than 0\.05 s"), Deadline() as limit:
            limit.begin()
            time.sleep(5)
        monkeypatch.setattr(deadline, "SECONDS", 60)
        with Deadline() as limit:
            limit.begin()
            time.sleep(0.4)  # past the alarm, which is late then
        time.sleep(0.05)
        assert len(struck) == 1
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_what_is_quick_enough_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.1)
    before = signal.getsignal(signal.SIGALRM)
    with Deadline() as limit:
        for _ in range(4):
            limit.begin()
            time.sleep(0.05)
            limit.end()
        time.sleep(0.2)
    assert signal.getsignal(signal.SIGALRM) is before
