"""The loop against a loop written out by hand, and what it does when things go wrong."""

import math
import re
from itertools import chain

import pytest
import torch

from mmnet.data.loader import TrainStep, eval_batches, train_steps
from mmnet.errors import UserError
from mmnet.evaluation import Evaluation, evaluate
from mmnet.job import Job
from mmnet.loop import Parameters, advance, judge
from mmnet.session import doubts
from mmnet.stop import Stop
from tests.jobs import make_job, metrics, run_job


def read_steps(job: Job, first: int = 1):
    return train_steps(
        job.train,
        job.reading,
        batch_size=job.run.trainer.batch_size,
        micro_batch_size=job.run.micro_batch_size,
        seed=job.run.seed,
        first_step=first,
        last_step=job.total,
        num_workers=0,
        device=job.machine.device,
    )


def test_the_loop_equals_one_written_out_by_hand(tmp_path):
    """AdamW, cosine with warm-up, clipping, EMA: every weight to 1e-6 after 12 steps."""
    settings = ("trainer.grad_clip=0.05", "schedule.warmup_ratio=0.25", "trainer.ema_decay=0.8")
    job = run_job(make_job(tmp_path / "run", *settings))

    hand = make_job(tmp_path / "hand", *settings)
    model = hand.model
    matrices = [p for p in model.parameters() if p.squeeze().ndim > 1]
    vectors = [p for p in model.parameters() if p.squeeze().ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-8,
    )
    ema = {name: value.clone() for name, value in model.state_dict().items()}
    losses, norms, rates = [], [], []
    for data in read_steps(hand):
        step = data.step
        warm = min(1.0, step / 3)
        fall = 1.0 if step <= 3 else (1 + math.cos(math.pi * (step - 4) / 9)) / 2
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * warm * fall
        loss = model.head.loss(model(data.batches[0].inputs), data.batches[0].targets)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05).item())
        optimizer.step()
        decay = min(0.8, 1 - step ** (-2 / 3)) if step > 1 else 0.0
        for name, value in model.state_dict().items():
            ema[name] = decay * ema[name] + (1 - decay) * value
        losses.append(loss.item())
        rates.append(optimizer.param_groups[0]["lr"])

    assert min(norms) > 0.05  # clipping was at work
    assert metrics(job, "train/loss") == pytest.approx(losses, abs=1e-5)
    assert metrics(job, "train/grad_norm") == pytest.approx(norms, rel=1e-4)
    assert metrics(job, "train/lr") == pytest.approx(rates)
    for (name, ours), theirs in zip(
        job.model.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert (ours - theirs).abs().max() < 1e-5, name
    averaged = job.average.averaged()
    assert averaged is not None
    for name, value in averaged.items():
        assert (value - ema[name]).abs().max() < 1e-5, name


def gradients(folder, micro: int, precision: str = "fp32"):
    """Gradient of the first step of 32 samples, before any update."""
    job = make_job(
        folder,
        "trainer.batch_size=32",
        f"hardware.micro_batch_size={micro}",
        f"hardware.precision={precision}",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "optimizer.weight_decay=0",
        "trainer.grad_clip=null",
    )
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    for group in job.optimizer.param_groups:
        group["lr"] = 1.0
    parameters = Parameters(job.model)
    loss, norm, *_ = advance(job, job.model, parameters, next(read_steps(job)))
    after = job.model.state_dict()
    return loss, norm, {name: before[name] - after[name] for name in before}


@pytest.mark.parametrize("micro", [1, 4])
def test_splitting_the_batch_changes_no_gradient(tmp_path, micro):
    loss, norm, whole = gradients(tmp_path, 32)
    split_loss, split_norm, split = gradients(tmp_path, micro)
    assert split_loss == pytest.approx(loss, abs=1e-5)
    assert split_norm == pytest.approx(norm, rel=1e-4)
    for name, gradient in whole.items():
        assert (split[name] - gradient).abs().max() < 1e-5, name


def test_micro_batches_that_lost_samples_weigh_what_they_hold(tmp_path):
    """Samples that cannot be read leave an uneven split; the gradient is still the mean."""
    from mmnet.interfaces import BadSample

    class Holes:
        def __init__(self, split):
            self.split, self.digest, self.notes = split, split.digest, split.notes

        def __len__(self):
            return len(self.split)

        def key(self, index):
            return self.split.key(index)

        def sample(self, index, modalities, rng):
            if index % 7 < 3:
                raise BadSample(self.key(index), "test")
            return self.split.sample(index, modalities, rng)

    found = []
    for micro in (16, 4):
        job = make_job(tmp_path, f"hardware.micro_batch_size={micro}", "trainer.grad_clip=null")
        job.train = Holes(job.train)
        data = next(read_steps(job))
        assert 0 < data.samples < 16
        sizes = {len(batch.targets["label"]) for batch in data.batches}
        assert micro == 16 or len(sizes) > 1  # uneven
        parameters = Parameters(job.model)
        found.append(advance(job, job.model, parameters, data)[:2])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.train
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_follows_fp32(tmp_path, precision):
    steps = "trainer.steps=30"
    plain = run_job(make_job(tmp_path / "fp32", steps))
    exact = metrics(plain, "train/loss")
    job = run_job(make_job(tmp_path / precision, steps, f"hardware.precision={precision}"))
    mixed = metrics(job, "train/loss")
    assert mixed == pytest.approx(exact, abs=0.05)
    assert mixed != exact  # it was at work
    norms = metrics(plain, "train/grad_norm")
    assert metrics(job, "train/grad_norm")[:5] == pytest.approx(norms[:5], rel=0.05)
    assert sum(mixed) == pytest.approx(sum(exact), rel=0.01)
    assert all(p.dtype == torch.float32 for p in job.model.parameters())


@pytest.mark.train
def test_training_learns_which_colours_are_there(tmp_path):
    """From ln 4 = 1.39 towards ln 2 = 0.69, the first part of the way to the answer."""
    job = make_job(
        tmp_path,
        "trainer.steps=120",
        "dataset.train_samples=5000",
        "optimizer.lr=3e-3",
        "trainer.batch_size=64",
    )
    losses = metrics(run_job(job), "train/loss")
    assert sum(losses[:10]) / 10 > 1.3
    assert sum(losses[-10:]) / 10 < 1.25


class Poison:
    """Makes the fusion give NaN in the named calls."""

    def __init__(self, job: Job, calls: set[int]):
        self.calls, self.seen = calls, 0
        job.model.fusion.register_forward_hook(self)

    def __call__(self, module, args, output):
        if not module.training:
            return output
        self.seen += 1
        poisoned = self.seen in self.calls
        return output._replace(joint=output.joint * float("nan")) if poisoned else output


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_that_is_not_finite_is_as_if_it_had_not_been(tmp_path, precision):
    job = make_job(tmp_path / "a", f"hardware.precision={precision}", "trainer.ema_decay=0.5")
    Poison(job, {3})
    states = []
    for data in read_steps(job):
        if data.step > 3:
            break
        before = {name: value.clone() for name, value in job.model.state_dict().items()}
        loss, *_ = advance(job, job.model, Parameters(job.model), data)
        job.counters.step += 1
        states.append((loss, before, dict(job.model.state_dict()), job.average.averaged()))
    loss, before, after, averaged = states[2]
    assert math.isnan(loss)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(value.isfinite().all() for value in averaged.values())
    assert job.counters.skipped == 1 and job.counters.recently_skipped == [3]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_whose_samples_are_all_bad_changes_nothing(tmp_path, precision):
    job = make_job(tmp_path, f"hardware.precision={precision}")
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    data = TrainStep(1, [], 0, [("a", "test")])
    loss, *_ = advance(job, job.model, Parameters(job.model), data)
    assert math.isnan(loss)
    assert all(torch.equal(before[n], value) for n, value in job.model.state_dict().items())
    assert job.counters.recently_skipped == []


def test_an_infinite_gradient_alone_is_caught_too(tmp_path):
    """The loss is finite, its gradient is not: clipping would write NaN into every weight."""
    job = make_job(tmp_path)
    bias = job.model.head.logits.bias
    bias.register_hook(lambda gradient: gradient * float("inf"))
    run_job_expecting_stop(job)
    assert all(value.isfinite().all() for value in job.model.state_dict().values())


def run_job_expecting_stop(job: Job) -> None:
    with pytest.raises(UserError, match=r"11 of the last 100 steps were not finite"):
        run_job(job)


def test_too_many_bad_steps_end_the_run_with_the_good_weights_saved(tmp_path):
    from mmnet.checkpoint import load_newest

    job = make_job(tmp_path, "trainer.steps=40")
    Poison(job, set(range(4, 100)))
    run_job_expecting_stop(job)
    assert job.counters.step == 14 and job.counters.skipped == 11
    found = load_newest(job.folder / "checkpoints")
    assert all(value.isfinite().all() for value in found.weights.values())


@pytest.mark.train
def test_skips_further_apart_than_the_window_are_survived(tmp_path):
    job = make_job(tmp_path, "trainer.max_nonfinite=1", "trainer.steps=130", "trainer.batch_size=2")
    Poison(job, {5, 120})
    run_job(job)
    assert job.counters.skipped == 2 and job.counters.step == 130


@pytest.mark.train
def test_fp16_scaling_recovers_from_overflow(tmp_path):
    job = make_job(tmp_path, "hardware.precision=fp16")
    scale = job.scaler.get_scale()
    Poison(job, {2})
    run_job(job)
    assert job.scaler.get_scale() < scale
    assert job.counters.skipped == 1


def test_the_evaluation_is_the_mean_over_samples(tmp_path):
    """40 samples in batches of 16, 16 and 8: a mean over batches would be another number."""
    job = make_job(tmp_path)

    def look(size):
        batches = eval_batches(
            job.val, job.reading, batch_size=size, num_workers=0, device=job.machine.device
        )
        return evaluate(job.model, batches, job.machine, Stop(), 16)

    uneven, whole = look(16), look(40)
    assert uneven.values == pytest.approx(whole.values, abs=1e-6)
    assert int(whole.tables["confusion"].sum()) == 40
    job.model.eval()
    batch = next(
        eval_batches(job.val, job.reading, batch_size=40, num_workers=0, device=job.machine.device)
    ).batch
    with torch.no_grad():
        logits = job.model(batch.inputs)
    right = (logits.argmax(-1) == batch.targets["label"]).float().mean().item()
    assert whole.values["accuracy"] == pytest.approx(right)


@pytest.mark.train
def test_evaluating_more_often_changes_no_weight(tmp_path):
    seldom = run_job(make_job(tmp_path / "a", "head.dropout=0.3", "trainer.eval_every=100"))
    often = run_job(make_job(tmp_path / "b", "head.dropout=0.3", "trainer.eval_every=1"))
    for one, other in zip(seldom.model.parameters(), often.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(metrics(often, "val/loss")) == 12
    assert len(metrics(seldom, "val/loss")) == 1  # the last step is always evaluated


def test_the_best_checkpoint_is_the_best_evaluation(tmp_path):
    job = run_job(make_job(tmp_path, "trainer.monitor=val/accuracy", "trainer.eval_every=2"))
    accuracy = metrics(job, "val/accuracy")
    assert job.counters.best["val/accuracy"] == max(accuracy)
    best_step = 2 * (accuracy.index(max(accuracy)) + 1)
    assert job.counters.best_step == best_step
    from mmnet.checkpoint import load

    assert load((job.folder / "checkpoints" / "best").resolve()).step == best_step


@pytest.mark.parametrize(
    ("monitor", "values"),
    [
        ("val/loss", [math.nan, 0.7, 0.4, 0.5, 0.4]),
        ("val/accuracy", [math.nan, 0.5, 0.7, 0.6, 0.7]),
    ],
)
def test_the_best_is_the_first_of_the_lowest_losses_or_the_highest_scores(
    tmp_path, monitor, values
):
    job = make_job(tmp_path, f"trainer.monitor={monitor}")
    better = []
    for value in values:
        job.counters.step += 1
        better.append(judge(job, Evaluation({"loss": value, "accuracy": value}, {}, [])))
    assert better == [False, True, True, False, False]
    assert job.counters.best[monitor] == values[2] and job.counters.best_step == 3
    assert job.counters.without_best == 2


def test_early_stopping_counts_evaluations_without_a_new_best(tmp_path):
    job = make_job(
        tmp_path,
        "trainer.patience=2",
        "trainer.eval_every=1",
        "trainer.steps=50",
        "optimizer.lr=1e-30",  # nothing changes: the first evaluation stays the best
    )
    run_job(job)
    assert job.counters.step == 3 and job.counters.best_step == 1


def test_the_average_is_what_is_evaluated(tmp_path):
    job = run_job(make_job(tmp_path, "trainer.ema_decay=0.9", "optimizer.lr=1e-2"))
    batches = list(
        eval_batches(job.val, job.reading, batch_size=40, num_workers=0, device=job.machine.device)
    )
    raw = evaluate(job.model, batches, job.machine, Stop(), 16).values
    with job.average.evaluated() as network:
        averaged = evaluate(network, batches, job.machine, Stop(), 16).values
    assert metrics(job, "val/loss")[-1] == pytest.approx(averaged["loss"], abs=1e-5)
    assert abs(raw["loss"] - averaged["loss"]) > 1e-4


def test_epochs_count_passes_over_the_data(tmp_path):
    job = make_job(tmp_path, "trainer.steps=null", "trainer.epochs=3", "trainer.batch_size=10")
    assert job.total == 20  # 3 x 64 samples, 10 at a time, the last ones too
    assert run_job(job).counters.samples == 200


def test_another_seed_is_another_run(tmp_path):
    one, same = run_job(make_job(tmp_path / "a")), run_job(make_job(tmp_path / "b"))
    other = run_job(make_job(tmp_path / "c", "seed=1"))
    assert metrics(one, "train/loss") == metrics(same, "train/loss")
    assert metrics(one, "train/loss") != metrics(other, "train/loss")


def test_data_order_changes_with_the_seed_alone(tmp_path):
    def labels(*overrides):
        job = make_job(tmp_path, *overrides)
        return [data.batches[0].targets["label"].tolist() for data in read_steps(job)]

    assert labels() == labels("model=text_only", "optimizer=sgd")
    assert labels() != labels("seed=1")
    first, second = labels()[:4], labels()[4:8]
    assert sorted(chain(*first)) == sorted(chain(*second))  # each sample once an epoch
    assert first != second  # in another order


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], []),
        (["model=text_only"], []),
        (["model=image_only"], []),
        (["encoder.image=null"], ["this run is called micro, .* reads text only: model=text_only"]),
        (["~encoder/text"], ["this run is called micro, .* reads image only: model=image_only"]),
        (["~encoder/text", "name=mine"], []),
        (
            ["dataset.train_samples=10", "trainer.batch_size=16"],
            ["trainer.batch_size=16 is more than the 10 train samples"],
        ),
    ],
)
def test_what_looks_like_a_slip_is_told(tmp_path, words, says):
    found = doubts(make_job(tmp_path, *words))
    assert len(found) == len(says)
    for text, pattern in zip(found, says, strict=True):
        assert re.match(pattern, text)
