"""NLVR from its published files: real ones, and generated ones with what can go wrong."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmnet.data.record_split import RecordSplit
from mmnet.dataset.nlvr import Nlvr
from mmnet.errors import UserError
from mmnet.interfaces import TARGETS, BadSample, Dataset, Split
from tests.official import cropped


BOTH = ("image", "text")
LABEL = ("label",)
OFFERED = ("label",)


def nlvr(data: Path, **changes: Any) -> Nlvr:
    settings = {
        "root": None,
        "num_classes": 2,
        "image_size": 32,
        "augment": cropped(1.0, 0.0),
        "split_seed": 0,
        "val_fraction": 0.2,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return Nlvr(**settings | changes, data=data)


def splits(dataset: Nlvr, targets: tuple[str, ...] = LABEL) -> list[RecordSplit]:
    return [dataset.split(name, targets) for name in ("train", "val")]


def sentences(split: RecordSplit) -> list[str]:
    return [split.sample(i, ("text",), None)["text"] for i in range(len(split))]


# The published files


def test_it_fits_the_contract(data):
    dataset: Dataset = nlvr(data)
    split: Split = dataset.split("val", LABEL)
    assert (dataset.on_bad_sample, dataset.max_bad_fraction) == ("skip", 0.01)
    assert list(dataset.names.classes) == ["false", "true"]
    assert dataset.offers == OFFERED
    assert set(OFFERED) <= TARGETS.keys()
    assert split.notes == {"sentences": 84}


def test_real_samples_say_what_the_file_says(data):
    lines = (data / "nlvr/dev/dev.json").read_text().split("\n")
    published = {line["identifier"]: line for line in map(json.loads, filter(None, lines))}
    told = []
    for split in splits(nlvr(data), OFFERED):
        for i in range(len(split)):
            identifier = split.key(i).split("dev-")[1]
            line = published[identifier]
            assert split.key(i) == f"dev/images/{line['directory']}/dev-{identifier}"
            sample = split.sample(i, ("text",), None)
            assert sample["text"] == " ".join(line["sentence"].split())
            assert ("false", "true")[sample["label"]] == line["label"]
            told.append(identifier)
    assert sorted(told) == sorted(published)


def test_real_sentences_are_divided_and_their_examples_stay_together(data):
    train, val = map(sentences, splits(nlvr(data)))
    assert (len(set(train)), len(set(val))) == (70, 14)  # a fifth of 84, by chance
    assert not set(train) & set(val)
    assert (len(train), len(val)) == (275, 55)
    labels = [split.sample(i, (), None)["label"] for split in splits(nlvr(data)) for i in (0, 7)]
    assert set(labels) == {0, 1}


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_the_asked_share_of_the_sentences_is_val(data, fraction):
    val = splits(nlvr(data, val_fraction=fraction))[1]
    assert len(set(sentences(val))) == pytest.approx(84 * fraction, abs=8)


def test_another_seed_divides_otherwise(data):
    one, other = (set(sentences(splits(nlvr(data, split_seed=seed))[1])) for seed in (0, 1))
    assert one != other


def test_sentences_stay_where_they_are_when_others_are_added(tmp_path):
    few, more = (
        [set(sentences(split)) for split in splits(nlvr(write(tmp_path / name, dev=many(count))))]
        for name, count in (("few", 20), ("more", 60))
    )
    assert all(one <= other for one, other in zip(few, more, strict=True))


COLOURS = {"black": (0, 0, 0), "yellow": (255, 255, 0), "#0099ff": (0, 153, 255)}


def test_a_picture_shows_the_objects_of_its_line(data):
    lines = (data / "nlvr/dev/dev.json").read_text().split("\n")
    published = {line["identifier"]: line for line in map(json.loads, filter(None, lines))}
    split = nlvr(data, image_size=400).split("val", LABEL)
    for i in range(0, len(split), 2):
        line = published[split.key(i).split("dev-")[1]]
        objects = {one["color"].lower() for box in line["structured_rep"] for one in box}
        picture = shown(split.sample(i, ("image",), random.Random(i)))
        seen = {name for name, rgb in COLOURS.items() if (picture == rgb).all(2).sum() > 50}
        assert seen == objects


def shown(sample: Any) -> Any:
    """The picture as [H, W, 3]."""
    return sample["image"].permute(1, 2, 0).numpy()


def orders(data: Path, split: RecordSplit, index: int) -> list[Any]:
    """The six published pictures of an example, as they are handed out."""
    pictures = [Image.open(data / f"nlvr/{split.key(index)}-{k}.png") for k in range(6)]
    assert {picture.mode for picture in pictures} == {"RGBA"}
    return [
        np.asarray(p.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) for p in pictures
    ]


def which(sample: Any, pictures: list[Any]) -> int:
    """The number of the one that is shown, within a rounding."""
    differences = [np.abs(shown(sample).astype(int) - one).max() for one in pictures]
    assert min(differences) <= 1
    return int(np.argmin(differences))


def test_training_draws_the_order_of_the_boxes(data):
    split = nlvr(data).split("train", LABEL)
    for index in range(4):
        pictures = orders(data, split, index)
        drawn = Counter(
            which(split.sample(index, ("image",), random.Random(seed)), pictures)
            for seed in range(90)
        )
        assert drawn.keys() == set(range(6))
        assert max(drawn.values()) < 40


def test_evaluation_keeps_one_order_and_meets_all_of_them(data):
    split, again = (nlvr(data).split("val", LABEL) for _ in range(2))
    kept = set()
    for index in range(len(split)):
        fixed = split.sample(index, ("image",), None)
        assert (shown(fixed) == shown(again.sample(index, ("image",), None))).all()
        kept.add(which(fixed, orders(data, split, index)))
    assert kept == set(range(6))


def test_root_names_the_folder(data):
    assert len(nlvr(Path("nowhere"), root=str(data / "nlvr")).split("val", LABEL)) == 55
    with pytest.raises(UserError, match=r"dataset\.root=.*coco is no nlvr: .*dev/dev\.json"):
        nlvr(data, root=str(data / "coco"))
    with pytest.raises(UserError, match=r"dataset=nlvr wants .*dev/dev\.json, dev/images"):
        nlvr(data / "coco")


def test_two_classes_there_are(data):
    with pytest.raises(UserError, match=r"dataset\.num_classes=3, but .* 2: false, true"):
        nlvr(data, num_classes=3)


# Generated files


def line(n: int, m: int = 0, **changes: Any) -> dict[str, Any]:
    """An example; four of a sentence."""
    return {
        "sentence": f"There are {n} towers.",
        "label": ("false", "true")[m % 2],
        "identifier": f"{n}-{m}",
        "directory": str(n % 2),
        "evals": {"r0": "true"},
        "structured_rep": [[{"x_loc": 1, "color": "Black"}], [], []],
    } | changes


def write(root: Path, **folders: list[dict[str, Any]]) -> Path:
    """NLVR as published; the six pictures of an example are as many shades of grey."""
    for folder, lines in folders.items():
        (root / folder / "images").mkdir(parents=True)
        text = "\n".join(json.dumps(one) for one in lines)
        (root / folder / f"{folder}.json").write_text(text)  # no line feed at the end
        for one in lines:
            place = root / folder / "images" / str(one["directory"])
            if place.parent.is_dir() and ".." not in str(one["directory"]):
                place.mkdir(exist_ok=True)
            for k in range(6):
                picture = Image.new("RGBA", (40, 10), (0, 0, 0, 40 * k))
                path = place / f"{folder}-{one['identifier']}-{k}.png"
                if path.parent.is_dir():
                    picture.save(path)
    return root


def many(count: int = 10) -> list[dict[str, Any]]:
    return [line(n, m) for n in range(count) for m in range(4)]


def test_a_full_release_has_its_own_splits(tmp_path):
    root = write(tmp_path, train=many(3), dev=[line(1), line(99)], test=[line(5)])
    train, val = splits(nlvr(root))
    assert [train.key(i) for i in (0, 11)] == [
        "train/images/0/train-0-0",
        "train/images/0/train-2-3",
    ]
    assert [val.key(i) for i in range(2)] == ["dev/images/1/dev-1-0", "dev/images/1/dev-99-0"]
    assert train.sample(5, BOTH, None)["text"] == "There are 1 towers."


def test_a_train_folder_that_is_not_whole_is_refused(tmp_path):
    root = write(tmp_path, dev=many())
    (root / "train/images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"lacks train/train\.json"):
        nlvr(root)


def test_the_division_depends_on_the_sentences_alone(tmp_path):
    lines = many(30)
    before = splits(nlvr(write(tmp_path / "a", dev=lines)))
    shuffled = [one | {"directory": "7"} for one in random.Random(0).sample(lines, len(lines))]
    after = splits(nlvr(write(tmp_path / "b", dev=shuffled)))
    assert [set(sentences(split)) for split in before] == [set(sentences(split)) for split in after]


def test_a_sentence_spelt_otherwise_is_the_same_sentence(tmp_path):
    spelt = ["There is a TOWER.", "there is a tower", " There is  a tower ."]
    lines = [line(n, sentence=text) for n, text in enumerate(8 * spelt)] + many(3)[::4]
    lines = [one | {"identifier": f"{i}-0"} for i, one in enumerate(lines)]
    train, val = splits(nlvr(write(tmp_path, dev=lines), val_fraction=0.25))
    towers = [
        sum("tower" in s.lower() and "towers" not in s for s in sentences(x)) for x in (train, val)
    ]
    assert sorted(towers) == [0, 24]
    assert len(train) + len(val) == 27


def test_what_is_transparent_is_white(tmp_path):
    split = nlvr(write(tmp_path, dev=many())).split("train", LABEL)
    greys = {
        int(split.sample(0, ("image",), random.Random(s))["image"][0, 16, 16]) for s in range(40)
    }
    assert greys == {255, 215, 175, 135, 95, 55}


@pytest.mark.parametrize("labels", [("false", "true"), (False, True)])
def test_labels_may_be_words_or_json_s_own(tmp_path, labels):
    lines = [line(n, m, label=labels[m % 2]) for n in range(10) for m in range(4)]
    split = nlvr(write(tmp_path, dev=lines)).split("train", LABEL)
    told = [split.sample(i, (), None)["label"] for i in range(len(split))]
    assert told == [int(split.key(i)[-1]) % 2 for i in range(len(split))]


def test_pictures_that_are_missing_or_damaged_are_bad_samples(tmp_path):
    root = write(tmp_path, dev=many())
    split = nlvr(root).split("train", LABEL)
    for k in range(6):
        (root / f"{split.key(0)}-{k}.png").unlink()
        (root / f"{split.key(1)}-{k}.png").write_bytes(b"\x89PNG")
    for i, said in ((0, "missing file"), (1, "not a picture")):
        with pytest.raises(BadSample, match=rf"{split.key(i)}: {said}"):
            split.sample(i, BOTH, random.Random(0))
        assert split.sample(i, ("text",), None)["text"]
    assert split.sample(2, BOTH, None)["image"].shape == (3, 32, 32)


def test_a_sentence_that_is_empty_is_a_bad_sample(tmp_path):
    lines = [line(n, sentence=f"sentence {n}" if n else " \n") for n in range(5)]
    found = splits(nlvr(write(tmp_path, dev=lines), val_fraction=0.4))
    [(split, i)] = [(s, i) for s in found for i in range(len(s)) if s.key(i).endswith("dev-0-0")]
    with pytest.raises(BadSample, match=r"dev-0-0: empty caption"):
        split.sample(i, BOTH, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "maybe"}, r"line 3: Invalid enum value 'maybe' - at `\$\.label`"),
        ({"label": None}, r"line 3: .*`\$\.label`"),
        ({"sentence": 5}, r"line 3: Expected `str`, got `int` - at `\$\.sentence`"),
        ({"identifier": "../../1-0"}, r"line 3: '\.\./\.\./1-0' is no part of a file's name"),
        ({"directory": ".."}, r"line 3: '\.\.' is no part"),
        ({"directory": "a\\b"}, r"line 3: .* is no part"),
        ({"directory": "0", "identifier": "0-0"}, r"line 3: identifier 0-0 is also on line 1"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, change, said):
    lines = many()
    lines[2] |= change
    with pytest.raises(UserError, match=rf"dev/dev\.json, {said}"):
        nlvr(write(tmp_path, dev=lines)).split("train", LABEL)


def test_a_line_without_a_label_or_cut_short_is_named(tmp_path):
    root = write(tmp_path, dev=many())
    path = root / "dev/dev.json"
    whole = path.read_text()
    for text, said in (
        (whole.replace('"label": "true", ', "", 1), r"line 2: .*missing required field `label`"),
        (whole[:-30], r"line 40: .*truncated"),
        ("[" + whole.replace("\n", ",\n") + "]", r"line 1: "),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"dev\.json, {said}"):
            nlvr(root).split("val", LABEL)


@pytest.mark.parametrize("lines", [[], [line(1), line(1, 1)]])
def test_too_few_sentences_are_refused(tmp_path, lines):
    dataset = nlvr(write(tmp_path, dev=lines))
    assert len(dataset.table) == len(lines)
    with pytest.raises(UserError, match=r"dataset=nlvr: of the \d samples of .* none is for"):
        splits(dataset)


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_pictures_are_not_mirrored(data, share):
    with pytest.raises(UserError, match=r"augment\.random_flip=.*: nlvr is not to be mirrored"):
        nlvr(data, augment=cropped(1.0, share))


def test_the_digest_tells_other_data_apart(tmp_path):
    changes: list[dict[str, Any]] = [{}, {"label": "true"}, {"sentence": "Another."}]
    digests = []
    for number, change in enumerate(changes):
        lines = many()
        lines[0] |= change
        root = write(tmp_path / str(number), dev=lines)
        digests.append(tuple(split.digest for split in splits(nlvr(root))))
    assert len(set(digests)) == len(changes)
    assert digests[0][0] != digests[0][1]
    again = nlvr(write(tmp_path / "again", dev=many()))
    assert tuple(split.digest for split in splits(again)) == digests[0]
