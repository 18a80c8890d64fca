"""Cases of tests/test_settings.py for the outer loop: controllers, balance, meta-training."""

import json
from functools import cache, partial
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.command import run
from tests.jobs import metrics
from tests.policies import plain
from tests.settings import THREE_STEPS, Bench, Words, case, weights


STEERED: Words = ("controller=double_loop", "controller.meta_batch=8", "trainer.steps=6")


def steers_otherwise(base: Words, word: str, bench: Bench) -> None:
    assert weights(bench.trained(*base, word)) != weights(bench.trained(*base))


@case("controller.double_loop.enabled")
def _(bench: Bench) -> None:
    off = bench.trained(*STEERED, "controller.enabled=false")
    same = bench.trained("schedule=constant", "trainer.steps=6")
    assert weights(off) == weights(same) != weights(bench.trained(*STEERED))


@case("controller.double_loop.policy")
def _(bench: Bench) -> None:
    """A policy that always wants less."""
    path = plain(bench.new_folder(), rate=-10.0)
    rates = metrics(bench.trained(*STEERED, f"controller.policy='{path}'"), "train/lr_head")
    assert rates[5] == pytest.approx(rates[4] / 2, rel=1e-4)


@case("controller.double_loop.hidden_dim")
def _(bench: Bench) -> None:
    assert "there are 8" in bench.refusal(*STEERED, "controller.hidden_dim=5")


@case("controller.double_loop.by")
def _(bench: Bench) -> None:
    found = {name: bench.trained(*STEERED, f"controller.by={name}") for name in ("parts", "blocks")}
    assert set(found["parts"].controller.rates()) == {"image", "text", "fusion", "head"}
    assert {"image.0", "image.1", "text.0"} <= set(found["blocks"].controller.rates())


@case("controller.double_loop.update_frequency")
def _(bench: Bench) -> None:
    def decided(word: str) -> int:
        controller: Any = bench.job(*STEERED, "trainer.steps=400", word).controller
        return len(controller.when)

    assert decided("controller.update_frequency=2") > decided("controller.update_frequency=null")


@case("controller.double_loop.rho_max")
def _(bench: Bench) -> None:
    slow = bench.trained(*STEERED, "controller.rho_max=1e-5")
    usual = bench.trained(*STEERED)
    assert max(metrics(slow, "train/lr_image")) < 0.1 * max(metrics(usual, "train/lr_image"))


@case("controller.double_loop.meta_batch")
def _(bench: Bench) -> None:
    for word, kept in (("8", 8), ("0", 0), ("null", 4)):  # a sixteenth of 64
        job = bench.job(*STEERED, f"controller.meta_batch={word}")
        assert len(job.train) == 64 - kept


@case("controller.double_loop.regularise")
def _(bench: Bench) -> None:
    decays = {
        word: {g["weight_decay"] for g in job.optimizer.param_groups}
        for word in ("true", "false")
        for job in [bench.trained(*STEERED, f"controller.regularise={word}")]
    }
    assert decays["false"] == {0, 0.05} != decays["true"]


ONLINE = (*STEERED, "controller.online.every=2")
FREEZE = (
    *STEERED,
    "trainer.steps=20",
    "controller.freeze.enabled=true",
    "controller.freeze.after=0",
    "controller.freeze.pays=1000",
)
for _key, _base, _word in (
    ("online.every", STEERED, "controller.online.every=2"),
    ("online.rate", ONLINE, "controller.online.rate=1"),
    ("online.regularisation", ONLINE, "controller.online.regularisation=true"),
    ("freeze.enabled", FREEZE, "controller.freeze.enabled=false"),
    ("freeze.pays", FREEZE, "controller.freeze.pays=1e-9"),
    ("freeze.after", FREEZE, "controller.freeze.after=1"),
    ("drop_patches.share", STEERED, "controller.drop_patches.share=0.5"),
    (
        "drop_patches.until",
        (*STEERED, "controller.drop_patches.share=0.5"),
        "controller.drop_patches.until=0.5",
    ),
    ("grow.blocks", STEERED, "controller.grow.blocks=1"),
    ("grow.at", (*STEERED, "controller.grow.blocks=1"), "controller.grow.at=0.9"),
    ("ablation", STEERED, "controller.ablation=memoryless"),
):
    more = ("encoder.text.depth=2",) if _key.startswith("grow") else ()
    case(f"controller.double_loop.{_key}")(
        partial(steers_otherwise, (*_base, *more), _word),
    )


@case("controller.double_loop.shadow", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    where = bench.new_folder()
    words = [word for word in THREE_STEPS if not word.startswith("trainer.steps")]
    ended = run(where, *words, *STEERED, "controller.shadow=true")
    assert ended.code == 0, ended.err
    plain = json.loads((ended.folder / "shadow/summary.json").read_text())
    assert plain["steps"] == 6 and plain["final"] != ended.summary["final"]
    [gain] = ended.metric("shadow/gain_loss").values()
    difference = plain["final"]["val/loss"] - ended.summary["final"]["val/loss"]
    assert gain == pytest.approx(difference)
    assert "times the time in steps" in ended.err
    same = bench.trained("trainer.steps=6")  # the default schedule, no controller
    assert plain["final"]["val/loss"] == pytest.approx(same.counters.final["val/loss"], rel=1e-4)


@case("controller.double_loop.freeze.probe")
def _(bench: Bench) -> None:
    """What is frozen has gradients in the steps in which it is looked at."""

    def measured(probe: int) -> list[float]:
        job = bench.trained(*FREEZE, f"controller.freeze.probe={probe}")
        return metrics(job, "train/grad_norm")

    assert measured(2) != measured(1000)


@case("controller.calibrated.rho")
def _(bench: Bench) -> None:
    base = ("controller=calibrated", "controller.warmup_ratio=0")
    one, other = (
        metrics(bench.trained(*base, f"controller.rho={rho}"), "train/lr_head")[0]
        for rho in (0.01, 0.02)
    )
    assert other == pytest.approx(2 * one)


@case("controller.calibrated.warmup_ratio")
def _(bench: Bench) -> None:
    base = ("controller=calibrated", "trainer.steps=6")
    warm, cold = (
        metrics(bench.trained(*base, f"controller.warmup_ratio={share}"), "train/lr_head")
        for share in (0.9, 0)
    )
    assert warm[0] < warm[-1] and cold[0] > cold[-1]


@case("controller.hypergradient.rate")
def _(bench: Bench) -> None:
    steers_otherwise(("controller=hypergradient", "trainer.steps=6"), "controller.rate=1", bench)


for _name in ("calibrated", "hypergradient"):

    @case(f"controller.{_name}.by")
    def _(bench: Bench, name: str = _name) -> None:
        job = bench.trained(f"controller={name}", "controller.by=blocks")
        assert {"image.0", "text.0"} <= set(job.controller.rates())


for _way, _word in (
    ("ogm_ge", "alpha=2"),
    ("ogm_ge", "noise=false"),
    ("ogm_ge", "probe_lr=1"),
    ("gradient_blending", "every=2"),
    ("gradient_blending", "head_lr=1"),
    ("mmpareto", "gamma=1"),
    ("mmpareto", "head_lr=1"),
):
    case(f"balance.{_way}.{_word.partition('=')[0]}")(
        partial(steers_otherwise, (f"balance={_way}", "trainer.steps=6"), f"balance.{_word}")
    )


# Meta-training


TINY = {
    "generations": 2,
    "pairs": 2,
    "tasks": 1,
    "score_every": 1,
    "score_tasks": 1,
    "fresh_tasks": 1,
    "processes": 1,
}


class Searched:
    """One search of a few seconds: the policy it left, and what it said."""

    def __init__(self, bench: Bench, changes: Words) -> None:
        where = bench.new_folder()
        words = [f"meta.{name}={value}" for name, value in TINY.items()]
        words = [word for word in words if word.partition("=")[0] not in "".join(changes)]
        fixed = ("task=meta_train", "name=meta", "controller=double_loop", "tracker=none")
        ended = run(where, *fixed, *words, *changes)
        assert ended.code == 0, ended.err
        self.said = ended.err
        self.tensors = load_file(ended.folder / "policy.safetensors")


@cache
def searched(bench: Bench, *changes: str) -> Searched:
    return Searched(bench, changes)


def flat(found: Searched) -> list[float]:
    return [value for one in found.tensors.values() for value in one.flatten().tolist()]


@case("task", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    assert "generation 2/2" in searched(bench).said


for _key, _value in (
    ("meta.sigma", "0.3"),
    ("meta.rate", "0.1"),
    ("meta.average", "0.1"),
    ("meta.pairs", "4"),
    ("meta.tasks", "2"),
):

    @case(_key, marks=pytest.mark.slow)
    def _(bench: Bench, word: str = f"{_key}={_value}") -> None:
        assert flat(searched(bench, word)) != flat(searched(bench))


@case("meta.kind", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    assert searched(bench, "meta.kind=linear").tensors.keys() == {"skip", "bias"}


@case("meta.generations", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    assert "generation 3/3" in searched(bench, "meta.generations=3").said


@case("meta.score_every", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    assert "generation 1/2" in searched(bench).said
    assert "generation 1/2" not in searched(bench, "meta.score_every=2").said


@case("meta.score_tasks", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    def score(found: Searched) -> str:
        return found.said.partition("score")[2].split()[0]

    assert score(searched(bench, "meta.score_tasks=2")) != score(searched(bench))


@case("meta.fresh_tasks", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    def fresh(found: Searched) -> str:
        return found.said.partition("fresh tasks: ")[2].split()[0]

    assert fresh(searched(bench, "meta.fresh_tasks=2")) != fresh(searched(bench))


@case("meta.processes", marks=pytest.mark.slow)
def _(bench: Bench) -> None:
    """How many there are changes nothing but the time."""
    assert flat(searched(bench, "meta.processes=2")) == flat(searched(bench))
