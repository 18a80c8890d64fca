"""dataset=mix: several in one, each by its weight and in epochs of its own."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmnet.assembly import assemble
from mmnet.compose import load, make_whole
from mmnet.data.order import Mixed
from mmnet.errors import ConfigError, UserError
from mmnet.meta_batch import carve
from mmnet.session import run_training
from tests.jobs import fingerprint, resume, run_job, state_of


SMALL = (
    "dataset=mix",
    *(f"dataset.parts.{part}.val_samples=8" for part in ("first", "second")),
    "dataset.parts.first.train_samples=30",
    "dataset.parts.second.train_samples=200",
    "dataset.parts.second.seed=1",
    "dataset.weights.first=3",
)
RUN = (
    "model=micro",
    "tracker=none",
    "hardware=cpu",
    "hardware.threads=1",
    "hardware.precision=fp32",
    "trainer.batch_size=8",
    "trainer.steps=4",
    "trainer.modality_grid=0",
)


def mix(*words: str, data: Path = Path("nowhere")) -> Any:
    return make_whole(load(*SMALL, *words).dataset, data=data)


def test_it_holds_the_samples_of_all_parts_one_behind_the_other():
    found = mix()
    first, second = (one.split("train", ("label",)) for one in found.parts.values())
    split = found.split("train", ("label",))
    assert len(split) == 230
    assert [split.key(i) for i in (0, 29, 30)] == [
        "first: train/0",
        "first: train/29",
        "second: train/0",
    ]
    for index, own in ((3, first), (29, first), (30, second), (229, second)):
        mine = own.sample(index if own is first else index - 30, ("text",), None)
        assert split.sample(index, ("text",), None) == mine
    assert split.notes == {"first: samples": 30, "second: samples": 200}


def test_evaluation_reads_all_parts_and_knows_no_weights():
    split = mix().split("val", ("label",))
    assert len(split) == 16
    assert not hasattr(split, "mixture")


def test_parts_are_drawn_by_weight():
    split = mix().split("train", ("label",))
    drawn = Mixed(0, split.mixture)(range(1000))
    assert Counter(one.number < 30 for one in drawn) == {True: 750, False: 250}


def test_groups_of_two_parts_are_never_the_same():
    split = mix("dataset.parts.second.seed=0", "head=contrastive", "fusion=separate").split(
        "train", ("group",)
    )
    groups = [
        {split.sample(i, (), None)["group"] for i in range(*part)} for part in ((0, 30), (30, 60))
    ]
    assert len(groups[0]) > 5
    assert not groups[0] & groups[1]


def test_it_offers_what_all_offer(data):
    nlvr = "dataset@dataset.parts.second=nlvr"
    found = make_whole(load("dataset=mix", nlvr).dataset, data=data)
    assert found.offers == ("label",)
    with pytest.raises(ConfigError, match=r"learns from value, and the dataset offers label"):
        load("dataset=mix", nlvr, "head=regression")


def test_parts_that_call_their_classes_otherwise_are_refused():
    found = make_whole(
        load(
            "dataset=mix",
            "dataset@dataset.parts.second=digits",
            "dataset.parts.second.num_classes=4",
        ).dataset,
        data=Path("nowhere"),
    )
    with pytest.raises(UserError, match=r"parts\.first and dataset\.parts\.second .* number 0 is"):
        found.split("train", ("label",))
    fewer = mix("dataset.parts.second.num_classes=3")
    with pytest.raises(UserError, match=r"one has 4 classes, the other 3"):
        fewer.split("train", ("label",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("+dataset.weights.third=1",), r"dataset\.weights\.third: no such part; .*first, second"),
        (("~dataset.weights.second",), r"no weight for the part second"),
        (("dataset@dataset.parts.second=mix",), r"is made of parts itself"),
    ],
)
def test_weights_name_each_part_and_nothing_else(words, said, tmp_path):
    with pytest.raises((UserError, ConfigError), match=said):
        run_training(load("dataset=mix", *RUN, *words), tmp_path, "")


def test_the_strictest_policy_for_bad_samples_counts(data, tmp_path):
    words = (
        "dataset=mix",
        "dataset@dataset.parts.first=nlvr",
        "dataset@dataset.parts.second=nlvr",
        "dataset.parts.second.max_bad_fraction=0.001",
    )
    found = make_whole(load(*words).dataset, data=data)
    assert (found.on_bad_sample, found.max_bad_fraction) == ("skip", 0.001)
    failing = load(*words, "dataset.parts.first.on_bad_sample=fail").dataset
    assert make_whole(failing, data=data).on_bad_sample == "fail"


@pytest.mark.train
def test_a_mix_in_buckets_trains_and_resumes_exactly(tmp_path):
    words = (*RUN, *SMALL, "trainer.steps=8", "trainer.bucket_batches=2")
    ends = []
    for stop_after in (None, 3):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        job = run_job(assemble(load(*words), folder), stop_after)
        ends.append(state_of(job if stop_after is None else run_job(resume(job))))
    assert ends[0] == ends[1]


@pytest.mark.train
def test_samples_can_be_left_out_of_a_mix_for_the_controller(tmp_path):
    split = mix().split("train", ("label",))
    rest: Any
    kept, rest = carve(split, 20, seed=0)
    assert kept is not None
    assert sum(rest.mixture.sizes) == len(rest) == 210
    assert rest.mixture.sizes[0] == sum(rest.key(i).startswith("first") for i in range(210))
    job = run_job(assemble(load(*RUN, *SMALL, "controller=double_loop"), tmp_path))
    left: Any = job.train
    assert len(left) == sum(left.mixture.sizes) < 230


def test_pictures_of_both_are_augmented_by_the_samples_own_numbers(data):
    words = ("dataset@dataset.parts.first=openmoji", "dataset@dataset.parts.second=openmoji")
    found = make_whole(load("dataset=mix", *words).dataset, data=data)
    split = found.split("train", ("label",))
    one, again = (split.sample(3, ("image", "text"), random.Random(1)) for _ in range(2))
    assert fingerprint(one) == fingerprint(again)
