"""The default dataset: right answers, exact ceilings, separate streams."""

import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmnet.dataset.shapes import Shapes, ShapesSplit
from mmnet.interfaces import Dataset, Sample, Split


BOTH = ("image", "text")
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
    split: Split = dataset.split("val")
    assert (dataset.on_bad_sample, dataset.max_bad_fraction) == ("fail", 0.0)
    assert dataset.classes == ["red", "green", "blue", "yellow"]
    assert (len(split), split.key(7), split.notes) == (400, "val/7", {})


def found_in(picture: np.ndarray) -> dict[str, str]:
    """Shape -> colour, by looking: nearest colour, then how much of its box a shape fills."""
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
        found["bar" if flat else "circle" if fill > 0.68 else "triangle"] = name
    return found


def test_the_answer_is_the_colour_of_the_shape_that_the_text_names():
    dataset = shapes(image_size=96, train_samples=160)
    for sample in samples(dataset.split("train")):
        found = found_in(np.asarray(sample["image"]).astype(float))
        assert len(found) == 2
        [asked] = [shape for shape in ("circle", "bar", "triangle") if shape in sample["text"]]
        assert dataset.classes[sample["label"]] == found[asked]


@pytest.mark.parametrize("num_classes", [2, 4, 8])
def test_neither_modality_can_beat_its_ceiling(num_classes):
    """The best that any function of one modality can do, by counting."""
    split = shapes(num_classes=num_classes, train_samples=40 * num_classes).split("train")
    by_image: dict[bytes, Counter[int]] = defaultdict(Counter)
    by_text: dict[str, Counter[int]] = defaultdict(Counter)
    for sample in samples(split):
        by_image[sample["image"].tobytes()][sample["label"]] += 1
        by_text[sample["text"]][sample["label"]] += 1

    def ceiling(groups: dict[Any, Counter[int]]) -> float:
        return sum(max(labels.values()) for labels in groups.values()) / len(split)

    assert ceiling(by_image) == 1 / 2
    assert ceiling(by_text) == 1 / num_classes


def test_there_are_many_pictures_and_many_ways_to_ask():
    drawn = samples(shapes().split("train"))
    assert len({sample["image"].tobytes() for sample in drawn}) == 400
    texts = {sample["text"] for sample in drawn}
    assert len(texts) == 18
    assert any("colour" in text for text in texts)
    assert any("color" in text for text in texts)
    assert max(len(text.encode()) for text in texts) < 64


def test_train_and_val_share_no_picture():
    train, val = (
        {sample["image"].tobytes() for sample in samples(shapes().split(name))}
        for name in ("train", "val")
    )
    assert not train & val


def test_a_sample_is_a_function_of_seed_split_and_index():
    split, again = shapes().split("train"), shapes(train_samples=900).split("train")
    for index in (70, 3, 799):
        first, second = split.sample(index, BOTH, None), again.sample(index, BOTH, None)
        assert first["image"].tobytes() == second["image"].tobytes()
        assert (first["text"], first["label"]) == (second["text"], second["label"])
    other = shapes(seed=1).split("train")
    assert split.sample(3, BOTH, None)["image"] != other.sample(3, BOTH, None)["image"]


def test_only_what_is_asked_for_is_made():
    split = shapes().split("val")
    whole = split.sample(5, BOTH, None)
    assert split.sample(5, ("text",), None) == {"label": whole["label"], "text": whole["text"]}
    assert split.sample(5, ("image",), None) == {"label": whole["label"], "image": whole["image"]}


@pytest.mark.parametrize("size", [8, 32, 100])
def test_pictures_have_the_size_that_was_asked_for(size):
    picture = shapes(image_size=size).split("val").sample(0, BOTH, None)["image"]
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_the_digest_tells_settings_apart():
    digests = [
        shapes(**changes).split("train").digest
        for changes in (
            {},
            {"seed": 1},
            {"image_size": 64},
            {"num_classes": 3},
            {"train_samples": 9},
        )
    ]
    assert len({*digests, shapes().split("val").digest}) == 6
    assert shapes().split("train").digest == digests[0]


def test_drawing_is_quick():
    split = shapes().split("train")
    rounds = []
    for _ in range(3):
        began = time.process_time()
        samples(split)
        rounds.append((time.process_time() - began) / len(split))
    assert min(rounds) < 150e-6
