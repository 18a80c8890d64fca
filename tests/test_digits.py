"""Digits: the words and pictures of scikit-learn, noise in exact shares, answers by looking."""

import random
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.svm import SVC  # type: ignore[import-untyped]

from mmnet.dataset.digits import Digits, DigitsSplit
from mmnet.interfaces import TARGETS, Dataset, Split


BOTH = ("image", "text")
LABEL = ("label",)
OFFERED = ("label", "value", "group", "match")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def digits(**changes: Any) -> Digits:
    settings = {
        "num_classes": 10,
        "image_size": 8,
        "text_noise": 0.15,
        "image_noise": 0.15,
        "seed": 0,
    }
    return Digits(**settings | changes, data=Path("nowhere"))


def named(text: str) -> int:
    """The one digit that a text names, in words or figures."""
    [word] = re.findall("|".join([*NAMES, "[0-9]"]), text)
    return int(word) if word.isdigit() else NAMES.index(word)


def pixels(split: DigitsSplit, index: int, rng: random.Random | None = None) -> np.ndarray:
    """A picture of 8 x 8 as scikit-learn has it, 0 to 16."""
    image = split.sample(index, ("image",), rng)["image"]
    return 16 - np.asarray(image)[:, :, 0] * (16 / 255)


@cache
def published() -> dict[bytes, int]:
    """Each picture of scikit-learn -> its digit."""
    found = load_digits()
    return dict(zip(map(np.ndarray.tobytes, found.images), found.target.tolist(), strict=True))


def shown(split: DigitsSplit, index: int, rng: random.Random | None = None) -> int | None:
    """The digit that a picture shows, None for static."""
    return published().get(pixels(split, index, rng).round().tobytes())


def test_it_fits_the_contract():
    dataset: Dataset = digits()
    split: Split = dataset.split("val", LABEL)
    assert (dataset.on_bad_sample, dataset.max_bad_fraction) == ("fail", 0.0)
    assert dataset.names.classes == [str(digit) for digit in range(10)]
    assert dataset.offers == OFFERED
    assert set(OFFERED) <= TARGETS.keys()
    assert (len(split), split.key(7), split.notes) == (359, "val/7", {})


def test_a_fifth_is_val_and_train_is_the_rest_whatever_the_seed():
    keys: dict[tuple[str, int], list[bytes]] = {}
    for name in ("train", "val"):
        for seed in (0, 1):
            split = digits(seed=seed, image_noise=0.0).split(name, LABEL)
            keys[name, seed] = [pixels(split, i).round().tobytes() for i in range(len(split))]
    assert keys["train", 0] == keys["train", 1]
    assert keys["val", 0] == keys["val", 1]
    assert not set(keys["train", 0]) & set(keys["val", 0])
    assert set(keys["train", 0]) | set(keys["val", 0]) == published().keys()
    assert len(keys["val", 0]) == round(0.2 * 1797)


def test_every_digit_is_in_val():
    split = digits().split("val", LABEL)
    counts = Counter(split.sample(i, (), None)["label"] for i in range(len(split)))
    assert min(counts[digit] for digit in range(10)) > 25


@pytest.mark.parametrize("rng", [None, random.Random(0)])
def test_label_value_and_group_are_the_digit_of_the_picture(rng):
    split = digits(image_noise=0.0).split("val", ("label", "value", "group"))
    for index in range(len(split)):
        sample = split.sample(index, ("image",), rng)
        digit = shown(split, index)
        assert (sample["label"], sample["value"], sample["group"]) == (digit, digit, digit)
        assert isinstance(sample["value"], float)


@pytest.mark.parametrize("target", ["label", "value", "tokens"])
def test_the_noisy_shares_of_val_are_exact(target):
    split = digits(text_noise=0.2, image_noise=0.3).split("val", (target,))
    still = digits(image_noise=0.0).split("val", LABEL)
    truth = [shown(still, i) for i in range(359)]
    wrong = {i for i in range(359) if named(split.sample(i, ("text",), None)["text"]) != truth[i]}
    static = {i for i in range(359) if shown(split, i) is None}
    assert len(wrong) == round(0.2 * 359)
    assert len(static) == pytest.approx(0.3 * 359, abs=1)
    assert len(wrong & static) == round(0.3 * len(wrong))
    assert all(shown(split, i) == truth[i] for i in range(359) if i not in static)


def test_the_text_s_ceiling_is_what_is_said():
    """The best that any function of the text can do, by counting."""
    for noise in (0.0, 0.15, 0.5):
        split = digits(text_noise=noise).split("val", LABEL)
        by_text: dict[int, Counter[int]] = {digit: Counter() for digit in range(10)}
        for index in range(len(split)):
            sample = split.sample(index, ("text",), None)
            by_text[named(sample["text"])][sample["label"]] += 1
        ceiling = sum(max(labels.values()) for labels in by_text.values()) / len(split)
        assert ceiling == pytest.approx(1 - noise, abs=0.5 / len(split))


def test_a_plain_classifier_comes_near_the_picture_s_ceiling_and_both_beat_each():
    """A support vector machine for the picture; the text where the picture is static."""
    train, val = (digits().split(name, LABEL) for name in ("train", "val"))
    seen = [i for i in range(len(train)) if shown(train, i) is not None]
    reader = SVC(gamma=0.002).fit(
        [pixels(train, i).ravel() for i in seen],
        [train.sample(i, (), None)["label"] for i in seen],
    )
    samples = [val.sample(i, ("text",), None) for i in range(len(val))]
    labels = np.array([sample["label"] for sample in samples])
    read = reader.predict([pixels(val, i).ravel() for i in range(len(val))])
    said = np.array([named(sample["text"]) for sample in samples])
    static = np.array([shown(val, i) is None for i in range(len(val))])
    image, text, both = (
        (answers == labels).mean() for answers in (read, said, np.where(static, said, read))
    )
    assert 0.8 < image < 0.9
    assert 0.8 < text < 0.9
    assert both > 0.95


def test_training_draws_words_and_noise_anew_at_the_same_rates():
    split = digits(text_noise=0.3, image_noise=0.4).split("train", LABEL)
    still = digits(image_noise=0.0).split("train", LABEL)
    wrong, static, both = [], [], []
    met: dict[int, set[tuple[str, bool]]] = defaultdict(set)
    others: Counter[int] = Counter()
    for draw in range(1_500):
        digit = shown(still, draw % 50)
        assert digit is not None
        text = split.sample(draw % 50, ("text",), random.Random(draw))["text"]
        others[(named(text) - digit) % 10] += 1
        wrong.append(named(text) != digit)
        static.append(shown(split, draw % 50, random.Random(draw)) is None)
        both.append(wrong[-1] and static[-1])
        met[draw % 50] |= {("wrong", wrong[-1]), ("static", static[-1])}
    assert {len(found) for found in met.values()} == {4}, "the noise of a sample stays the same"
    assert np.mean(wrong) == pytest.approx(0.3, abs=0.04)
    assert np.mean(static) == pytest.approx(0.4, abs=0.04)
    assert np.mean(both) == pytest.approx(0.12, abs=0.03)
    assert min(others[step] for step in range(1, 10)) > 25, "some wrong digits are never named"


def test_a_wrong_text_reads_like_a_right_one():
    split = digits(text_noise=0.5).split("train", LABEL)
    phrases: dict[bool, set[str]] = {True: set(), False: set()}
    for index in range(len(split)):
        sample = split.sample(index, ("text",), None)
        digit = named(sample["text"])
        phrase = sample["text"].replace(NAMES[digit], "_").replace(str(digit), "_")
        phrases[digit == sample["label"]].add(phrase)
    assert phrases[True] == phrases[False]
    assert len(phrases[True]) == 8


@pytest.mark.parametrize("rng", [None, random.Random(0)])
def test_a_text_matches_where_it_names_the_digit_half_of_the_time(rng):
    split = digits(image_noise=0.0).split("val", ("match", "label"))
    names: dict[int, Counter[int]] = {0: Counter(), 1: Counter()}
    for index in range(len(split)):
        sample = split.sample(index, ("text",), rng)
        assert sample["match"] == (named(sample["text"]) == shown(split, index))
        names[sample["match"]][named(sample["text"])] += 1
    assert names[1].total() / len(split) == pytest.approx(0.5, abs=0.002 if rng is None else 0.08)
    for digit in range(10):  # no digit is named mainly where it is right, or wrong
        assert 0.25 < names[1][digit] / (names[0][digit] + names[1][digit]) < 0.75


@pytest.mark.parametrize("rng", [None, random.Random(0)])
def test_the_texts_of_a_group_fit_all_of_its_pictures(rng):
    split = digits(text_noise=0.9).split("val", ("group", "label"))
    for index in range(100):
        sample = split.sample(index, ("text",), rng)
        assert named(sample["text"]) == sample["group"] == sample["label"]


def test_fewer_classes_are_the_digits_below():
    dataset = digits(num_classes=3, text_noise=0.4)
    assert dataset.names.classes == ["0", "1", "2"]
    split = dataset.split("val", LABEL)
    told = [split.sample(i, ("text",), None) for i in range(len(split))]
    assert {sample["label"] for sample in told} == {named(s["text"]) for s in told} == {0, 1, 2}


def test_a_sample_is_a_function_of_seed_split_index_and_drawn_numbers():
    def picture(seed: int, drawn: int | None) -> tuple[bytes, str]:
        split = digits(seed=seed, image_noise=1.0).split("val", LABEL)
        sample = split.sample(5, BOTH, None if drawn is None else random.Random(drawn))
        return sample["image"].tobytes(), sample["text"]

    made = {place: picture(*place) for place in ((0, None), (1, None), (0, 1), (0, 2), (1, 1))}
    assert len({image for image, _ in made.values()}) == len(made)
    assert all(picture(*place) == found for place, found in made.items())
    split = digits().split("train", LABEL)
    for index in range(60):
        whole = split.sample(index, BOTH, random.Random(index))
        assert split.sample(index, ("text",), random.Random(index))["text"] == whole["text"]
        alone = split.sample(index, ("image",), random.Random(index))
        assert alone == {"label": whole["label"], "image": whole["image"]}


@pytest.mark.parametrize("size", [8, 32, 100])
def test_pictures_have_the_size_that_was_asked_for(size):
    picture = digits(image_size=size).split("val", LABEL).sample(0, BOTH, None)["image"]
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_the_digest_tells_settings_apart():
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"image_size": 64},
        {"num_classes": 3},
        {"text_noise": 0.2},
        {"image_noise": 0.2},
    ]
    digests = {digits(**one).split("train", LABEL).digest for one in changes}
    others = {digits().split("val", LABEL).digest, digits().split("train", ("match",)).digest}
    assert len(digests | others) == len(changes) + 2
    assert digits().split("train", LABEL).digest in digests
