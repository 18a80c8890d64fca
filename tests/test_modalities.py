"""What each modality gives: conditions, the grid, Shapley values, and the words about them."""

import csv

import numpy as np
import pytest
from PIL import Image

from mmnet.contribution import conditions, contribution, grid, report
from mmnet.data.conditions import Noised, Swapped, Without
from mmnet.report.modalities import draw_modalities, save_table
from tests.command import MICRO, run
from tests.jobs import make_job, metrics, run_job


BOTH = ("image", "text")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("grid"))


def test_a_modality_is_taken_away(job):
    whole = job.val.sample(3, BOTH, None)
    without = Without(job.val, "text").sample(3, BOTH, None)
    assert "text" not in without and without["label"] == whole["label"]
    assert without["image"].tobytes() == whole["image"].tobytes()


def test_a_swapped_image_is_another_samples_and_the_rest_is_ones_own(job):
    for index in range(len(job.val)):
        whole = job.val.sample(index, BOTH, None)
        swapped = Swapped(job.val, ("image",)).sample(index, BOTH, None)
        assert (swapped["text"], swapped["label"]) == (whole["text"], whole["label"])
        assert swapped["image"].tobytes() != whole["image"].tobytes()


def test_nothing_that_tells_takes_image_and_text_from_two_others(job):
    split = Swapped(job.val, BOTH)
    seen = [job.val.sample(i, BOTH, None) for i in range(len(job.val))]
    pictures = [sample["image"].tobytes() for sample in seen]
    for index in range(len(job.val)):
        sample = split.sample(index, BOTH, None)
        assert sample["label"] == seen[index]["label"]
        donors = [i for i, p in enumerate(pictures) if p == sample["image"].tobytes()]
        assert index not in donors
        assert all(seen[i]["text"] != sample["text"] or i != index for i in donors)


def test_noise_keeps_half_and_is_the_same_each_time(job):
    clean = job.val.sample(2, BOTH, None)
    first, second = (Noised(job.val).sample(2, BOTH, None) for _ in range(2))
    assert first["text"] == second["text"] != clean["text"]
    assert len(first["text"]) == len(clean["text"])
    same = sum(a == b for a, b in zip(first["text"], clean["text"], strict=True))
    assert 0.25 < same / len(clean["text"]) < 0.8
    difference = np.abs(
        np.asarray(first["image"], float) - np.asarray(clean["image"], float)
    ).mean()
    assert 30 < difference < 100
    assert first["image"].tobytes() == second["image"].tobytes()


def test_the_grid_names_every_condition_and_scores_the_same_samples(job):
    found = grid(job, samples=24)
    assert list(found) == ["both", "image", "text", "swapped", "noised", "nothing"]
    assert {"loss", "accuracy"} <= found["both"].keys()
    assert all(values.keys() == found["both"].keys() for values in found.values())
    assert len({values["loss"] for values in found.values()}) == 6


class Partly:
    """A split of which some samples have no image."""

    def __init__(self, split, without):
        self.split, self.without = split, without
        self.digest, self.notes = split.digest, split.notes

    def __len__(self):
        return len(self.split)

    def key(self, index):
        return self.split.key(index)

    def sample(self, index, modalities, rng):
        sample = dict(self.split.sample(index, modalities, rng))
        if index in self.without:
            sample.pop("image", None)
        return sample


def test_the_grid_leaves_out_what_only_some_samples_could_answer(job, tmp_path):
    other = make_job(tmp_path)
    other.val = Partly(job.val, {1, 5})
    assert list(grid(other, samples=24)) == ["both", "text", "swapped", "noised", "nothing"]
    other.val = Partly(job.val, range(len(job.val)))
    assert list(grid(other, samples=24)) == ["both", "text", "swapped", "noised", "nothing"]


def test_a_split_of_two_has_nobody_to_swap_both_with(job):
    class Few(Partly):
        def __len__(self):
            return 2

    assert "nothing" not in conditions(Few(job.val, ()), BOTH, ())


def test_what_a_head_cannot_do_without_is_not_taken_away(job):
    assert list(conditions(job.val, BOTH, ("text",))) == ["both", "text", "swapped", "noised"]
    assert list(conditions(job.val, BOTH, BOTH)) == ["both", "swapped", "noised"]
    assert conditions(job.val, ("image",), ()) == {}


def values(**accuracy):
    return {name: {"accuracy": value} for name, value in accuracy.items()}


def test_shapley_values_are_the_mean_of_both_orders_and_sum_to_the_gain():
    found = contribution(
        values(both=0.9, image=0.5, text=0.3, swapped=0.3, noised=0.6, nothing=0.2),
        "accuracy",
        True,
    )
    assert found.shapley == pytest.approx({"image": 0.45, "text": 0.25})
    assert sum(found.shapley.values()) == pytest.approx(found.gained) == pytest.approx(0.7)
    assert found.ignored == []


def test_of_a_loss_less_is_more():
    table = values(both=0.1, image=0.1, text=1.4, swapped=3, noised=1, nothing=1.4)
    found = contribution(table, "accuracy", False)
    assert found.shapley == pytest.approx({"image": 1.3, "text": 0.0})
    assert found.ignored == ["text"]


def test_a_network_that_learnt_nothing_ignores_nothing():
    table = values(both=0.25, image=0.25, text=0.25, swapped=0.25, noised=0.25, nothing=0.25)
    assert contribution(table, "accuracy", True).ignored == []


def test_with_a_head_that_needs_the_text_the_image_is_worth_what_its_absence_costs():
    table = values(both=0.9, text=0.6, swapped=0.5, noised=0.4)
    found = contribution(table, "accuracy", True)
    assert found.shapley == pytest.approx({"image": 0.3})


@pytest.mark.train
def test_a_network_that_does_not_look_at_the_text_is_found_out(tmp_path, caplog):
    job = make_job(
        tmp_path,
        "trainer.steps=60",
        "trainer.batch_size=64",
        "dataset.train_samples=640",
        "dataset.val_samples=200",
        "optimizer.lr=3e-3",
        "trainer.eval_every=100",
    )
    run_job(job)
    for norm in [job.model.fusion.norms["text"]]:
        norm.weight.data.zero_()
        norm.bias.data.zero_()
    caplog.set_level("WARNING")
    found = report(job, samples=200)
    assert found["contribution"]["ignored"] == ["text"]
    assert "the network ignores its text" in caplog.text
    assert "trainer.modality_dropout" in caplog.text
    assert found["grid"]["both"] == pytest.approx(found["grid"]["image"])
    save_table(job.folder, found["grid"])
    rows = list(csv.DictReader((job.folder / "modalities.csv").read_text().splitlines()))
    assert [row["condition"] for row in rows] == list(found["grid"])
    assert float(rows[0]["accuracy"]) == pytest.approx(found["grid"]["both"]["accuracy"], rel=1e-4)
    with Image.open(draw_modalities(job.folder, found)) as picture:
        assert picture.width == 1000


def test_gradient_shares_are_recorded_and_sum_to_one(tmp_path):
    job = run_job(make_job(tmp_path))
    image, text = (metrics(job, f"train/grad_share_{name}") for name in BOTH)
    assert len(image) == len(text) == 12
    assert all(a + b == pytest.approx(1) for a, b in zip(image, text, strict=True))
    assert min(image + text) > 0


def test_one_encoder_has_no_share(tmp_path):
    job = run_job(make_job(tmp_path, "~encoder/text", "trainer.steps=2"))
    assert not metrics(job, "train/grad_share_image")


@pytest.mark.train
def test_a_run_tells_it_in_its_summary(tmp_path):
    ended = run(tmp_path, *MICRO, "trainer.steps=5", "trainer.modality_grid=40")
    assert ended.code == 0, ended.err
    found, folder = ended.summary["modalities"], ended.folder
    assert found["grid"].keys() == {"both", "image", "text", "swapped", "noised", "nothing"}
    assert found["contribution"]["gradient_share"].keys() == {"image", "text"}
    assert (folder / "modalities.csv").exists() and (folder / "plots" / "modalities.png").exists()
