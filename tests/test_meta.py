"""Meta-training: small runs that are real ones, the search, and that it goes on after a kill."""

import json
import math
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmnet.controller import policy
from mmnet.controller.features import FEATURES, Seen
from mmnet.controller.guard import largest_rate
from mmnet.meta.arms import WARM_UP, Scheduled, Steered, cosine
from mmnet.meta.evolve import Search, Settings, generation, yardstick
from mmnet.meta.inner import Score, train
from mmnet.meta.inner import Settings as Inner
from mmnet.meta.networks import cross_entropy
from mmnet.meta.tasks import Task, draw
from tests.command import begin, checkpoints, end, run, until


SETTINGS = Settings(
    "lstm",
    4,
    pairs=4,
    tasks=2,
    sigma=0.1,
    rate=0.01,
    average=0.9,
    rho_max=0.1,
    seed=0,
    device="cpu",
)
TINY = (
    *("task=meta_train", "name=meta", "controller=double_loop", "tracker=none"),
    *("meta.pairs=2", "meta.tasks=1", "meta.score_tasks=1", "meta.fresh_tasks=1"),
    "meta.processes=1",
)


def constant(done: float) -> float:
    return 1.0


class Calibrated:
    """Every group moves by rho x linear decay of its norm; the base rate does not matter."""

    def __init__(self, rho: float) -> None:
        self.rho = rho

    def begin(self, task: Task, runs: int) -> None:
        self.steps = task.steps
        self.sizes = task.network.kinds().sizes

    def due(self, step: int) -> bool:
        return True

    def settings(self, step: int, base: Tensor, seen: Seen | None) -> Inner:
        assert seen is not None
        done = (step + 0.5) / self.steps
        rho = self.rho * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
        return Inner(largest_rate(seen.weight, seen.update, self.sizes, rho))


def short(seed: int, members: int = 2) -> Task:
    return draw(seed, members, (20, 30))


def test_a_task_is_that_of_its_seed_and_no_other() -> None:
    one, same, other = short(5), short(5), short(6)
    assert torch.equal(one.data.image, same.data.image) and torch.equal(one.order, same.order)
    assert one.data.image.shape != other.data.image.shape or not torch.equal(
        one.data.image, other.data.image
    )


def test_nothing_is_trained_on_what_scores_a_run_or_on_the_meta_batch() -> None:
    for seed in range(20):
        task = short(seed)
        trained = set(task.order.flatten().tolist())
        assert not trained & set(task.meta.flatten().tolist())
        assert not trained & set(task.validation.flatten().tolist())
        assert not set(task.meta.flatten().tolist()) & set(task.validation.flatten().tolist())
        looked = {i for look in range(99) for i in task.held(look).flatten().tolist()}
        assert looked == set(task.meta.flatten().tolist())


def test_kinds_of_tasks_come_in_all_combinations() -> None:
    kinds = {draw(seed, 1, (20, 30)).what for seed in range(120)}
    names = ("teacher", "clusters", "lookup", "unequal")
    assert kinds == {
        f"{name}, {seen}, {network}"
        for name in names
        for seen in ("once", "many times")
        for network in ("MLP", "attention")
    }


def test_the_inner_loop_is_adamw() -> None:
    """One run of it against torch's optimizer, regularisation off."""
    task = short(3, 1)
    for name in ("dropout", "modality_dropout", "smoothing"):
        setattr(task, name, torch.zeros(1))
    task.decay, task.rate = torch.full((1,), 0.1), torch.full((1,), 1e-2)
    found = train(task, Scheduled(constant))
    weights = task.weights.clone().requires_grad_()
    optimizer = torch.optim.AdamW([weights], lr=1e-2, betas=task.betas, weight_decay=0.1)
    for step in range(task.steps):
        image, text, labels = task.data.rows(task.order[:, step])
        optimizer.zero_grad()
        cross_entropy(task.network(weights, image, text), labels).sum().backward()
        optimizer.step()
    image, text, labels = task.data.rows(task.validation)
    with torch.no_grad():
        expected = cross_entropy(task.network(weights, image, text), labels)
    assert torch.allclose(found.loss, expected, rtol=2e-3)


def test_runs_side_by_side_are_those_alone() -> None:
    policies = [policy.fresh("lstm", 4, torch.Generator().manual_seed(s)) for s in (1, 2)]
    flat = torch.cat([policy.to_flat(one) for one in policies])
    each = policy.from_flat("lstm", 4, flat.repeat_interleave(2, 0))
    together = train(short(7), Steered(each, 0.1), repeat=2)
    for number, one in enumerate(policies):
        alone = train(short(7), Steered(one, 0.1))
        assert torch.allclose(together.loss[2 * number : 2 * number + 2], alone.loss, rtol=1e-3)


def test_regularisation_of_a_run_is_what_the_policy_makes_of_it() -> None:
    task = short(9)
    task.dropout = torch.full((2,), 0.2)

    def ended(strength: float) -> Score:
        one = policy.fresh("linear", 0, torch.Generator().manual_seed(0))
        one.weights["skip"][..., 1] = 0
        one.weights["bias"][..., 1] = strength
        return train(task, Steered(one, 0.1))

    assert not torch.equal(ended(0).loss, ended(3).loss)


def test_a_blow_up_is_the_worst_score_and_no_nan() -> None:
    task = short(4)
    task.rate = torch.full_like(task.rate, 1e6)
    found = train(task, Scheduled(constant))
    assert found.loss.isfinite().all() and (found.loss <= 5 * task.chance).all()


def test_the_start_is_the_calibrated_rate() -> None:
    """Far nearer to it, from a bad base rate, than the rate itself."""
    task = draw(11, 4, (316, 317))
    task.rate = torch.full_like(task.rate, 1e-5)
    fresh = policy.fresh("linear", 0, torch.Generator().manual_seed(0))
    begun, goal = train(task, Steered(fresh, 0.1)), train(task, Calibrated(0.01))
    plain = train(task, Scheduled(cosine))
    assert (begun.loss - goal.loss).abs().mean() < 0.3 * (plain.loss - goal.loss).abs().mean()


def test_a_search_follows_its_slope() -> None:
    """Two generations, each the same for the same seed."""
    flat = policy.to_flat(policy.fresh("lstm", 4, torch.Generator().manual_seed(0)))[0]
    with ThreadPoolExecutor(1) as pool:
        slopes = [generation(flat, 0, SETTINGS, pool) for _ in range(2)]
        assert torch.equal(slopes[0], slopes[1])
        search = Search.begin(flat)
        search.advance(SETTINGS, 0.0, pool)
        moved = search.flat - flat
        assert (moved.sign() == -slopes[0].sign()).float().mean() > 0.99
        known = yardstick(range(1, 2), 1, "cpu", pool)
        assert math.isfinite(float(known.score(flat, SETTINGS, pool)[0]))


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    words = (*TINY, "meta.generations=8", "meta.score_every=1")
    whole = run(tmp_path / "whole", *words)
    assert whole.code == 0, whole.err
    process = begin(tmp_path / "part", *words)
    until(lambda: len(checkpoints(tmp_path / "part")) > 1, process)
    process.send_signal(signal.SIGTERM)
    part = end(process, tmp_path / "part")
    assert part.code == 128 + signal.SIGTERM and "resume=" in part.err
    rest = run(tmp_path / "part", f"resume='{part.folder}'")
    assert rest.code == 0, rest.err
    one, other = (load_file(ended.folder / "policy.safetensors") for ended in (whole, rest))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.train
def test_a_policy_tells_how_it_came_about_and_acts(tmp_path: Path) -> None:
    width = ("meta.generations=1", "controller.hidden_dim=5")
    ended = run(tmp_path, *TINY, *width)
    assert ended.code == 0, ended.err
    path = ended.folder / "policy.safetensors"
    found = policy.from_file(path)
    assert (found.kind, found.hidden) == ("lstm", 5)
    assert found.weights["skip"].shape == (1, len(FEATURES), 2)
    summary = json.loads((ended.folder / "summary.json").read_text())
    assert summary["status"] == "FINISHED"
    words = ("model=micro", "tracker=none", "hardware=cpu", "trainer.steps=3")
    acted = run(
        tmp_path,
        *words,
        "controller=double_loop",
        f"controller.policy='{path}'",
        "controller.hidden_dim=5",
    )
    assert acted.code == 0, acted.err
