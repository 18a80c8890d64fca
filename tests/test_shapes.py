"""The default dataset: right answers to every question, exact ceilings, separate streams."""

import itertools
import re
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mmnet.dataset.shapes import Shapes, ShapesSplit
from mmnet.interfaces import TARGETS, Dataset, Sample, Split


BOTH = ("image", "text")
LABEL = ("label",)
OFFERED = ("label", "labels", "value", "group", "match")
COLOURS = {
    "red": (225, 45, 45),
    "green": (40, 170, 70),
    "blue": (55, 90, 225),
    "yellow": (235, 210, 50),
}


def shapes(**changes: Any) -> Shapes:
    settings = {
        "num_classes": 4,
        "image_size": 32,
        "train_samples": 800,
        "val_samples": 400,
        "seed": 0,
    }
    return Shapes(**settings | changes, data=Path("nowhere"))


def samples(split: ShapesSplit) -> list[Sample]:
    return [split.sample(i, BOTH, None) for i in range(len(split))]


def test_it_fits_the_contract():
    dataset: Dataset = shapes()
    split: Split = dataset.split("val", LABEL)
    assert (dataset.on_bad_sample, dataset.max_bad_fraction) == ("fail", 0.0)
    assert dataset.names.classes == ["red", "green", "blue", "yellow"]
    assert dataset.names.labels == ["red", "green", "blue", "yellow", "left", "top"]
    assert dataset.names.unit == "% of the width"
    assert dataset.offers == OFFERED
    assert set(OFFERED) <= TARGETS.keys()
    assert (len(split), split.key(7), split.notes) == (400, "val/7", {})


class Seen(NamedTuple):
    """One shape of a picture, as the eye finds it."""

    colour: str
    x: float  # middle of its box, as a share of the width
    y: float

    @property
    def place(self) -> str:
        return f"{'top' if self.y < 0.5 else 'bottom'} {'left' if self.x < 0.5 else 'right'}"


def found_in(picture: np.ndarray) -> dict[str, Seen]:
    """Shape -> what is seen of it: nearest colour, then how much of its box a shape fills."""
    names = list(COLOURS)
    hue = picture / np.linalg.norm(picture, axis=2, keepdims=True).clip(1)
    hues = np.array([COLOURS[name] for name in names], float)
    nearest = (hue @ (hues / np.linalg.norm(hues, axis=1, keepdims=True)).T).argmax(2)
    drawn = picture.max(2) - picture.min(2) > 60
    found = {}
    for number, name in enumerate(names):
        mask = drawn & (nearest == number)
        if mask.sum() < 50:  # the blurred edge of another colour
            continue
        rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
        box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        fill = mask.sum() / box
        flat = len(columns) > 2 * len(rows)
        x, y = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
        shape = "bar" if flat else "circle" if fill > 0.68 else "triangle"
        found[shape] = Seen(name, x / picture.shape[1], y / picture.shape[0])
    assert len(found) == 2
    return found


def seen(targets: tuple[str, ...]) -> list[tuple[Sample, dict[str, Seen]]]:
    """Samples of pictures large enough to look at, and what is seen in them."""
    split = shapes(image_size=96, train_samples=96).split("train", targets)
    return [(s, found_in(np.asarray(s["image"]).astype(float))) for s in samples(split)]


DESCRIBED = re.compile(r"a (?:(red|green|blue|yellow) )?(circle|bar|triangle) ((?:top|bottom) \w+)")


def described(text: str) -> dict[str, tuple[str, str]]:
    """Shape -> the colour ("" if none is said) and the place that a text says it has."""
    return {shape: (colour, place) for colour, shape, place in DESCRIBED.findall(text)}


def asked(text: str) -> str:
    """The one shape that a text is about."""
    [shape] = {shape for shape in ("circle", "bar", "triangle") if shape in text}
    return shape


def true_of(found: dict[str, Seen], text: str) -> bool:
    """Whether everything that a text describes is so."""
    said = described(text)
    assert said.keys() == found.keys()
    return all(
        colour in ("", found[shape].colour) and place == found[shape].place
        for shape, (colour, place) in said.items()
    )


def test_the_answer_is_the_colour_of_the_shape_that_the_text_names():
    names = shapes().names
    for sample, found in seen(LABEL):
        assert names.classes[sample["label"]] == found[asked(sample["text"])].colour


def test_labels_are_the_colour_and_the_place_of_the_shape_that_the_text_names():
    names = shapes().names
    for sample, found in seen(("labels",)):
        one = found[asked(sample["text"])]
        held = {name for name, holds in zip(names.labels, sample["labels"], strict=True) if holds}
        assert held == {one.colour, *({"left", "top"} & set(one.place.split()))}
        assert set(sample["labels"]) <= {0.0, 1.0}


def test_the_value_is_how_far_right_the_shape_is_that_the_text_names():
    for sample, found in seen(("value",)):
        assert sample["value"] == pytest.approx(100 * found[asked(sample["text"])].x, abs=1.5)


@pytest.mark.parametrize("target", ["group", "tokens"])
def test_a_text_that_describes_is_true_of_its_picture(target):
    for sample, found in seen((target,)):
        assert true_of(found, sample["text"])
        assert all(colour for colour, _ in described(sample["text"]).values())


def test_a_group_is_all_that_is_described_alike():
    split = shapes(train_samples=4_000).split("train", ("group",))
    by_group: dict[int, set] = defaultdict(set)
    by_text: dict[tuple, set] = defaultdict(set)
    for index in range(len(split)):
        sample = split.sample(index, ("text",), None)
        said = tuple(sorted(described(sample["text"]).items()))
        by_group[sample["group"]].add(said)
        by_text[said].add(sample["group"])
    assert {len(found) for found in (*by_group.values(), *by_text.values())} == {1}
    assert 200 < len(by_group) < 1_000


def test_a_text_matches_where_it_is_true_of_the_picture():
    for sample, found in seen(("match",)):
        assert sample["match"] == true_of(found, sample["text"])
    texts = [sample["text"] for sample, _ in seen(("match",))]
    assert len(set(texts)) > 80


@pytest.mark.parametrize("target", ["group", "match"])
def test_a_text_that_asks_and_describes_does_not_give_the_colour_away(target):
    names = shapes().names
    questions = set()
    for sample, found in seen(("label", target)):
        assert not any(colour for colour, _ in described(sample["text"]).values())
        rest = DESCRIBED.sub("", sample["text"])
        questions.add(rest.replace(asked(rest), "").removeprefix(" and").strip())
        assert names.classes[sample["label"]] == found[asked(rest)].colour
        assert true_of(found, sample["text"]) == bool(sample.get("match", 1))
    assert len(questions) == 6


def test_groups_whose_texts_say_no_colour_differ_in_shapes_and_places_alone():
    split = shapes(train_samples=4_000).split("train", ("label", "group"))
    by_group: dict[int, set] = defaultdict(set)
    for index in range(len(split)):
        sample = split.sample(index, ("text",), None)
        by_group[sample["group"]].add(tuple(sorted(described(sample["text"]).items())))
    assert {len(said) for said in by_group.values()} == {1}
    assert len(by_group) == 3 * 4 * 3 == len(set.union(*by_group.values()))  # pairs x places


@pytest.mark.parametrize("number", range(2, 6))
def test_any_targets_together_are_those_of_each_alone(number):
    split = shapes()
    for targets in itertools.combinations(OFFERED, number):
        together = split.split("val", targets)
        for index in (0, 1, 77):
            sample: Any = together.sample(index, BOTH, None)
            assert list(sample) == [*targets, "text", "image"]
            for target in set(targets) - {"group"}:  # which depends on what is described
                alone: Any = split.split("val", (target,)).sample(index, ("image",), None)
                assert alone[target] == sample[target]
                assert alone["image"] == sample["image"]


def test_targets_are_told_in_words_of_their_own():
    texts = {
        target: {sample["text"] for sample in samples(shapes().split("train", (target,)))}
        for target in ("label", "labels", "value")
    }
    assert all(len(found) >= 9 for found in texts.values())
    assert not set.intersection(*texts.values())
    assert not any("colo" in text for text in texts["labels"] | texts["value"])


@pytest.mark.parametrize("num_classes", [2, 4, 8])
def test_neither_modality_can_beat_its_ceiling(num_classes):
    """The best that any function of one modality can do, by counting."""
    split = shapes(num_classes=num_classes, train_samples=40 * num_classes).split("train", LABEL)
    by_image: dict[bytes, Counter[int]] = defaultdict(Counter)
    by_text: dict[str, Counter[int]] = defaultdict(Counter)
    for sample in samples(split):
        by_image[sample["image"].tobytes()][sample["label"]] += 1
        by_text[sample["text"]][sample["label"]] += 1

    def ceiling(groups: dict[Any, Counter[int]]) -> float:
        return sum(max(labels.values()) for labels in groups.values()) / len(split)

    assert ceiling(by_image) == 1 / 2
    assert ceiling(by_text) == 1 / num_classes


@pytest.mark.parametrize(("num_classes", "targets"), [(2, ("match",)), (3, ("label", "match"))])
def test_neither_modality_tells_alone_whether_the_other_matches(num_classes, targets):
    """A picture is met with a true and a false text; a text as often where it is true."""
    split = shapes(num_classes=num_classes, train_samples=12_000).split("train", targets)
    pictures: dict[bytes, list[int]] = defaultdict(list)
    for index in range(400):
        sample = split.sample(index, ("image",), None)
        pictures[sample["image"].tobytes()].append(sample["match"])
    assert all(matches == [1, 0] for matches in pictures.values())
    # What the first half of the texts teaches, tried on the second.
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    right = 0
    for index in range(len(split)):
        sample = split.sample(index, ("text",), None)
        counted = seen[sample["text"]]
        if index < len(split) // 2:
            counted[sample["match"]] += 1
        else:
            right += counted[sample["match"]] > counted[1 - sample["match"]]
    assert right / (len(split) / 2) < 0.53


def test_there_are_many_pictures_and_many_ways_to_ask():
    drawn = samples(shapes().split("train", LABEL))
    assert len({sample["image"].tobytes() for sample in drawn}) == 400
    texts = {sample["text"] for sample in drawn}
    assert len(texts) == 18
    assert any("colour" in text for text in texts)
    assert any("color" in text for text in texts)
    assert max(len(text.encode()) for text in texts) < 64


def test_train_and_val_share_no_picture():
    train, val = (
        {sample["image"].tobytes() for sample in samples(shapes().split(name, LABEL))}
        for name in ("train", "val")
    )
    assert not train & val


def test_a_sample_is_a_function_of_seed_split_and_index():
    split, again = shapes().split("train", LABEL), shapes(train_samples=900).split("train", LABEL)
    for index in (70, 3, 799):
        first, second = split.sample(index, BOTH, None), again.sample(index, BOTH, None)
        assert first["image"].tobytes() == second["image"].tobytes()
        assert (first["text"], first["label"]) == (second["text"], second["label"])
    other = shapes(seed=1).split("train", LABEL)
    assert split.sample(3, BOTH, None)["image"] != other.sample(3, BOTH, None)["image"]


def test_only_what_is_asked_for_is_made():
    split = shapes().split("val", LABEL)
    whole = split.sample(5, BOTH, None)
    assert split.sample(5, ("text",), None) == {"label": whole["label"], "text": whole["text"]}
    assert split.sample(5, ("image",), None) == {"label": whole["label"], "image": whole["image"]}


@pytest.mark.parametrize("size", [8, 32, 100])
def test_pictures_have_the_size_that_was_asked_for(size):
    picture = shapes(image_size=size).split("val", LABEL).sample(0, BOTH, None)["image"]
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_the_digest_tells_settings_apart():
    digests = [
        shapes(**changes).split("train", LABEL).digest
        for changes in (
            {},
            {"seed": 1},
            {"image_size": 64},
            {"num_classes": 3},
            {"train_samples": 9},
        )
    ]
    others = [("val", LABEL), ("train", ("label", "match")), ("train", ("match",))]
    assert len({*digests, *(shapes().split(*other).digest for other in others)}) == 8
    assert shapes().split("train", LABEL).digest == digests[0]


@pytest.mark.parametrize("targets", [LABEL, OFFERED])
def test_drawing_is_quick(targets):
    split = shapes().split("train", targets)
    rounds = []
    for _ in range(3):
        began = time.process_time()
        samples(split)
        rounds.append((time.process_time() - began) / len(split))
    assert min(rounds) < 150e-6
