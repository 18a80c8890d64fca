"""Balance of the encoders: that each way does what its paper says, and nothing by default."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mmnet.balance.mmpareto import inner
from mmnet.compose import load
from mmnet.errors import ConfigError
from mmnet.gradients import accumulate
from tests.jobs import fingerprint, make_job, resume, run_job
from tests.test_head import a_step


WAYS = ("ogm_ge", "gradient_blending", "mmpareto")


def weights(job: Any) -> str:
    return fingerprint(dict(job.model.state_dict()))


@pytest.mark.parametrize("way", WAYS)
def test_it_changes_the_run_and_resumes_to_the_bit(way: str, tmp_path: Path) -> None:
    words = [f"balance={way}"]
    if way == "gradient_blending":
        words.append("balance.every=3")
    whole = run_job(make_job(tmp_path / "whole", *words))
    assert weights(whole) != weights(run_job(make_job(tmp_path / "plain")))
    run_job(make_job(tmp_path / "parts", *words), stop_after=7)
    rest = run_job(resume(make_job(tmp_path / "parts", *words)))
    assert weights(rest) == weights(whole)
    assert fingerprint(rest.balance.state_dict()) == fingerprint(whole.balance.state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_its_classifiers_learn_and_are_no_part_of_the_network(way: str, tmp_path: Path) -> None:
    job = make_job(tmp_path / way, f"balance={way}")
    balance: Any = job.balance
    before = fingerprint(balance.unimodal.heads.state_dict())
    assert not any("unimodal" in name for name in job.model.state_dict())
    run_job(job)
    assert fingerprint(balance.unimodal.heads.state_dict()) != before


def gradients(job: Any) -> dict[str, list[torch.Tensor]]:
    """By encoder, after one backward and `modulate`."""
    job.model.zero_grad()
    job.model.train()
    accumulate(job, job.model, [*job.model.parameters()], a_step(job))
    job.balance.modulate()
    return {
        name: [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        for name, encoder in job.model.encoders.items()
    }


def test_ogm_slows_the_encoder_that_is_ahead_and_no_other(tmp_path: Path) -> None:
    plain = make_job(tmp_path / "plain")
    job = make_job(tmp_path / "ogm", "balance=ogm_ge", "balance.noise=false", "balance.alpha=0.5")
    job.model.load_state_dict(plain.model.state_dict())
    balance: Any = job.balance
    with torch.no_grad():  # the picture's classifier is right and sure of it, the text's guesses
        balance.unimodal.heads["image"].bias[:] = torch.tensor([50.0, 0.0, 0.0, 0.0])
        balance.unimodal.heads["text"].weight.zero_()
    job.train = plain.train = Only(plain.train, 0)
    before, after = gradients(plain), gradients(job)
    for a, b in zip(before["text"], after["text"], strict=True):
        assert torch.allclose(a, b)
    pairs = zip(before["image"], after["image"], strict=True)
    ratios = [float(b.norm() / a.norm()) for a, b in pairs]
    assert max(ratios) == pytest.approx(min(ratios), rel=1e-3)
    assert ratios[0] == pytest.approx(1 - math.tanh(0.5 * 1 / 0.25), rel=1e-2)


class Only:
    """The samples of one class."""

    def __init__(self, split: Any, label: int) -> None:
        self.split, self.digest, self.notes = split, split.digest, split.notes
        self.kept = [
            index
            for index in range(len(split))
            if split.sample(index, ("image", "text"), None)["label"] == label
        ]

    def __len__(self) -> int:
        return len(self.kept)

    def key(self, index: int) -> str:
        key: str = self.split.key(self.kept[index])
        return key

    def sample(self, index: int, modalities: Any, rng: Any) -> Any:
        return self.split.sample(self.kept[index], modalities, rng)


def test_mmpareto_descends_on_both_losses(tmp_path: Path) -> None:
    job = make_job(tmp_path / "pareto", "balance=mmpareto", "balance.gamma=1")
    balance: Any = job.balance
    job.model.train()
    accumulate(job, job.model, [*job.model.parameters()], a_step(job))
    balance.own["text"] = [-3 * p.grad + 0.1 for p in balance.towers["text"]]  # they conflict
    own = {name: [g.clone() for g in found] for name, found in balance.own.items()}
    joint = {name: [p.grad.clone() for p in ps] for name, ps in balance.towers.items()}
    balance.modulate()
    for name, parameters in balance.towers.items():
        found = [p.grad for p in parameters]
        assert inner(found, joint[name]) >= -1e-6 and inner(found, own[name]) >= -1e-6
        whole = [a + b for a, b in zip(joint[name], own[name], strict=True)]
        assert inner(found, found) == pytest.approx(float(inner(whole, whole)), rel=1e-3)


def test_gradient_blending_weighs_what_generalises(tmp_path: Path) -> None:
    job = make_job(tmp_path / "gb", "balance=gradient_blending", "balance.every=1000")
    balance: Any = job.balance
    run_job(job)
    assert sum(balance.weights.values()) == pytest.approx(1)
    held = float(balance.meta.loss().detach())
    # The text's held-out loss is as it was; that of both fell, with no wider a gap.
    balance.before = {name: (balance.trained[name], held) for name in balance.names}
    balance.before["joint"] = (balance.trained["joint"] + 1, held + 1)
    balance.before["text"] = (balance.trained["text"], -100.0)
    balance.weigh()
    assert balance.weights["text"] == 0 and balance.weights["joint"] > 0.9


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("balance=ogm_ge", "head=regression"), "it needs head=classification"),
        (("balance=mmpareto", "model=multitask"), "it needs head=classification"),
        (("balance=ogm_ge", "model=text_only"), "nothing to be balanced with"),
        (("balance=ogm_ge", "hardware.compile=true"), "set hardware.compile=false"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(*words)
