"""The double loop's parts: when it decides, what it sees, what it may do; and the loop with it."""

import html
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmnet.compose import load
from mmnet.controller import groups, guard, policy
from mmnet.controller.clock import decisions
from mmnet.controller.features import FEATURES, SCHEMA, Kinds, Seen, Watch
from mmnet.controller.loss_guard import LossGuard
from mmnet.controller.observer import AdamObserver, observer_of
from mmnet.controller.report import write
from mmnet.controller.shipped import shipped
from mmnet.errors import ConfigError, UserError
from mmnet.job import Job
from tests.jobs import fingerprint, make_job, metrics, resume, run_job
from tests.policies import plain
from tests.test_head import HEADS


LOOP = ("controller=double_loop", "schedule=constant", "controller.meta_batch=16")
FREE = ("optimizer=schedule_free", "schedule=constant")


def sums_of(optimizer: Any) -> torch.Tensor:
    observer = observer_of(optimizer)
    return observer.sums(observer.each())


def weights(job: Job) -> str:
    return fingerprint(dict(job.model.state_dict()))


# When


def test_decisions_are_dense_at_first_and_as_many_in_runs_of_any_length() -> None:
    assert decisions(20) == [*range(17), 18]
    counts = [len(decisions(steps)) for steps in (50, 100, 300, 1_000, 100_000)]
    assert counts == [27, 37, 77, 123, 163]
    assert max(b - a for a, b in zip(decisions(1000), decisions(1000)[1:], strict=False)) == 10
    assert max(b - a for a, b in zip(decisions(1000, 4), decisions(1000, 4)[1:], strict=False)) == 4


# What it sees


def a_watch(steps: int = 100, passes: float = 3.0) -> Watch:
    kinds = Kinds(
        torch.tensor([100.0, 50.0, 25.0, 10.0]),
        tower=torch.tensor([1.0, 1.0, 0.0, 0.0]),
        fusion=torch.tensor([0.0, 0.0, 1.0, 0.0]),
    )
    return Watch(kinds, steps, passes)


def some(scale: float = 1.0, loss: float = 2.0, seed: int = 0) -> Seen:
    generator = torch.Generator().manual_seed(seed)
    grad, update, weight = (torch.rand(1, 4, generator=generator) + 0.5 for _ in range(3))
    dot = (grad * update).sqrt() * (2 * torch.rand(1, 4, generator=generator) - 1)
    nan = math.nan
    return Seen(
        grad * scale**2,
        dot * scale,
        update,
        weight,
        torch.tensor([loss]),
        torch.tensor([loss + 0.1]),
        torch.tensor([[loss + 0.5, loss + 0.2, nan, nan]]),
        torch.zeros(1, 4),
    )


def look(watch: Watch, seen: Seen, step: int = 0, rate: float = 0.01) -> dict[str, torch.Tensor]:
    actions = torch.zeros(1, 4, 2)
    found = watch.features(step, torch.full((1, 4), math.log(rate)), actions, seen)
    return dict(zip(FEATURES, found[0].unbind(1), strict=True))


def test_features_are_what_they_say() -> None:
    seen = some()
    found = look(a_watch(), seen)
    rho = 0.01 * seen.update.sqrt() / seen.weight.sqrt()
    assert torch.allclose(found["rho"], rho[0].log10() + 2.5, atol=1e-5)
    cos = seen.dot / (seen.grad * seen.update).sqrt()
    assert torch.allclose(found["cos_fast"], cos[0].sign(), atol=1e-3)  # of one, over its own size
    assert torch.allclose(found["gap"], torch.full((4,), 0.05), atol=1e-5)  # 0.1 of a loss of 2
    assert torch.allclose(found["worth"], torch.tensor([0.2, 0.05, 0, 0]), atol=1e-5)
    assert torch.allclose(found["worth_share"], torch.tensor([0.075, -0.075, 0, 0]), atol=1e-5)
    assert found["tower"].tolist() == [1, 1, 0, 0] and found["fusion"].tolist() == [0, 0, 1, 0]
    assert found["time"].tolist() == [-1] * 4 and found["early"].tolist() == [1] * 4


def test_features_know_no_units() -> None:
    """Of the gradient and of the loss: all that is seen doubles, and nothing else changes."""
    one, other = a_watch(), a_watch()
    for step in range(6):
        seen = some(loss=2 / (step + 1), seed=step)
        large = Seen(
            seen.grad * 9,
            seen.dot * 3,
            seen.update,
            seen.weight,
            3 * seen.loss,
            None if seen.meta is None else 3 * seen.meta,
            None if seen.without is None else 3 * seen.without,
            seen.dropout,
        )
        first, second = look(one, seen, step), look(other, large, step)
        for name in FEATURES:
            assert torch.allclose(first[name], second[name], atol=1e-4), name


def test_a_loss_that_is_not_finite_is_the_worst_one() -> None:
    watch = a_watch()
    look(watch, some(loss=1.0))
    found = look(watch, some(loss=math.nan), step=1)
    assert all(value.isfinite().all() for value in found.values())
    assert found["loss_gap"][0] == 2


def test_the_generalisation_gap_is_seen() -> None:
    watch = a_watch()
    for step in range(8):
        seen = some(loss=1.0)._replace(meta=torch.tensor([1.0 + 0.1 * step]))
        found = look(watch, seen, step)
    assert found["meta_rise"][0] > 1 and found["gap"][0] > 0.5 and found["gap_growth"][0] > 0


# Who decides


def test_a_policy_survives_its_file_and_another_schema_does_not(tmp_path: Path) -> None:
    made = policy.fresh("lstm", 4, torch.Generator().manual_seed(1))
    path = tmp_path / "p.safetensors"
    policy.save(made, path, {"seed": 1})
    read = policy.from_file(path)
    assert (read.kind, read.hidden) == ("lstm", 4)
    assert torch.equal(policy.to_flat(read), policy.to_flat(made))
    save_file(load_file(path), path, metadata={"schema": "older", "features": "rho,warmth"})
    with pytest.raises(UserError, match=rf"features older, and .* {SCHEMA}; .*cos_all.*warmth"):
        policy.from_file(path)
    path.write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        policy.from_file(path)


def test_policies_side_by_side_answer_as_each_alone() -> None:
    both = [policy.fresh("lstm", 4, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    flat = torch.cat([policy.to_flat(one) for one in both])
    together = policy.from_flat("lstm", 4, flat)
    features = torch.randn(2, 3, len(FEATURES))
    memory = together.start(3)
    memories = [one.start(3) for one in both]
    for _ in range(3):
        out, memory = together.act(features, memory)
        for number, one in enumerate(both):
            alone, memories[number] = one.act(features[number : number + 1], memories[number])
            assert torch.allclose(out[number], alone[0], atol=1e-6)


def test_those_that_come_with_mmnet_are_small_and_of_this_schema() -> None:
    assert set(shipped()) >= {"lstm", "linear"}
    for path in shipped().values():
        policy.from_file(path)
        assert path.stat().st_size < 50_000


# What it may do


def test_a_multiplier_changes_by_two_at_most_and_stays_within_its_bounds() -> None:
    actions = torch.zeros(1, 2, 2)
    for _ in range(50):
        before = actions
        actions = guard.moved(actions, torch.tensor([[[1e3, -1e3], [-1e3, 1e3]]]))
        assert (actions - before).abs().max() <= math.log(2) + 1e-6
    assert torch.allclose(actions.exp(), torch.tensor([[[100.0, 0.25], [0.01, 4.0]]]))


def test_the_largest_rate_moves_a_group_by_rho_of_its_norm() -> None:
    weight, update = torch.tensor([[4.0, 0.0]]), torch.tensor([[9.0, 1.0]])
    found = guard.largest_rate(weight, update, torch.tensor([10.0, 100.0]), 0.1)
    assert torch.allclose(found, torch.tensor([[0.2 / 3, 0.1 * 0.01]]), atol=1e-6)


# In the loop


def test_the_observer_reads_what_adamw_will_do(tmp_path: Path) -> None:
    """The last update, rebuilt from the state, against how weights moved."""
    job = make_job(tmp_path, *LOOP, "optimizer.weight_decay=0", "trainer.steps=6")
    optimizer: Any = job.optimizer
    inner, seen, before = optimizer.step, [], {}

    def step() -> None:
        seen.append(sums_of(optimizer))
        before.update({p: p.detach().clone() for p in job.model.parameters()})
        inner()

    optimizer.step = step
    run_job(job)
    rates = {g["control"]: g["lr"] for g in optimizer.param_groups}
    after = AdamObserver(optimizer).names
    moved = dict.fromkeys(after, 0.0)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            change = (parameter.detach() - before[parameter]) / rates[group["control"]]
            if parameter.sets_pace:
                moved[group["control"]] += float(change.square().sum())
    for parameter in job.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sums = sums_of(optimizer)
    assert torch.allclose(sums[:, 2], torch.tensor(list(moved.values())), rtol=1e-3)
    assert len(seen) == 6


def test_of_schedule_free_the_observer_reads_the_way_and_the_size(tmp_path: Path) -> None:
    """The way of the drift, and as large as momentum leaves of a step that is noise."""
    job = make_job(tmp_path, *LOOP, *FREE, "trainer.grad_clip=null")
    optimizer: Any = job.optimizer
    inner, checked = optimizer.step, []

    def step() -> None:
        told = sums_of(optimizer)
        started = {
            p: optimizer.state[p]["z"].clone()
            for p in job.model.parameters()
            if "z" in optimizer.state[p]
        }
        drift = {p: p.detach() - z for p, z in started.items()}
        grads = {p: p.grad.clone() for p in started}
        inner()
        for place, name in enumerate(AdamObserver(optimizer).names if started else ()):
            size = way = 0.0
            for group in optimizer.param_groups:
                mine = group["params"] if group["control"] == name else []
                for p in mine:
                    lr, decay = group["lr"], group["weight_decay"]
                    moved = (started[p] - optimizer.state[p]["z"]) / lr
                    moved = moved - decay * (started[p] + drift[p])
                    length = moved.norm() * math.sqrt(0.1 / 1.9)
                    size += float(length**2) * p.sets_pace
                    way += float((grads[p] * drift[p]).sum() / drift[p].norm() * length)
            checked.append((told[place, 2].item() / size, told[place, 1].item(), way))
        return None

    optimizer.step = step
    run_job(job)
    assert len(checked) == 4 * 11
    sizes = [size for size, _, _ in checked]
    # What the step divides by, it knows a step later than the observer.
    assert 0.5 < sorted(sizes)[len(sizes) // 2] < 2
    assert sum((told > 0) == (way > 0) for _, told, way in checked) > 40


def test_each_group_gets_its_own_rate(tmp_path: Path) -> None:
    # More for encoders, less for the rest.
    wants = plain(tmp_path / "towers.safetensors", rate=-10.0, tower=20.0)
    words = (f"controller.policy={wants}", "schedule.warmup_ratio=0")
    job = run_job(make_job(tmp_path / "run", *LOOP, *words, "controller.rho_max=10"), stop_after=3)
    base = job.run.optimizer["lr"]
    for name, times in (("image", 8), ("text", 8), ("fusion", 1 / 8), ("head", 1 / 8)):
        rates = {
            g["lr"]
            for g in job.optimizer.param_groups
            for p in g["params"]
            if any(p is q for q in owner(job, name).parameters())
        }
        assert len(rates) == 1, name
        assert rates.pop() == pytest.approx(base * times, rel=1e-4), name


def owner(job: Job, group: str) -> Any:
    model: Any = job.model
    return model.encoders[group] if group in model.encoders else getattr(model, group)


def test_a_decision_is_about_the_gradient_of_its_step(tmp_path: Path) -> None:
    """What is said of it, against the gradients that the optimizer was given."""
    job = make_job(tmp_path, *LOOP)
    optimizer, controller = job.optimizer, job.controller
    inner, checked = optimizer.step, []

    def step() -> None:
        sums = dict.fromkeys(controller.rates(), 0.0)
        for group in optimizer.param_groups:
            sums[group["control"]] += sum(float(p.grad.square().sum()) for p in group["params"])
        whole = sum(sums.values())
        told = {name: controller.decision[f"{name}/grad_share"] for name in sums}
        sizes = dict(zip(sums, job.controller.kinds.sizes.tolist(), strict=True))  # type: ignore[attr-defined]
        for name, value in sums.items():
            share = math.log10(value / sizes[name]) - math.log10(whole / sum(sizes.values()))
            checked.append(told[name] - max(-2, min(2, share)))
        inner()

    optimizer.step = step  # type: ignore[method-assign]
    run_job(job)
    assert len(checked) == 48 and max(map(abs, checked)) < 1e-3


@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free"])
def test_identity_and_disabled_are_fixed_to_the_bit(optimizer: str, tmp_path: Path) -> None:
    same = ("schedule=constant", "trainer.steps=10", f"optimizer={optimizer}")
    plain = weights(run_job(make_job(tmp_path / "fixed", *same)))
    off = ("controller=double_loop", "controller.enabled=false")
    identity = ("controller=identity", "controller.meta_batch=0")
    for name, words in (("off", off), ("identity", identity)):
        assert weights(run_job(make_job(tmp_path / name, *same, *words))) == plain, name
    steered = ("controller=double_loop", "controller.meta_batch=0")
    assert weights(run_job(make_job(tmp_path / "on", *same, *steered))) != plain


@pytest.mark.parametrize(
    "words", [(), ("controller.by=blocks",), ("controller.meta_batch=0",), FREE]
)
def test_stopped_amid_decisions_and_resumed_it_ends_the_same(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*LOOP, *words)
    whole = run_job(make_job(tmp_path / "whole", *words))
    run_job(make_job(tmp_path / "parts", *words), stop_after=7)
    rest = run_job(resume(make_job(tmp_path / "parts", *words)))
    assert weights(rest) == weights(whole)
    assert rest.state()["controller"].keys() == whole.state()["controller"].keys()
    assert fingerprint(rest.state()["controller"]) == fingerprint(whole.state()["controller"])
    rates = metrics(whole, "train/lr_head")
    assert len(rates) == 12 and len(set(rates)) == 12


def test_two_ranks_decide_alike_and_keep_equal_weights(tmp_path: Path) -> None:
    """Each with samples of its own, in training and in its meta-batch: rank 0 decides."""
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    words = (*LOOP, "controller.online.every=2", "controller.freeze.enabled=true")
    done = subprocess.run(
        [*command, "-m", "tests.ranks", str(tmp_path), *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other


def test_the_meta_batch_is_kept_from_training(tmp_path: Path) -> None:
    job = make_job(tmp_path, *LOOP)
    plain = make_job(tmp_path / "plain")
    trained = {job.train.key(index) for index in range(len(job.train))}
    everything = {plain.train.key(index) for index in range(len(plain.train))}
    controller: Any = job.controller
    assert len(everything - trained) == sum(b.size for b in controller.meta.batches) == 16
    assert trained < everything


def test_a_group_is_measured_by_its_matrices(tmp_path: Path) -> None:
    """Gains of norms are 1 and embeddings of unit variance: neither says what a step may be."""
    job = make_job(tmp_path, *LOOP)
    controller: Any = job.controller
    parameters: dict[str, Any] = dict(job.model.named_parameters())
    paced = {name for name, p in parameters.items() if p.sets_pace}
    assert "encoders.text.embed.weight" not in paced and "head.logits.weight" in paced
    assert not any("norm" in name or "bias" in name or "cls_token" in name for name in paced)
    head = sum(parameters[name].numel() for name in paced if name.startswith("head."))
    assert controller.observer.sizes[controller.names.index("head")] == head


def test_groups_are_those_of_the_network(tmp_path: Path) -> None:
    job = make_job(tmp_path / "parts", *LOOP)
    assert set(groups.names(job.optimizer)) == {"image", "text", "fusion", "head"}
    blocks = make_job(tmp_path / "blocks", *LOOP, "controller.by=blocks")
    assert {"image.0", "image.1", "text.1", "fusion"} <= set(groups.names(blocks.optimizer))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("controller=double_loop", "schedule=wsd"), "this controller goes with schedule=constant"),
        ((*LOOP, "optimizer=sgd"), "this controller goes with optimizer=adamw or schedule_free"),
        (
            (*LOOP, *FREE, "controller.online.every=5"),
            "does not keep the step that the online loop",
        ),
    ],
)
def test_what_it_does_not_go_with_is_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load("model=micro", *words)


def test_a_width_that_nobody_trained_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hidden_dim=16: lstm is 8 wide; there are 8"):
        make_job(tmp_path, *LOOP, "controller.hidden_dim=16")
    with pytest.raises(UserError, match=r"policy=lstn: no such file.*linear, lstm"):
        make_job(tmp_path, *LOOP, "controller.policy=lstn")


def test_decisions_can_be_read_afterwards(tmp_path: Path) -> None:
    from tests.command import run

    ended = run(tmp_path, "model=micro", "tracker=none", *LOOP, "trainer.steps=20")
    assert ended.code == 0, ended.err
    text = (ended.folder / "controller.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [step + 1 for step in decisions(20)]
    assert {f"controller/image/{name}" for name in (*FEATURES, "multiplier", "limit")} <= lines[
        0
    ].keys()


# Regularisation


REGULAR = (
    *("encoder.text.dropout=0.1", "encoder.image.dropout=0.2", "head.label_smoothing=0.1"),
    "trainer.modality_dropout=0.3",
)


def steered(tmp_path: Path, *words: str) -> Any:
    controller: Any = make_job(tmp_path, *LOOP, *words).controller
    return controller


def test_strength_reaches_whatever_regularises(tmp_path: Path) -> None:
    job = make_job(tmp_path, *LOOP, *REGULAR)
    controller: Any = job.controller
    strength = {"image": 2.0, "text": 0.5, "fusion": 4.0, "head": 3.0}
    controller.regularisation.set(strength)
    decays = [g["weight_decay"] for g in job.optimizer.param_groups if g["control"] == "image"]
    assert max(decays) == pytest.approx(2 * job.run.optimizer["weight_decay"])
    dropped = dict(zip(controller.names, controller.regularisation.dropped()[0], strict=True))
    assert dropped["image"] == pytest.approx(0.4) and dropped["text"] == pytest.approx(0.05)
    assert dropped["fusion"] == 0  # there is none by the settings
    assert controller.losing() == {"image": 2.0, "text": 0.5}
    head: Any = job.model.head
    answers, labels = torch.tensor([[4.0, 0.0, 0.0, 0.0]]), {"label": torch.tensor([0])}
    trained = head.train().loss(answers, labels)
    assert trained > head.eval().loss(answers, labels)  # measured with what the settings say
    head.label_smoothing = 0.3
    assert torch.allclose(trained, head.loss(answers, labels))


def test_steered_dropout_drops_what_it_is_told(tmp_path: Path) -> None:
    controller = steered(tmp_path, *REGULAR)
    (dropout, *_) = [d.module for d in controller.regularisation.dropouts if d.group == "image"]
    ones = torch.ones(200, 200)
    controller.regularisation.set(dict.fromkeys(controller.names, 3.0))
    gone = dropout.train()(ones)
    assert (gone == 0).float().mean() == pytest.approx(0.6, abs=0.02)
    assert gone.mean() == pytest.approx(1, abs=0.02)
    assert torch.equal(dropout.eval()(ones), ones)
    controller.regularisation.set(dict.fromkeys(controller.names, 100.0))
    assert dropout.share == 0.75


def test_what_the_policy_says_of_regularisation_is_done(tmp_path: Path) -> None:
    """A policy that always wants more of it, against one that may not."""
    path = plain(tmp_path / "more.safetensors", strength=10.0)
    words = (*LOOP, *REGULAR, f"controller.policy={path}", "optimizer.weight_decay=0.1")
    job = run_job(make_job(tmp_path / "on", *words))
    assert max(g["weight_decay"] for g in job.optimizer.param_groups) == pytest.approx(0.4)
    off = run_job(make_job(tmp_path / "off", *words, "controller.regularise=false"))
    assert {g["weight_decay"] for g in off.optimizer.param_groups} <= {0, 0.1}
    resumed = make_job(tmp_path / "on2", *words)
    run_job(resumed, stop_after=6)
    assert weights(run_job(resume(resumed))) == weights(job)


# Online


def test_the_online_slope_is_that_of_the_meta_batch(tmp_path: Path) -> None:
    """Exact for one step: against what other rates of the last step would have led to."""
    words = (*LOOP, "controller.online.every=1", "optimizer.weight_decay=5", "trainer.steps=5")
    job = make_job(tmp_path, *words)
    optimizer: Any = job.optimizer
    inner, before = optimizer.step, {}

    def step() -> None:
        before.update({p: p.detach().clone() for p in job.model.parameters()})
        inner()

    optimizer.step = step
    run_job(job)
    controller: Any = job.controller
    for parameter in job.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rates = controller.rates()
    _, slopes, _, decays, _ = controller.online.look(rates).view(5, -1)
    updates = {
        p: u
        for group in optimizer.param_groups
        for p, u in zip(
            group["params"],
            controller.observer.updates(group, group["params"]),
            strict=True,
        )
    }
    after = {p: p.detach().clone() for p in job.model.parameters()}

    def loss(name: str, rate: float, decay: float) -> float:
        """On the meta-batch, had the last step been taken with these times rate and decay."""
        for group in optimizer.param_groups:
            if group["control"] == name:
                for p in group["params"]:
                    lr, wd = rates[name] * rate, group["weight_decay"] * decay
                    p.data = before[p] * (1 - lr * wd) - lr * updates[p]
        with torch.no_grad():
            found = float(controller.meta.loss())
        for p, value in after.items():
            p.data = value
        return found

    for number, name in enumerate(controller.names):
        up, down = loss(name, 1.1, 1), loss(name, 1 / 1.1, 1)
        measured = (up - down) / (2 * math.log(1.1))
        assert -rates[name] * float(slopes[number]) == pytest.approx(measured, rel=0.05, abs=2e-6)
        up, down = loss(name, 1, 1.5), loss(name, 1, 1 / 1.5)
        measured = (up - down) / (2 * math.log(1.5))
        assert -rates[name] * float(decays[number]) == pytest.approx(measured, rel=0.2, abs=2e-6)


def test_the_online_loop_corrects_within_a_factor_of_two(tmp_path: Path) -> None:
    words = ("controller.online.every=1", "controller.online.rate=5")
    controller: Any = run_job(make_job(tmp_path, *LOOP, *words)).controller
    bias = controller.online.bias
    assert bias[..., 0].abs().max() == pytest.approx(math.log(2)) and not bias[..., 1].any()


def test_the_online_loop_corrects_downhill(tmp_path: Path) -> None:
    words = (*LOOP, "controller.online.every=1", f"controller.policy={plain(tmp_path / 'none')}")
    controller: Any = run_job(make_job(tmp_path / "run", *words), stop_after=1).controller
    online, groups = controller.online, len(controller.names)
    one = torch.ones(groups)
    further = torch.tensor([1.0 if place % 2 else -1.0 for place in range(groups)])
    online.correct(torch.cat([4 * one, 2 * further, 4 * one, one, one]).tolist())
    # Where the gradient and the step agree, the loss would have fallen further: up.
    assert torch.allclose(online.bias[0, :, 0], 0.5 * online.rate * further)
    assert not online.bias[0, :, 1].any()


# Freezing


FREEZE = (*LOOP, "controller.freeze.enabled=true", "controller.freeze.after=0")


def test_blocks_that_do_not_pay_stop_learning_and_nothing_else(tmp_path: Path) -> None:
    # Long enough for steps without a decision, in which nothing but the switch keeps them still.
    long = (*FREEZE, "trainer.steps=40")
    words = (*long, "controller.freeze.pays=1000", "controller.freeze.probe=1000")
    job = run_job(make_job(tmp_path, *words), stop_after=20)
    controller: Any = job.controller
    assert controller.freezing.frozen == {"image": 2, "text": 1}  # all but the last
    blocks = controller.freezing.towers["image"]
    frozen = [p.detach().clone() for p in blocks[0]]
    learning = [p.detach().clone() for p in blocks[-1]]
    later = run_job(resume(job))
    again: Any = later.controller
    assert all(
        torch.equal(a, b) for a, b in zip(frozen, again.freezing.towers["image"][0], strict=True)
    )
    assert not all(
        torch.equal(a, b) for a, b in zip(learning, again.freezing.towers["image"][-1], strict=True)
    )
    whole = run_job(make_job(tmp_path / "whole", *words))
    assert weights(whole) == weights(later)


def test_what_pays_is_not_frozen(tmp_path: Path) -> None:
    job = run_job(make_job(tmp_path, *FREEZE, "controller.freeze.pays=1e-9"))
    controller: Any = job.controller
    assert controller.freezing.frozen == {"image": 0, "text": 0}


def test_a_block_whose_gradient_has_grown_thaws(tmp_path: Path) -> None:
    words = (*FREEZE, "controller.freeze.pays=1000", "controller.freeze.probe=2")
    job = run_job(make_job(tmp_path, *words), stop_after=8)
    controller: Any = job.controller
    freezing = controller.freezing
    assert freezing.frozen["text"] > 0
    each = torch.ones(len(controller.observer.parameters), 4)
    freezing.gradient = dict.fromkeys(freezing.names, 1.0)
    freezing.measuring = True
    assert freezing.decide(8, each, torch.ones(4)) == {}  # none has grown
    freezing.gradient["text.0"] = 1e-6
    freezing.measuring = True
    assert freezing.decide(9, each, torch.ones(4)) == {"text/frozen": 0.0}
    assert all(p.requires_grad for block in freezing.towers["text"] for p in block)


# The guard


def test_a_loss_that_blows_up_is_restored_once_and_then_the_policy_is_dismissed() -> None:
    good, wild = torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), 3.0)
    loss_guard = LossGuard(2)
    loss_guard.judge(1.0, good)
    for _ in range(4):
        assert loss_guard.judge(0.5, good)[1] == "well"
    verdicts = [loss_guard.judge(math.inf if n else 9.0, wild) for n in range(3)]
    assert [verdict for _, verdict in verdicts] == ["well", "well", "restored"]
    back = verdicts[-1][0]
    assert torch.allclose(back[..., 0], good[..., 0] - math.log(2))
    assert torch.equal(back[..., 1], good[..., 1])
    assert torch.equal(loss_guard.limited(wild)[..., 0], back[..., 0])  # and may not climb again
    assert not loss_guard.dismissed
    for _ in range(3):
        _, verdict = loss_guard.judge(9.0, wild)
    assert verdict == "fallen back" and loss_guard.dismissed


def test_a_loss_near_zero_may_be_three_times_its_best() -> None:
    loss_guard = LossGuard(1)
    actions = torch.zeros(1, 1, 2)
    for loss in (1.0, 0.001, 0.001, 0.01, 0.05, 0.05, 0.05):
        assert loss_guard.judge(loss, actions)[1] == "well"


def test_a_policy_that_blows_a_run_up_is_stopped(tmp_path: Path) -> None:
    path = plain(tmp_path / "wild.safetensors", rate=10.0)
    words = (f"controller.policy={path}", "controller.rho_max=100", "trainer.steps=40")
    job = run_job(make_job(tmp_path / "run", *LOOP, *words, "optimizer.lr=0.1"))
    controller: Any = job.controller
    assert controller.guard.times >= 1
    assert all(p.isfinite().all() for p in job.model.parameters())


# Architecture


def test_blocks_that_join_later_change_nothing_when_they_do(tmp_path: Path) -> None:
    words = (*LOOP, "controller.grow.blocks=1", "controller.grow.at=0.5", "encoder.text.depth=2")
    job = run_job(make_job(tmp_path, *words), stop_after=5)
    controller: Any = job.controller
    growth = controller.growth
    assert growth.absent and len(growth.blocks) == 2
    (batch,) = controller.meta.batches[:1]
    job.model.eval()
    with torch.no_grad():
        before = job.model(batch.inputs)
        growth.join()
        assert torch.equal(job.model(batch.inputs), before)
    # A network that is read from the checkpoint has all its blocks: it is the same function.
    whole = make_job(tmp_path / "read", "encoder.text.depth=2")
    whole.model.load_state_dict(job.model.state_dict())
    with torch.no_grad():
        assert torch.equal(whole.model.eval()(batch.inputs), before)


def test_blocks_that_joined_learn(tmp_path: Path) -> None:
    words = (*LOOP, "controller.grow.blocks=1", "controller.grow.at=0.5", "encoder.text.depth=2")
    whole = run_job(make_job(tmp_path / "whole", *words))
    controller: Any = whole.controller
    assert not controller.growth.absent
    assert all(p.any() for block in controller.growth.blocks for p in block.parameters())
    for stop in (3, 9):  # before and after
        run_job(make_job(tmp_path / f"{stop}", *words), stop_after=stop)
        rest = run_job(resume(make_job(tmp_path / f"{stop}", *words)))
        assert weights(rest) == weights(whole)


def test_growth_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grow.blocks=2: encoder/image has 2 blocks"):
        make_job(tmp_path, *LOOP, "controller.grow.blocks=2")
    convnext = ("encoder/image=convnext_micro", "encoder.text.depth=2")
    with pytest.raises(UserError, match=r"encoder/image .*normalise before"):
        make_job(tmp_path, *LOOP, *convnext, "controller.grow.blocks=1")


def test_patches_are_dropped_until_they_are_not(tmp_path: Path) -> None:
    words = (*LOOP, "controller.drop_patches.share=0.5", "controller.drop_patches.until=0.5")
    seen: list[int] = []

    def count(module: Any, inputs: Any) -> None:
        if module.training:
            seen.append(inputs[0].shape[1])

    job = make_job(tmp_path / "whole", *words)
    image: Any = job.model.encoders["image"]
    image.body.blocks[0].register_forward_pre_hook(count)
    run_job(job)
    few, many = min(seen), max(seen)
    assert seen == [few] * 6 + [many] * 6 and many - 1 == 2 * (few - 1)
    run_job(make_job(tmp_path / "parts", *words), stop_after=8)
    assert weights(run_job(resume(make_job(tmp_path / "parts", *words)))) == weights(job)
    with pytest.raises(UserError, match=r"share=0.5: there is no image encoder"):
        make_job(tmp_path / "text", *LOOP, "model=text_only", "controller.drop_patches.share=0.5")


# With every head, and compiled


@pytest.mark.parametrize("words", HEADS.values(), ids=HEADS)
def test_every_head_can_be_steered(words: tuple[str, ...], tmp_path: Path) -> None:
    """All that acts, at once; the masked and the contrastive losses have their own ways."""
    switches = (
        *("controller.online.every=2", "controller.online.regularisation=true"),
        *("controller.freeze.enabled=true", "controller.freeze.after=0.3"),
        *("controller.freeze.pays=1000", "controller.freeze.probe=2"),
        *("encoder.text.dropout=0.1", "encoder.image.dropout=0.1", "trainer.steps=12"),
    )
    job = run_job(make_job(tmp_path, *words, *LOOP, *switches))
    assert job.counters.step == 12 and job.counters.skipped == 0
    assert all(value.isfinite().all() for value in job.model.state_dict().values())
    rates = metrics(job, "train/lr_head") or metrics(job, "train/lr_image")
    assert len(set(rates)) > 6


def test_a_contrastive_meta_batch_is_a_whole_batch(tmp_path: Path) -> None:
    """A smaller one would be an easier task."""
    words = (*HEADS["infonce"], "controller=double_loop", "dataset.train_samples=256")
    controller: Any = make_job(tmp_path, *words).controller
    assert [batch.size for batch in controller.meta.batches] == [16]


@pytest.mark.slow
def test_steering_compiles_nothing_anew(tmp_path: Path) -> None:
    """Rates and shares of dropout are no constants of the compiled network."""
    compiled: list[int] = []

    def count(*_: Any) -> None:
        compiled.append(job.counters.step)

    job = make_job(tmp_path, *LOOP, *REGULAR, "hardware.compile=true", "trainer.eval_every=100")
    torch._dynamo.reset()
    torch._dynamo.callback.on_compile_start(count)
    try:
        run_job(job)
    finally:
        torch._dynamo.callback.callback_handler.clear()
    assert compiled and max(compiled) <= 1  # the first step, and one whose shapes are marked
    strengths = [d.module.share.item() for d in job.controller.regularisation.dropouts]  # type: ignore[attr-defined]
    assert strengths != [d.share for d in job.controller.regularisation.dropouts]  # type: ignore[attr-defined]


# Under glass


def test_the_report_says_what_was_done_and_why(tmp_path: Path) -> None:
    from tests.command import run

    freeze = ("controller.freeze.enabled=true", "controller.freeze.after=0.5")
    words = (*freeze, "controller.freeze.pays=1000", "encoder.text.dropout=0.2")
    ended = run(tmp_path, "model=micro", "tracker=none", *LOOP, *words, "trainer.steps=40")
    assert ended.code == 0, ended.err
    assert (ended.folder / "plots/controller.png").is_file()
    page = (ended.folder / "controller.html").read_text()
    assert "data:image/png;base64," in page
    said = write(ended.folder)
    assert said[0].startswith(f"{len(decisions(40))} decisions in")
    for group in ("image", "text", "fusion", "head"):
        assert any(f"{group}: the rate was multiplied with" in line for line in said)
    assert any("Its changes followed most" in line and "the LSTM's part" in line for line in said)
    assert any("image: froze, 2 blocks are frozen now" in line for line in said)
    assert all(line in html.unescape(page) for line in said)


def test_a_run_without_decisions_has_no_report(tmp_path: Path) -> None:
    job = run_job(make_job(tmp_path))
    with pytest.raises(UserError, match="no controller decided anything in this run"):
        write(job.folder)
