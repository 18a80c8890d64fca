"""Several heads on one network: their weights, and four ways of balancing them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mmnet.assembly import check_parts
from mmnet.compose import load
from mmnet.errors import ConfigError, UserError
from mmnet.gradients import accumulate
from mmnet.head.balance import LEAST_WEIGHT, WEIGHT_RATE, GradNorm, PCGrad, Uncertainty
from mmnet.head.multitask import Multitask
from mmnet.interfaces import Features, Fused, Names
from mmnet.job import Job
from mmnet.loop import Parameters, advance
from mmnet.model import make_head
from tests.test_head import a_job, a_step, gradients


LABEL = {
    "_target_": "mmnet.head.classification.Classification",
    "num_classes": 3,
    "class_weights": None,
    "label_smoothing": 0.0,
    "focal_gamma": 0.0,
    "dropout": 0.0,
}
VALUE = {
    "_target_": "mmnet.head.regression.Regression",
    "loss": "mse",
    "huber_delta": 1.0,
    "quantile": 0.5,
    "dropout": 0.0,
}
NEAR = {
    "_target_": "mmnet.head.contrastive.Contrastive",
    "loss": "infonce",
    "embed_dim": 4,
}
FACTS = {"dim": 8, "value_mean": 10.0, "value_std": 2.0, "dims": {"image": 5, "text": 6}}


def multitask(tasks: dict[str, Any] | None = None, **changes: Any) -> Multitask:
    tasks = tasks or {"label": LABEL, "value": VALUE}
    settings: dict[str, Any] = {
        "weighting": "fixed",
        "weights": dict.fromkeys(tasks, 1.0),
        "alpha": 1.5,
    }
    return Multitask(lambda part: make_head(part, FACTS), tasks, **settings | changes)


def targets(size: int) -> dict[str, torch.Tensor]:
    return {
        "label": torch.randint(3, (size,)),
        "value": 10 + 2 * torch.randn(size),
        "group": torch.arange(size),
    }


def fused(size: int) -> Fused:
    features = {
        name: Features(torch.randn(size, 2, d), torch.randn(size, d), None)
        for name, d in FACTS["dims"].items()  # type: ignore[attr-defined]
    }
    return Fused(torch.randn(size, 8), {}, features)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_the_loss_is_the_weighted_sum_of_the_tasks_own() -> None:
    head = multitask({"label": LABEL, "value": VALUE, "near": NEAR})
    weighted = multitask(
        {"label": LABEL, "value": VALUE, "near": NEAR},
        weights={"near": 3.0, "label": 1.0, "value": 0.5},  # by name, whatever the order
    )
    weighted.load_state_dict(head.state_dict())
    given, wanted = fused(6), targets(6)
    answers = head(given)
    assert list(answers) == ["label", "value", "near/image", "near/text", "near/both"]
    each = {name: task.loss(task(given), wanted) for name, task in head.heads()}
    assert torch.isclose(head.loss(answers, wanted), sum(each.values(), torch.zeros(())))
    expected = each["label"] + 0.5 * each["value"] + 3 * each["near"]
    assert torch.isclose(weighted.loss(answers, wanted), expected)
    assert torch.isclose(weighted.losses(answers, wanted)["near"], 3 * each["near"])


def test_a_multitask_head_is_the_union_of_its_tasks() -> None:
    head = multitask({"label": LABEL, "near": NEAR, "value": VALUE})
    assert head.targets == ("label", "group", "value")
    assert head.modalities == ("image", "text")
    assert head.whole_batch and not multitask().whole_batch
    better = head.higher_is_better
    assert better["label_accuracy"] and not better["value_mae"] and better["near_t2i_recall_1"]
    metrics, given, wanted = head.metrics(), fused(6), targets(6)
    head.update(metrics, head(given), wanted)
    found = metrics.to("cpu").compute()
    assert set(found) == set(better) - {"label_top5"} | {"label_confusion"}
    alone = dict(head.heads())["value"]
    own = alone.metrics()
    alone.update(own, alone(given), wanted)
    assert found["value_rmse"] == own.compute()["rmse"]
    shown = head.words(head(given), wanted, Names(classes=["a", "b", "c"], unit="kg"))
    assert len(shown) == 6
    truth, answer, right = shown[0]
    assert [len(part.split(" · ")) for part in (truth, answer)] == [3, 3]
    parts = [
        task.words(task(given), wanted, Names(classes=["a", "b", "c"])) for _, task in head.heads()
    ]
    assert right == (parts[0][0][2] and parts[1][0][2])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("~head.weights.value",), r"head\.weights: no weight for the task value"),
        (("+head.weights.valu=1",), r"head\.weights\.valu: no such task; did you mean 'value'\?"),
        (
            ("head@head.tasks.label=masked_lm", "head@head.tasks.labels=masked_lm"),
            r"head\.tasks\.label and head\.tasks\.labels would hide words of one text",
        ),
        (
            ("head@head.tasks.label=multitask",),
            r"head\.tasks\.label is made of tasks itself",
        ),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_parts(load("model=micro", "head=multitask", *words))


def test_as_a_library_the_names_are_looked_at_too() -> None:
    with pytest.raises(UserError, match="no weight for the task value"):
        multitask(weights={"label": 1.0})


def test_tasks_are_changed_added_and_left_out_on_the_command_line() -> None:
    words = ("model=micro", "head=multitask")
    assert list(load(*words).head["tasks"]) == ["label", "labels", "value"]
    more = load(*words, "+head@head.tasks.match=matching", "+head.weights.match=2")
    assert more.head["tasks"]["match"]["hard_negatives"] is False
    assert list(load(*words, "~head.tasks.value").head["tasks"]) == ["label", "labels"]
    other = load(*words, "head@head.tasks.value=masked_lm").head["tasks"]["value"]
    assert other["_target_"] == "mmnet.head.masked_lm.MaskedLM"


# Uncertainty


def test_uncertainty_is_least_where_a_variance_is_twice_its_loss() -> None:
    balance, losses = Uncertainty(2), torch.tensor([0.5, 8.0])
    weights = torch.tensor([1.0, 1.0])
    assert torch.equal(balance(losses, weights), losses)  # at first
    balance.log_variances.data = (2 * losses).log()
    total = balance(losses, weights)
    expected = 0.5 + 0.5 * torch.log(2 * losses)
    assert torch.allclose(total, expected)
    total.sum().backward()
    assert balance.log_variances.grad.abs().max() < 1e-6


def test_uncertainty_balances_training_and_not_the_evaluation() -> None:
    head = multitask(weighting="uncertainty", weights={"label": 2.0, "value": 1.0})
    answers, wanted = head(fused(6)), targets(6)
    one, other = head.losses(answers, wanted).values()
    balance: Any = head.balance
    balance.log_variances.data = torch.tensor([1.0, -1.0])
    expected = math.exp(-1) * one + 2 * 0.5 + math.exp(1) * other - 0.5
    assert torch.isclose(head.loss(answers, wanted), expected)
    assert torch.isclose(head.eval().loss(answers, wanted), one + other)


# PCGrad


def vectors(*rows: list[float]) -> list[list[torch.Tensor | None]]:
    """The tasks' gradients of one shared parameter."""
    return [[torch.tensor(row)] for row in rows]


def pcgrad(given: list[list[torch.Tensor | None]]) -> Any:
    return PCGrad()(given, torch.ones(len(given)), torch.ones(len(given)))


def test_pcgrad_takes_the_conflict_out_of_both() -> None:
    # (1, 0) becomes (0.5, 0.5), at a right angle to (-1, 1), and that (0, 1).
    for scale in (1.0, 65536.0):
        [combined] = pcgrad(vectors([scale, 0.0], [-scale, scale]))
        assert torch.allclose(combined, scale * torch.tensor([0.5, 1.5]))
    [agreed] = pcgrad(vectors([1.0, 0.0], [1.0, 1.0]))
    assert agreed.tolist() == [2, 1]
    [opposite] = pcgrad(vectors([1.0, 0.0], [-2.0, 0.0]))
    assert opposite.abs().max() < 1e-6
    [nothing] = pcgrad(vectors([1.0, 0.0], [0.0, 0.0]))
    assert nothing.tolist() == [1, 0]


def test_pcgrad_leaves_a_tasks_own_parameters_alone() -> None:
    # The first parameter is both tasks', the second and third are one's each; the last nobody's.
    own = torch.tensor([5.0, 5.0])
    given: list[list[torch.Tensor | None]] = [
        [torch.tensor([1.0, 0.0]), own, None, None],
        [torch.tensor([-1.0, 1.0]), None, 2 * own, None],
    ]
    combined = pcgrad(given)
    assert torch.allclose(combined[0], torch.tensor([0.5, 1.5]))
    assert torch.equal(combined[1], own) and torch.equal(combined[2], 2 * own)
    assert combined[3] is None
    # A compiled network says 0 instead of None.
    zeros: Any = [[torch.zeros(2) if g is None else g for g in row] for row in given]
    for one, other in zip(combined[:3], pcgrad(zeros), strict=False):
        assert torch.equal(one, other)


def test_pcgrad_of_many_tasks_is_the_algorithm_of_its_paper() -> None:
    tasks = [torch.randn(3, 4) for _ in range(4)]
    torch.manual_seed(5)
    [combined] = pcgrad([[one] for one in tasks])
    torch.manual_seed(5)
    expected = torch.zeros(3, 4)
    for row, one in enumerate(tasks):
        gradient = one.clone()
        for other in torch.randperm(4).tolist():
            against = (gradient * tasks[other]).sum()
            if other != row and against < 0:
                gradient -= against / (tasks[other] ** 2).sum() * tasks[other]
        expected += gradient
    assert torch.allclose(combined, expected, atol=1e-6)
    assert not torch.allclose(combined, sum(tasks, torch.zeros(3, 4)), atol=1e-2)


# GradNorm


def test_gradnorm_moves_its_weights_down_the_slope_of_its_papers_loss() -> None:
    balance = GradNorm(3, alpha=1.5)
    given = vectors([3.0, 0.0], [0.0, 1.0], [0.5, 0.5])
    weights = torch.tensor([1.0, 2.0, 1.0])  # the gradients have them in
    norms = torch.tensor([3.0, 0.5, math.sqrt(0.5)])
    first, later = torch.tensor([2.0, 4.0, 1.0]), torch.tensor([1.0, 4.0, 0.9])
    weight = torch.ones(3)
    for means in (first, later):
        [combined] = balance(given, means, weights)
        rows = torch.stack([row[0] for row in given])  # type: ignore[misc]
        assert torch.allclose(combined, (weight[:, None] * rows).sum(0))
        leaf = weight.clone().requires_grad_()
        pulls = leaf * norms
        pace = (means / first) / (means / first).mean()
        goal = (pulls.mean() * pace**1.5).detach()
        (pulls - goal).abs().sum().backward()
        weight = weight - WEIGHT_RATE * leaf.grad / pulls.mean().detach()
        weight = (weight / weight.mean()).detach()
        assert torch.allclose(balance.weight, weight, atol=1e-6)
    assert torch.equal(balance.first, first)
    assert balance.weight[0] < 1 < balance.weight[1]


def test_gradnorm_does_not_see_the_scale_of_fp16_and_skips_what_is_not_finite() -> None:
    means, weights = torch.tensor([2.0, 1.0]), torch.ones(2)
    found = []
    for scale in (1.0, 65536.0):
        balance = GradNorm(2, alpha=1.0)
        balance(vectors([scale, 0.0], [0.0, 3 * scale]), means, weights)
        found.append(balance.weight.clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], torch.ones(2))
    balance(vectors([math.inf, 0.0], [0.0, 1.0]), means, weights)
    balance(vectors([1.0, 0.0], [0.0, 1.0]), means * math.nan, weights)
    assert torch.equal(balance.weight, found[1])


def test_gradnorm_never_turns_a_task_round() -> None:
    balance = GradNorm(2, alpha=0.0)
    for _ in range(200):
        balance(vectors([1e6, 0.0], [0.0, 1e-3]), torch.ones(2), torch.ones(2))
    assert balance.weight.min() >= LEAST_WEIGHT / 2
    assert balance.weight.sum().item() == pytest.approx(2, abs=1e-5)


def test_gradnorm_makes_the_tasks_pull_alike() -> None:
    balance = GradNorm(2, alpha=0.0)
    given = vectors([1.0, 0.0], [0.0, 1.5])
    for _ in range(200):
        balance(given, torch.ones(2), torch.ones(2))
    assert balance.weight[0] / balance.weight[1] == pytest.approx(1.5, abs=0.1)


# In a real network


def tasks_apart(job: Job) -> tuple[Any, Any]:
    """The loss and each task's gradients, by hand."""
    head: Any = job.model.head
    (batch,) = a_step(job).batches
    losses = head.losses(job.model(batch.inputs), batch.targets)
    parameters = list(job.model.parameters())
    found = [
        list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))
        for loss in losses.values()
    ]
    return sum(losses.values(), torch.zeros(())), found


WEIGHTED = ("model=micro", "head=multitask", "head.weights.value=3", "head.weights.labels=0.5")


@pytest.mark.parametrize("weighting", ["pcgrad", "gradnorm"])
@pytest.mark.parametrize("micro", ["null", "4"])
def test_the_loop_hands_each_task_its_own_gradients(
    weighting: str, micro: str, tmp_path: Path
) -> None:
    whole = a_job(tmp_path, *WEIGHTED, f"head.weighting={weighting}")
    split = a_job(
        tmp_path,
        *WEIGHTED,
        f"head.weighting={weighting}",
        f"hardware.micro_batch_size={micro}",
    )
    split.model.load_state_dict(whole.model.state_dict())
    expected, given = tasks_apart(whole)
    head: Any = whole.model.head
    torch.manual_seed(3)
    combined = head.balance(given, torch.ones(3), head.weights)
    torch.manual_seed(3)
    loss, found = gradients(split)
    assert torch.isclose(loss, expected, atol=1e-5)
    for (name, gradient), one in zip(found.items(), combined, strict=True):
        assert torch.allclose(gradient, one, atol=1e-5), name
    own = dict(split.model.head.named_parameters())
    assert all(found[f"head.{name}"].any() for name in own)


def test_gradnorms_weights_are_in_the_checkpoint_and_others_in_none(tmp_path: Path) -> None:
    job = a_job(tmp_path, *WEIGHTED, "head.weighting=gradnorm")
    gradients(job)
    state = job.model.state_dict()
    assert not torch.equal(state["head.balance.weight"], torch.ones(3))
    assert state["head.balance.first"].isfinite().all()
    for weighting in ("fixed", "pcgrad"):
        other = a_job(tmp_path, *WEIGHTED, f"head.weighting={weighting}")
        assert not [name for name in other.model.state_dict() if "balance" in name]


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "pcgrad", "gradnorm"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_weighting_takes_a_step(weighting: str, precision: str, tmp_path: Path) -> None:
    words = (f"head.weighting={weighting}", f"hardware.precision={precision}")
    job = a_job(tmp_path, *WEIGHTED, *words, "hardware.micro_batch_size=6")
    if precision == "fp16":  # the scale that a run would settle at
        job.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    advanced = advance(job, job.model.train(), Parameters(job.model), a_step(job))
    assert math.isfinite(advanced.loss) and 0 < advanced.grad_norm < 100
    assert not job.counters.skipped
    after = job.model.state_dict()
    for name in ("encoders.image.body.pos_embed", "head.tasks.label.logits.weight"):
        assert not torch.equal(before[name], after[name])


def test_a_whole_batch_task_and_hidden_words_side_by_side(tmp_path: Path) -> None:
    more = ("near=contrastive", "words=masked_lm", "match=matching")
    added = [f"+head@head.tasks.{one}" for one in more]
    weights = [f"+head.weights.{one.partition('=')[0]}=1" for one in more]
    words = ("model=micro", "head=multitask", *added, *weights)
    whole = a_job(tmp_path, *words)
    split = a_job(tmp_path, *words, "hardware.micro_batch_size=4")
    split.model.load_state_dict(whole.model.state_dict())
    (one, of_whole), (other, of_split) = gradients(whole), gradients(split)
    assert torch.isclose(one, other, atol=1e-5)
    for name in of_whole:
        assert torch.allclose(of_whole[name], of_split[name], atol=1e-5), name
    head: Any = whole.model.head
    assert head.hide is dict(head.heads())["words"].hide


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_network_gives_the_same_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # Compiled for one backward pass first, and kept on disk; then for one of each task.
    for weighting in ("fixed", "pcgrad"):
        job = a_job(tmp_path, *WEIGHTED, f"head.weighting={weighting}")
        torch.manual_seed(3)
        _, plain = gradients(job)
        job.model.zero_grad()
        torch.compiler.reset()
        network, step = torch.compile(job.model), a_step(job)
        accumulate(job, network, list(job.model.parameters()), step)  # compiling draws numbers
        job.model.zero_grad()
        torch.manual_seed(3)
        accumulate(job, network, list(job.model.parameters()), step)
        for name, parameter in job.model.named_parameters():
            assert (parameter.grad - plain[name]).abs().max() < 1e-4, name
