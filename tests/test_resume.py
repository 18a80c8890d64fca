"""Stopped anywhere and resumed, a run ends as if it had not been stopped: bit for bit."""

import copy
import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmnet.assembly import assemble, job_facts
from mmnet.checkpoint import Writer, load, load_newest
from mmnet.compose import load as composed
from mmnet.controller.fixed import Fixed
from mmnet.data.bad import BadSamples
from mmnet.errors import ConfigError, UserError
from mmnet.interfaces import BadSample
from mmnet.job import rng_state, set_rng_state
from mmnet.session import go_on, run_training
from tests.jobs import SMALL, make_job, resume, run_job, state_of


CPU = torch.device("cpu")
RANDOM = ("fusion.dropout=0.2", "encoder.text.dropout=0.1", "encoder.image.dropout=0.1")
KINDS = {
    "adamw, ema": (*RANDOM, "trainer.ema_decay=0.9"),
    "fp16, accumulated": (*RANDOM, "hardware.precision=fp16", "hardware.micro_batch_size=4"),
    "bf16": (*RANDOM, "hardware.precision=bf16"),
    "schedule-free": (*RANDOM, "optimizer=schedule_free", "schedule=constant"),
    "muon, early stopping": (
        *RANDOM,
        "optimizer=muon",
        "trainer.patience=1",
        "trainer.eval_every=2",
    ),
    "nadamw, wsd": (*RANDOM, "optimizer=nadamw", "schedule=wsd"),
    "sgd, epochs": (*RANDOM, "optimizer=sgd", "trainer.steps=null", "trainer.epochs=3"),
}


@pytest.mark.train
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_a_step_and_resumed_it_ends_the_same(tmp_path, kind):
    whole = run_job(make_job(tmp_path / "whole", *KINDS[kind]))
    expected = state_of(whole)
    for stop_after in (1, 4, 5, 9):
        folder = tmp_path / f"stopped-{stop_after}"
        run_job(make_job(folder, *KINDS[kind]), stop_after)
        torch.manual_seed(999)  # a new process has other numbers
        random.seed(999)
        job = resume(make_job(folder, *KINDS[kind]))
        assert job.counters.step <= stop_after
        if job.counters.step < whole.counters.step:
            assert state_of(job)["weights"] != expected["weights"]
        assert state_of(run_job(job)) == expected, f"stopped after step {stop_after}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_at_every_step(tmp_path, kind):
    expected = state_of(run_job(make_job(tmp_path / "whole", *KINDS[kind])))
    for stop_after in range(1, 12):
        folder = tmp_path / f"stopped-{stop_after}"
        run_job(make_job(folder, *KINDS[kind]), stop_after)
        assert state_of(run_job(resume(make_job(folder, *KINDS[kind])))) == expected


@pytest.mark.parametrize(
    "left_out", ["optimizer", "scaler", "controller", "bad", "counters", "rng"]
)
def test_a_checkpoint_without_a_piece_is_refused(tmp_path, left_out):
    job = run_job(make_job(tmp_path), stop_after=3)
    found = load_newest(job.folder / "checkpoints")
    del found.state[left_out]
    with pytest.raises(KeyError, match=left_out):
        assemble(job.run, job.folder).restore(found)


@pytest.mark.parametrize("generator", ["python", "numpy", "torch"])
def test_every_random_generator_is_restored(tmp_path, generator):
    draw = {
        "python": random.random,
        "numpy": lambda: float(np.random.normal()),  # one of a pair: the other is kept inside
        "torch": lambda: float(torch.randn(())),
    }[generator]
    draw()
    torch.save(rng_state(CPU), tmp_path / "rng.pt")
    expected = [draw() for _ in range(3)]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True), CPU)
    assert [draw() for _ in range(3)] == expected


def test_a_signal_during_evaluation_gives_it_up_and_resume_does_it(tmp_path):
    whole = run_job(make_job(tmp_path / "whole"))
    job = make_job(tmp_path / "stopped")
    real = job.val
    from mmnet.stop import Stop

    signals: list[Stop] = []

    class Ringing:
        """The val split, at whose third sample a signal arrives."""

        digest, notes = real.digest, real.notes

        def __len__(self):
            return len(real)

        def key(self, index):
            return real.key(index)

        def sample(self, index, modalities, rng):
            if index == 3:
                signals[0].signum = 15
            return real.sample(index, modalities, rng)

    job.val = Ringing()
    import mmnet.loop as loop
    from mmnet.checkpoint import Writer
    from mmnet.track.none import Nowhere
    from mmnet.track.recorder import Recorder

    stop = Stop()
    signals.append(stop)
    recorder = Recorder(job.folder)
    writer = Writer(job.folder / "checkpoints", 2, before=recorder.sync)
    loop.train(job, writer, recorder, Nowhere(), stop)
    writer.wait()
    recorder.close()
    assert job.counters.step == 5 and job.counters.evaluated_at == 0
    resumed = resume(make_job(tmp_path / "stopped"))
    assert state_of(run_job(resumed)) == state_of(whole)


@pytest.mark.parametrize("patience", ["null", "1"])
def test_resuming_a_finished_run_changes_nothing(tmp_path, patience):
    """Ended by the number of steps, or early: at step 4, for want of a new best."""
    words = ("trainer.eval_every=2", "optimizer.lr=1e-30", f"trainer.patience={patience}")
    job = run_job(make_job(tmp_path, *words))
    assert job.counters.step == (12 if patience == "null" else 4)
    before = copy.deepcopy(state_of(job))
    assert state_of(run_job(resume(job))) == before


def contents(folder):
    """All files of a run folder with the time of their last change; its log is left out."""
    files = [path for path in folder.rglob("*") if path.name not in (".lock", "train.log")]
    return {path: path.lstat().st_mtime_ns for path in files}


@pytest.mark.train
@pytest.mark.parametrize(
    ("words", "anew", "says"),
    [
        ([], {}, "the run is finished: 6 of 6 steps; give trainer.steps=<more> to go on"),
        ([], {"steps": 5}, "trainer.steps=5: the run has done 6 steps already; want more"),
        (
            ["trainer.steps=null", "trainer.epochs=2"],
            {"epochs": 1},
            r"trainer.epochs=1 (4 steps): the run has done 8 steps already; want more",
        ),
        (
            ["trainer.eval_every=2", "optimizer.lr=1e-30", "trainer.patience=1"],
            {"steps": 20},
            "the run is finished: 4 of 20 steps, stopped early; give trainer.patience=<more> to",
        ),
    ],
)
def test_a_run_with_nothing_left_to_do_is_left_as_it_is(tmp_path, caplog, words, anew, says):
    run = composed(*SMALL, "trainer.steps=6", "trainer.modality_grid=0", *words)
    best = run_training(run, tmp_path, "as it was")
    before = contents(tmp_path)
    caplog.set_level("INFO", "mmnet.session")
    trainer = replace(run.trainer, **anew)
    again = replace(run, resume=str(tmp_path), trainer=trainer)
    if "already" in says:
        with pytest.raises(ConfigError, match=f"^{re.escape(says)}$"):
            run_training(again, tmp_path, "another")
    else:
        assert run_training(again, tmp_path, "another") == best
        assert [text[: len(says)] for text in caplog.messages] == [says]
    assert contents(tmp_path) == before


@pytest.mark.train
def test_a_run_killed_before_its_very_end_is_ended(tmp_path):
    run = composed(*SMALL, "trainer.steps=2", "trainer.modality_grid=0")
    run_training(run, tmp_path, "as it was")
    for name in ("summary.json", "model.safetensors"):
        (tmp_path / name).unlink()
        run_training(replace(run, resume=str(tmp_path)), tmp_path, "another")
        assert (tmp_path / "summary.json").exists() and (tmp_path / "model.safetensors").exists()


class Counting(Fixed):
    """A controller with a memory."""

    def __init__(self, optimizer):
        self.losses, self.optimizer = 0.0, optimizer

    def steer(self, signal):
        self.losses += signal.loss
        for group in self.optimizer.param_groups:
            group["lr"] = signal.rate / (1 + self.losses)

    def state_dict(self):
        return {"losses": self.losses}

    def load_state_dict(self, state):
        self.losses = state["losses"]


class Holes:
    """A split of which samples cannot be read."""

    def __init__(self, split):
        self.split, self.digest, self.notes = split, split.digest, split.notes

    def __len__(self):
        return len(self.split)

    def key(self, index):
        return self.split.key(index)

    def sample(self, index, modalities, rng):
        if index % 5 == 0:
            raise BadSample(self.key(index), "test")
        return self.split.sample(index, modalities, rng)


def test_what_the_parts_remember_is_remembered(tmp_path):
    """The controller, and which samples were bad, those of both splits."""

    def make(name):
        job = make_job(tmp_path / name)
        job.controller = Counting(job.optimizer)
        job.train, job.val = Holes(job.train), Holes(job.val)
        job.bad = BadSamples("skip", 0.5, {"train": len(job.train), "val": len(job.val)})
        return job

    whole = run_job(make("whole"))
    assert whole.bad.counts() == {"train": {"test": 13}, "val": {"test": 8}}
    assert whole.optimizer.param_groups[0]["lr"] < 0.1 * whole.run.optimizer["lr"]
    expected = state_of(whole)
    run_job(make("stopped"), stop_after=7)
    resumed = make("stopped")
    resumed.restore(load_newest(resumed.folder / "checkpoints"))
    assert resumed.bad.counts()["train"] != {} and resumed.controller.losses > 0
    assert state_of(run_job(resumed)) == expected


def test_other_data_is_another_run(tmp_path):
    job = run_job(make_job(tmp_path), stop_after=3)
    found = load_newest(job.folder / "checkpoints")
    facts = job_facts(job)
    (job.folder / "record.json").write_text(json.dumps(facts))
    go_on(assemble(job.run, job.folder), found, facts)
    facts["dataset"]["train"]["digest"] = "other"
    with pytest.raises(UserError, match=r"the train data has changed since .*other"):
        go_on(assemble(job.run, job.folder), found, facts)


@pytest.mark.parametrize(
    ("before", "after"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp32", "bf16")]
)
def test_a_run_may_go_on_in_another_precision(tmp_path, before, after):
    run_job(make_job(tmp_path, f"hardware.precision={before}"), stop_after=4)
    job = resume(make_job(tmp_path, f"hardware.precision={after}"))
    run_job(job)
    assert job.counters.step == job.total and job.counters.skipped == 0


def test_a_best_checkpoint_left_unlinked_by_a_kill_is_linked_again(tmp_path):
    job = run_job(make_job(tmp_path, "trainer.eval_every=1"), stop_after=5)
    folder = job.folder / "checkpoints"
    best = job.counters.best_step
    (folder / "best").unlink()
    Writer(folder, 2, before=lambda: None).link_best(best)
    assert load((folder / "best").resolve()).step == best
