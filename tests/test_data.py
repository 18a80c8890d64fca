"""Order, loader, workers and the count of bad samples, on splits of plain numbers."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from mmnet.data.bad import BadSamples
from mmnet.data.files import check_root, find_root, read_csv, read_json, read_json_lines
from mmnet.data.held_out import held_out
from mmnet.data.loader import EvalBatch, Reading, TrainStep, eval_batches, train_steps
from mmnet.data.modality_dropout import divided, drop
from mmnet.data.order import SampleRandom, Shuffled
from mmnet.data.pairs import another, fits
from mmnet.errors import UserError
from mmnet.interfaces import TARGETS, BadSample, Batch, Inputs, Sample
from mmnet.job import rng_state


CPU = torch.device("cpu")

# Three workers are more than some machines have cores, which torch remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Numbers:
    """Sample i says "i" and what its random numbers were; some are broken."""

    digest = ""
    notes: dict[str, int]

    def __init__(self, size: int, bad: set[int] | None = None) -> None:
        self.size, self.bad, self.reads, self.notes = size, bad or set(), 0, {}

    def __len__(self) -> int:
        return self.size

    def key(self, index: int) -> str:
        return f"number/{index}"

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        self.reads += 1
        if index in self.bad:
            raise BadSample(self.key(index), "odd" if index % 2 else "even")
        assert modalities == ("text",)
        return {"text": f"{index} {rng.random() if rng else -1.0}", "label": index % 5}


class Parse:
    blank = "-7 -7"

    def __call__(self, raw: str) -> torch.Tensor:
        return torch.tensor([float(word) for word in raw.split()], dtype=torch.float64)

    def collate(self, tensors: list[torch.Tensor]) -> Inputs:
        return Inputs(torch.stack(tensors), None)


READING = Reading(prepare={"text": Parse()}, targets=("label",))


def steps(
    split: Any, reading: Reading = READING, **changes: Any
) -> Generator[TrainStep, None, None]:
    settings = {
        "batch_size": 8,
        "micro_batch_size": 8,
        "seed": 0,
        "first_step": 1,
        "last_step": 12,
        "num_workers": 0,
        "device": CPU,
    }
    return train_steps(split, reading, **settings | changes)  # type: ignore[arg-type]


def evals(split: Any, reading: Reading = READING, **changes: Any) -> Iterator[EvalBatch]:
    settings = {"batch_size": 4, "num_workers": 0, "device": CPU}
    return eval_batches(split, reading, **settings | changes)  # type: ignore[arg-type]


def rows(step: TrainStep) -> list[list[float]]:
    """[index, random number] of each sample of a step."""
    return [row for batch in step.batches for row in batch.inputs["text"].values.tolist()]


def indices(stream: Iterator[TrainStep]) -> list[int]:
    return [int(index) for step in stream for index, _ in rows(step)]


# Order


def test_every_epoch_holds_every_sample_once_in_an_order_of_its_own():
    drawn = indices(steps(Numbers(24), last_step=9))
    epochs = [drawn[:24], drawn[24:48], drawn[48:]]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert list(range(24)) not in epochs


def test_batches_run_across_the_border_of_two_epochs():
    drawn = indices(steps(Numbers(23), last_step=23))
    assert len(drawn) == 8 * 23
    for epoch in range(8):
        assert sorted(drawn[23 * epoch : 23 * (epoch + 1)]) == list(range(23))


def test_a_batch_may_be_larger_than_the_split():
    drawn = indices(steps(Numbers(3), last_step=3))
    assert [sorted(drawn[i : i + 3]) for i in range(0, 24, 3)] == [[0, 1, 2]] * 8


def test_the_seed_decides_the_order():
    assert indices(steps(Numbers(50), seed=1)) == indices(steps(Numbers(50), seed=1))
    assert indices(steps(Numbers(50), seed=1)) != indices(steps(Numbers(50), seed=2))


def test_the_order_is_well_mixed():
    first_epoch = np.array([index for _, index in Shuffled(3, 10_000)(range(10_000))])
    assert abs(np.corrcoef(first_epoch, np.arange(10_000))[0, 1]) < 0.05
    second_epoch = np.array([index for _, index in Shuffled(3, 10_000)(range(10_000, 20_000))])
    assert abs(np.corrcoef(first_epoch, second_epoch)[0, 1]) < 0.05


def test_the_order_is_the_same_for_ever():
    assert Shuffled(7, 10)(range(8, 12)) == [(0, 5), (0, 1), (1, 1), (1, 3)]


@pytest.mark.parametrize("first", range(1, 13))
def test_a_restart_at_any_step_goes_on_with_the_same_samples(first):
    whole = [rows(step) for step in steps(Numbers(23))]
    rest = list(steps(Numbers(23), first_step=first))
    assert [step.step for step in rest] == list(range(first, 13))
    assert [rows(step) for step in rest] == whole[first - 1 :]


def test_a_restart_reads_nothing_of_what_came_before():
    split = Numbers(23)
    next(iter(steps(split, first_step=100_000, last_step=100_001)))
    assert split.reads == 8


# Random numbers of a sample


def numbers(rng: random.Random) -> list[Any]:
    return [
        rng.random(),
        rng.randrange(10**9),
        rng.gauss(0, 1),
        rng.choice("abcdefgh"),
        rng.random(),
    ]


def test_random_numbers_depend_on_seed_epoch_and_index_alone():
    rng = SampleRandom(5)
    first = numbers(rng.at(2, 3))
    rng.at(9, 9).gauss(0, 1)
    assert numbers(rng.at(2, 3)) == first
    assert rng.at(2, 3).getrandbits(64) == SampleRandom(5).at(2, 3).getrandbits(64)
    assert numbers(SampleRandom(5).at(2, 3)) == first
    rng.at(9, 9).gauss(0, 1)
    assert rng.at(2, 3).gauss(0, 1) == SampleRandom(5).at(2, 3).gauss(0, 1)
    others = [(SampleRandom(5), 2, 4), (SampleRandom(5), 3, 3), (SampleRandom(6), 2, 3)]
    for other, epoch, index in others:
        assert not set(numbers(other.at(epoch, index))[:3]) & set(first)


def test_a_sample_is_augmented_anew_in_each_epoch():
    seen = [number for step in steps(Numbers(8), last_step=50) for _, number in rows(step)]
    assert len(set(seen)) == 8 * 50
    assert 0.45 < np.mean(seen) < 0.55


# Batches


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_reads_the_same(workers):
    split = Numbers(23, bad={4, 5, 6})
    alone = list(steps(split, micro_batch_size=2))
    shared = list(steps(split, micro_batch_size=2, num_workers=workers))
    assert [rows(step) for step in shared] == [rows(step) for step in alone]
    assert [step.bad for step in shared] == [step.bad for step in alone]
    assert [step.samples for step in shared] == [step.samples for step in alone]
    [broken, *_] = evals(split, num_workers=workers)
    assert broken.bad == next(iter(evals(split))).bad


@pytest.mark.parametrize("micro", [1, 3, 4, 8, 100])
def test_micro_batches_are_slices_of_the_step(micro):
    whole = list(steps(Numbers(23)))
    for step, cut in zip(whole, steps(Numbers(23), micro_batch_size=micro), strict=True):
        assert rows(cut) == rows(step)
        sizes = [len(batch.targets["label"]) for batch in cut.batches]
        assert sizes == [min(micro, 8 - start) for start in range(0, 8, micro)]


def test_labels_go_with_their_samples():
    for step in steps(Numbers(23, bad={1, 2}), micro_batch_size=2):
        for batch in step.batches:
            assert batch.targets["label"].dtype == torch.int64
            index = batch.inputs["text"].values[:, 0]
            assert torch.equal(batch.targets["label"], index.long() % 5)


def test_a_bad_sample_leaves_a_gap_and_is_named():
    good = [rows(step) for step in steps(Numbers(23))]
    bad = {3, 10, 11}
    met = []
    for whole, step in zip(good, steps(Numbers(23, bad), micro_batch_size=4), strict=True):
        assert rows(step) == [row for row in whole if row[0] not in bad]
        assert step.samples == len(rows(step)) == 8 - len(step.bad)
        met += step.bad
    in_order = [int(i) for step in good for i, _ in step if i in bad]
    assert met == [(f"number/{i}", "odd" if i % 2 else "even") for i in in_order]


def test_a_micro_batch_without_samples_is_left_out():
    [whole] = steps(Numbers(23), last_step=1)
    first_two = {int(i) for i, _ in rows(whole)[:2]}
    [step] = steps(Numbers(23, first_two), last_step=1, micro_batch_size=2)
    assert len(step.batches) == 3
    assert step.samples == 6
    [step] = steps(Numbers(23, set(range(23))), last_step=1, micro_batch_size=2)
    assert (step.batches, step.samples, len(step.bad)) == ([], 0, 8)


def test_evaluation_takes_every_sample_once_in_order_and_as_it_is():
    seen = list(evals(Numbers(10)))
    assert [batch.indices for batch in seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    values = torch.cat([batch.inputs["text"].values for batch, _, _ in seen if batch])
    assert values[:, 0].tolist() == list(range(10))
    assert set(values[:, 1].tolist()) == {-1.0}


def test_evaluation_names_what_it_could_not_read():
    seen = list(evals(Numbers(10, bad={1, 4, 5, 6, 7})))
    assert [batch.indices for batch in seen] == [[0, 2, 3], [], [8, 9]]
    assert [key for batch in seen for key, _ in batch.bad] == [
        f"number/{i}" for i in (1, 4, 5, 6, 7)
    ]
    assert seen[1].batch is None


@pytest.mark.parametrize(("limit", "last"), [(6, 5), (100, 9)])
def test_evaluation_of_the_first_samples(limit, last):
    assert [i for batch in evals(Numbers(10), limit=limit) for i in batch.indices][-1] == last


@pytest.mark.parametrize("workers", [0, 1])
def test_the_run_s_own_random_numbers_are_not_touched(workers):
    before = rng_state(torch.device("cpu"))
    for _ in steps(Numbers(23), last_step=4, num_workers=workers):
        pass
    for _ in evals(Numbers(23), num_workers=workers):
        pass
    after = rng_state(torch.device("cpu"))
    assert torch.equal(after["torch"], before["torch"])
    assert torch.equal(after["numpy"][1], before["numpy"][1])
    assert after["python"] == before["python"]


# Modalities that are missing


class Sparse(Numbers):
    """Sample i has what `has` says of i, by modality; each says "i" and a random number."""

    def __init__(self, size: int, has: str = "both") -> None:
        super().__init__(size)
        self.has = has

    def there(self, index: int) -> tuple[str, ...]:
        if self.has == "both":
            return BOTH
        return [BOTH, ("image",), ("text",), BOTH, ()][index % (5 if self.has == "any" else 4)]

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        drawn = rng.random() if rng else -1.0
        found: Any = {name: f"{index} {drawn}" for name in modalities if name in self.there(index)}
        found |= {"label": index % 5, "value": index / 2, "match": 1}
        sample: Sample = found
        return sample


BOTH = ("image", "text")
PAIRS = Reading(prepare=dict.fromkeys(BOTH, Parse()), targets=("label",))


def found(batches: list[Batch]) -> list[dict[str, list[float]]]:
    """Of each sample, [index, random number] of the modalities that it has."""
    samples = []
    for batch in batches:
        for row in range(batch.size):
            sample = {}
            for name, (values, _, present) in batch.inputs.items():
                assert values.shape[0] == batch.size
                if present is None or present[row]:
                    sample[name] = values[row].tolist()
            samples.append(sample)
    return samples


def flat(stream: Iterator[TrainStep]) -> list[dict[str, list[float]]]:
    return [sample for step in stream for sample in found(step.batches)]


def test_where_nothing_is_missing_there_is_no_mask():
    for batch, _, _ in evals(Sparse(9), PAIRS):
        assert batch
        assert [inputs.present for inputs in batch.inputs.values()] == [None, None]


@pytest.mark.parametrize("workers", [0, 1])
def test_present_says_which_samples_have_a_modality(workers):
    split = Sparse(17, "some")
    seen = list(evals(split, PAIRS, num_workers=workers))
    samples = found([batch for batch, _, _ in seen if batch])
    assert [tuple(sample) for sample in samples] == [split.there(i) for i in range(17)]
    assert all(value == [i, -1.0] for i, sample in enumerate(samples) for value in sample.values())
    first = seen[0].batch
    assert first
    for name, rows in (("image", [1, 1, 0, 1]), ("text", [1, 0, 1, 1])):
        values, _, present = first.inputs[name]
        assert present is not None
        assert (present.dtype, present.tolist()) == (torch.bool, [bool(row) for row in rows])
        assert values[rows.index(0)].tolist() == [-7.0, -7.0]  # the blank
    last = seen[-1].batch
    assert last and [inputs.present for inputs in last.inputs.values()] == [None, None]


def test_a_modality_that_a_whole_batch_lacks_keeps_its_place():
    [_, (alone, _, _)] = evals(Sparse(2, "some"), PAIRS, batch_size=1)
    assert alone
    assert alone.inputs["text"].values.shape == (1, 2)
    assert alone.inputs["text"].present.tolist() == [False]
    assert alone.inputs["image"].present is None


def test_a_sample_with_nothing_is_bad_and_named():
    reads = list(evals(Sparse(10, "any"), PAIRS, batch_size=5))
    assert [bad for read in reads for bad in read.bad] == [
        ("number/4", "no image and no text"),
        ("number/9", "no image and no text"),
    ]
    assert [read.indices for read in reads] == [[0, 1, 2, 3], [5, 6, 7, 8]]


def test_a_sample_without_the_only_modality_that_is_read_is_bad():
    [read] = evals(Sparse(4, "some"), READING)
    assert read.bad == [("number/1", "no text")]
    assert read.indices == [0, 2, 3]


def test_targets_have_the_types_of_the_contract():
    reading = PAIRS._replace(targets=("label", "value", "match"))
    [(batch, _, _)] = evals(Sparse(4, "some"), reading)
    assert batch
    assert {name: target.dtype for name, target in batch.targets.items()} == {
        name: TARGETS[name] for name in reading.targets
    }
    assert batch.targets["value"].tolist() == [0.0, 0.5, 1.0, 1.5]


# Modalities that are dropped in training


def dropped(split: Any, share: float, seed: int = 0, **changes: Any) -> Iterator[TrainStep]:
    """The steps as the loop has them."""
    chances = divided(share, ("image", "text"), {})
    for one in steps(split, PAIRS, seed=seed, **changes):
        yield one._replace(batches=drop(one.batches, chances, seed, one.step))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_of_the_samples_loses_one_modality_and_none_loses_both(share):
    samples = flat(dropped(Sparse(500), share, batch_size=100, last_step=40))
    kept = [tuple(sample) for sample in samples]
    assert set(kept) == {BOTH, ("image",), ("text",)}
    for left in ("image", "text"):
        assert kept.count((left,)) / 4_000 == pytest.approx(share / 2, abs=0.03)


def test_each_modality_is_lost_by_its_own_chance():
    (one,) = steps(Sparse(4000), PAIRS, batch_size=4000, micro_batch_size=4000, last_step=1)
    kept = [tuple(s) for s in found(drop(one.batches, {"image": 0.5, "text": 0.1}, 0, 1))]
    assert kept.count(("text",)) / 4_000 == pytest.approx(0.5, abs=0.03)
    assert kept.count(("image",)) / 4_000 == pytest.approx(0.1, abs=0.03)


def test_what_a_sample_loses_is_drawn_anew_in_each_epoch():
    kept = [tuple(sample) for sample in flat(dropped(Sparse(1), 0.5, last_step=8))]
    assert set(kept) == {BOTH, ("image",), ("text",)}


def test_what_is_left_is_what_a_run_without_would_have_seen():
    whole = flat(steps(Sparse(23), PAIRS))
    left = flat(dropped(Sparse(23), 0.5))
    assert len(whole) == len(left)
    for before, after in zip(whole, left, strict=True):
        assert after.items() <= before.items()


@pytest.mark.parametrize("changes", [{"num_workers": 2}, {"micro_batch_size": 3}])
def test_what_is_dropped_depends_on_the_step_alone(changes):
    plain = flat(dropped(Sparse(23, "some"), 0.5))
    assert flat(dropped(Sparse(23, "some"), 0.5, **changes)) == plain
    assert flat(dropped(Sparse(23, "some"), 0.5, first_step=5)) == plain[4 * 8 :]
    assert flat(dropped(Sparse(23, "some"), 0.5, seed=1)) != plain


def test_a_sample_that_has_one_modality_keeps_it():
    split = Sparse(40, "some")
    for sample in flat(dropped(split, 0.99, last_step=20)):
        index = int(next(iter(sample.values()))[0])
        assert len(sample) == 1 or split.there(index) == BOTH
        assert sample.keys() <= set(split.there(index))


# Trouble in workers


class Broken(Numbers):
    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        raise ZeroDivisionError("no such number")


def test_an_error_while_reading_is_not_swallowed():
    with pytest.raises(ZeroDivisionError, match="no such number"):
        next(iter(steps(Broken(5))))
    with pytest.raises(UserError, match=r"ZeroDivisionError: no such number.*num_workers=1"):
        next(iter(steps(Broken(5), num_workers=1)))


def start(stream: Iterator[TrainStep]) -> tuple[TrainStep, list[psutil.Process]]:
    """The first step and the workers it took."""
    before = psutil.Process().children()
    first = next(stream)
    new = [process for process in psutil.Process().children() if process not in before]
    workers = [process for process in new if "resource_tracker" not in str(process.cmdline())]
    assert len(workers) == 2
    return first, workers


@pytest.mark.train
def test_a_killed_worker_is_reported_while_waiting_for_it_and_not_before():
    stream = steps(Numbers(1000), last_step=10_000, num_workers=2)
    _, workers = start(stream)
    for worker in workers:
        worker.kill()
    for _ in range(50):  # the handler of torch would raise in here
        time.sleep(0.01)
    with pytest.raises(UserError, match=r"DataLoader worker .* hardware.num_workers=2"):
        for _ in stream:
            pass


@pytest.mark.train
def test_a_signal_to_the_whole_group_does_not_stop_the_data():
    stream = steps(Numbers(100), last_step=200, num_workers=2)
    first, workers = start(stream)
    for worker in workers:
        worker.send_signal(signal.SIGINT)
        # From a process that is not their parent.
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    expected = [rows(step) for step in steps(Numbers(100), last_step=200)]
    assert [rows(first), *(rows(step) for step in stream)] == expected
    assert not psutil.wait_procs(workers, timeout=5)[1]


def test_workers_leave_when_reading_is_given_up():
    stream = steps(Numbers(100), last_step=10_000, num_workers=2)
    _, workers = start(stream)
    stream.close()
    assert not psutil.wait_procs(workers, timeout=5)[1]


def test_workers_leave_when_the_trainer_says_so():
    stream = steps(Numbers(100), last_step=10_000, num_workers=2)
    _, workers = start(stream)
    for worker in workers:
        worker.terminate()
    assert not psutil.wait_procs(workers, timeout=5)[1]


def python(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Run a program that may import this file."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


ORPHANS = """
import psutil
from test_data import Numbers, steps
stream = steps(Numbers(100), last_step=10**9, num_workers=2)
next(stream)
print(*[p.pid for p in psutil.Process().children()], flush=True)
while True:
    next(stream)
"""


@pytest.mark.train
def test_workers_leave_when_the_trainer_is_killed():
    program = python("-c", ORPHANS)
    assert program.stdout
    workers = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
    program.kill()
    program.communicate()
    assert len(workers) == 2
    assert not psutil.wait_procs(workers, timeout=20)[1]


SPAWNED = """
import torch
from test_data import Numbers, rows, steps
if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    print([rows(step) for step in steps(Numbers(23), last_step=2, num_workers=1)])
"""


@pytest.mark.train
def test_workers_that_are_not_forked_read_the_same(tmp_path):
    program = tmp_path / "spawned.py"  # a file: spawned workers import the main program
    program.write_text(SPAWNED)
    said, _ = python(program).communicate()
    assert said.strip() == str([rows(step) for step in steps(Numbers(23), last_step=2)])


# Bad samples


def test_fail_stops_at_the_first_and_says_how_to_go_on():
    bad = BadSamples("fail", 1.0, {"train": 100, "val": 10})
    bad.add("train", [])
    with pytest.raises(UserError, match=r"a\.jpg of train .*: missing file .*on_bad_sample"):
        bad.add("train", [("a.jpg", "missing file")])


def test_each_is_counted_once_by_its_reason():
    bad = BadSamples("skip", 0.5, {"train": 100, "val": 10})
    for _ in range(3):  # epochs
        bad.add("train", [("a", "missing file"), ("b", "missing file"), ("c", "empty caption")])
        bad.add("val", [("a", "not a picture")])
    assert bad.counts() == {
        "train": {"missing file": 2, "empty caption": 1},
        "val": {"not a picture": 1},
    }


def test_more_than_the_fraction_stops_the_run():
    bad = BadSamples("skip", 0.03, {"train": 100})
    bad.add("train", [(f"{i}.jpg", "missing file" if i else "not a picture") for i in range(3)])
    bad.add("train", [("2.jpg", "missing file")])
    with pytest.raises(UserError) as stop:
        bad.add("train", [("3.jpg", "missing file")])
    said = str(stop.value)
    for part in (
        "4 of the 100 samples of train",
        "1 x not a picture, 3 x missing file",
        "dataset.max_bad_fraction=0.03",
        "0.jpg, 1.jpg, 2.jpg",
    ):
        assert part in said


def test_nothing_is_tolerated_at_zero():
    with pytest.raises(UserError):
        BadSamples("skip", 0.0, {"train": 10**9}).add("train", [("a", "missing file")])


def test_the_first_ten_are_named_then_every_power_of_two(caplog):
    caplog.set_level(logging.WARNING)
    bad = BadSamples("skip", 1.0, {"train": 100})
    for i in range(40):
        bad.add("train", [(f"{i}.jpg", "missing file")] * 2)
    named = [int(record.getMessage().split(".jpg")[0].split()[-1]) for record in caplog.records]
    assert named == [*range(10), 15, 31]
    assert "left out of train: 31.jpg: missing file (32 so far)" in caplog.text


def test_the_count_survives_a_checkpoint(tmp_path, caplog):
    before = BadSamples("skip", 0.02, {"train": 100, "val": 10})
    before.add("train", [("a", "missing file"), ("b", "missing file")])
    torch.save(before.state_dict(), tmp_path / "state.pt")
    after = BadSamples("skip", 0.02, {"train": 100, "val": 10})
    after.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    caplog.clear()
    after.add("train", [("a", "missing file")])
    assert not caplog.records
    assert after.counts() == before.counts() == {"train": {"missing file": 2}, "val": {}}
    with pytest.raises(UserError, match="3 of the 100"):
        after.add("train", [("c", "missing file")])


# Which samples are held out, and which text stands beside a picture


def test_the_asked_share_of_the_names_is_held_out():
    names = [f"name {i}" for i in range(1_000)]
    held = held_out(names, 0.2)
    assert len(held) == 200
    assert held < held_out(names, 0.3)
    assert 70 < len(held & set(names[:500])) < 130, "not spread over the names"


def test_what_is_held_out_depends_on_the_names_alone():
    names = [f"name {i}" for i in range(50)]
    assert held_out(reversed(names), 0.2) == held_out(names * 3, 0.2) == held_out(names, 0.2)
    assert held_out("abcdefghij", 0.3) == {"d", "f", "j"}, "other than it was: resumed runs leak"


@pytest.mark.parametrize(("names", "fraction", "count"), [("ab", 0.01, 1), ("abc", 0.99, 2)])
def test_neither_side_is_empty_where_there_are_two_names(names, fraction, count):
    assert len(held_out(names, fraction)) == count


def test_a_single_name_is_not_held_out():
    assert held_out("a", 0.9) == held_out("", 0.9) == set()


def test_half_of_the_texts_fit():
    assert [fits(index, None) for index in range(4)] == [True, False, True, False]
    rng = random.Random(0)
    assert np.mean([fits(0, rng) for _ in range(2_000)]) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("drawn", [True, False])
def test_another_is_any_position_that_is_not_the_same(drawn):
    rng = random.Random(0) if drawn else None
    found = [another(index % 10, 10, rng, lambda other: other < 4) for index in range(2_000)]
    assert all(other is not None and other >= 4 for other in found)
    assert not any(other == index % 10 for index, other in enumerate(found))
    if drawn:
        counts = np.bincount(np.array(found), minlength=10)[4:]
        assert counts.min() > 0.8 * counts.max(), "some texts are wrong more often than others"
    else:
        assert found[:10] == found[10:20]


def test_another_is_found_however_rare_and_none_where_there_is_none():
    assert another(3, 10_000, None, lambda other: other != 77) == 77
    assert another(3, 100, random.Random(0), lambda other: True) is None
    assert another(0, 1, None, lambda other: False) is None


# Finding files


LAYOUTS = [["notes/new.json", "pictures"], ["notes/old.json", "pictures"]]


def make(root: Path, *parts: str) -> Path:
    for part in parts:
        (root / part).mkdir(parents=True)
    return root


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
def test_a_dataset_is_found_by_its_layout(tmp_path, below):
    make(tmp_path, "a/b/notes", "other/notes/sub")
    root = make(tmp_path / "data" / below, "notes/old.json", "pictures")
    assert find_root("some", tmp_path / "data", LAYOUTS) == root
    assert check_root("some", root, LAYOUTS) == root


def test_a_dataset_that_is_not_there_is_described(tmp_path):
    make(tmp_path, "a/notes", "a/b/c/d/notes/new.json", "a/b/c/d/pictures")
    with pytest.raises(UserError) as error:
        find_root("some", tmp_path, LAYOUTS)
    for part in (
        "dataset=some",
        f"paths.data={tmp_path}",
        "notes/new.json, pictures",
        f"{tmp_path / 'a'} lacks notes/new.json, pictures",
        "dataset.root=",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match="no such folder"):
        find_root("some", tmp_path / "nowhere", LAYOUTS)
    with pytest.raises(UserError, match=r"dataset\.root=.*lacks notes/new.json, pictures"):
        check_root("some", tmp_path / "a", LAYOUTS)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"found none \(.*file: not a directory\)"):
        find_root("some", tmp_path / "file", LAYOUTS)


def test_a_folder_that_may_not_be_looked_into_is_told_with_its_key(tmp_path):
    root = tmp_path / ("x" * 300)  # as good as one without permission, which root always has
    with pytest.raises(UserError, match=r"dataset\.root=.*xxx: file name too long"):
        check_root("some", root, LAYOUTS)
    with pytest.raises(UserError, match=r"paths\.data=.*found none \(.*: file name too long\)"):
        find_root("some", root, LAYOUTS)


def test_of_several_none_is_guessed(tmp_path):
    for copy in ("a", "b"):
        make(tmp_path / copy, "notes/new.json", "pictures")
    with pytest.raises(UserError, match=rf"{tmp_path}/a, {tmp_path}/b.*dataset\.root="):
        find_root("some", tmp_path, LAYOUTS)


def test_a_dataset_is_found_behind_a_link(tmp_path):
    make(tmp_path / "disk", "notes/new.json", "pictures")
    make(tmp_path, "data")
    (tmp_path / "data/some").symlink_to(tmp_path / "disk")
    assert find_root("some", tmp_path / "data", LAYOUTS) == tmp_path / "data/some"


def test_the_same_by_two_ways_is_one(tmp_path):
    make(tmp_path / "a", "notes/new.json", "pictures")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert find_root("some", tmp_path, LAYOUTS).resolve() == tmp_path / "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b'[{"a": 1}, {"a": 2', "truncated"),
        (b'[{"a": 1}, {"a": 2]', r"byte 18"),
        (b'[{"a": 1}, {"a": "x"}]', r"Expected `int`, got `str` - at `\$\[1\]"),
        (b'[{"\xff": 1}]', "."),
        (b'[{"a": ' + b"[" * 100_000, "."),
    ],
)
def test_malformed_json_is_named_with_the_place(tmp_path, text, said):
    path = tmp_path / "file.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=rf"file\.json: .*({said})"):
        read_json(path, list[dict[str, int]])


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes('\ufeff{"a": "one\u2028two"}\n\n  \r\n{"a": "\x85"}'.encode())
    assert list(read_json_lines(path, dict[str, str])) == [
        (1, {"a": "one\u2028two"}),
        (4, {"a": "\x85"}),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1', "truncated"),
        (b'{"a": "x"}', r"Expected `int`, got `str` - at `\$\[\.\.\.\]"),
        (b'{"\xff": 1}', "."),
        (b'{"a": ' + b"[" * 100_000, "."),
        (b"[]", "Expected `object`"),
    ],
)
def test_malformed_json_lines_are_named_with_the_line(tmp_path, line, said):
    path = tmp_path / "file.json"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(UserError, match=rf"file\.json, line 3: .*({said})"):
        list(read_json_lines(path, dict[str, int]))


def test_half_a_character_in_a_json_line_is_let_through(tmp_path):
    path = tmp_path / "file.json"
    for text in ("\\ud800", "\\ud800 and more"):
        path.write_text(f'{{"a": "{text}"}}')
        told = {"a": text.replace("\\ud800", "\ud800")}
        assert list(read_json_lines(path, dict[str, str])) == [(1, told)]
        assert read_json(path, dict[str, str]) == told


def test_csv_rows_come_by_column_with_the_line_they_begin_on(tmp_path):
    path = tmp_path / "file.csv"
    path.write_bytes(
        b'\xef\xbb\xbfname,tags,more\r\ncat,"fur, paws",\r\n\r\n"two\nlines",x,"say ""hi"""\n'
        b"caf\xe9,y,z"
    )
    assert read_csv(path, ("name", "tags")) == [
        (2, {"name": "cat", "tags": "fur, paws", "more": ""}),
        (4, {"name": "two\nlines", "tags": "x", "more": 'say "hi"'}),
        (6, {"name": "caf\ufffd", "tags": "y", "more": "z"}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"empty, expected a header with name, tags"),
        ("nam,tags\n", r"line 1: the header has no column 'name'; did you mean 'nam'\?"),
        ("name;tags\n", r"line 1: the header has no column 'name'"),
        ("x,tags\n", r"line 1: .*no column 'name'; it has x, tags"),
        ("name,tags\na,b\nc\n", r"line 3: 1 fields, expected 2"),
        ("name,tags\na,b,c\n", r"line 2: 3 fields, expected 2"),
        ('name,tags\na,b\nc,"d\ne,f\n', r"line 3: unexpected end"),
        ('name,tags\na,"b"c\n', r"line 2: "),
    ],
)
def test_malformed_csv_is_named_with_the_line(tmp_path, text, said):
    path = tmp_path / "file.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"file\.csv[:,] {said}"):
        read_csv(path, ("name", "tags"))


def test_a_dataset_may_be_known_by_a_file(tmp_path):
    layouts = [["list.csv"], ["data/list.csv"]]
    make(tmp_path, "a/data", "b/c")
    (tmp_path / "a/data/list.csv").touch()
    assert find_root("some", tmp_path, layouts) == tmp_path / "a"
    (tmp_path / "a/list.csv").touch()
    (tmp_path / "a/data/list.csv").unlink()
    assert find_root("some", tmp_path, layouts) == tmp_path / "a"
    assert find_root("some", tmp_path / "a", layouts) == tmp_path / "a"
