"""Open Images across its versions: absences, boxes, narratives, rotations, names of files."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmnet.compose import load, make
from mmnet.data.open_images_files import Files, Here, read_classes, turns
from mmnet.dataset.open_images import OpenImages
from mmnet.errors import UserError
from tests.official import draw, official
from tests.official.open_images import FLAGS, HEADER, image_id


def open_images(folder: Path, *words: str) -> OpenImages:
    common = ("head=multilabel", "model=image_only", "dataset.image_size=32")
    run = load("dataset=open_images", *common, "dataset.num_classes=4", *words)
    found = make(run.dataset, data=folder)
    assert isinstance(found, OpenImages)
    return found


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    official("open_images").make(tmp_path, data)
    return tmp_path


def write(folder: Path, name: str, *rows: str, header: str = HEADER) -> None:
    (folder / name).write_text("\n".join((header, *rows)) + "\n")


def labels(dataset: OpenImages, split: str = "train") -> dict[str, list[Any]]:
    """Of each photo: 1, 0 or None where nobody knows."""
    found = dataset.split(split, ("labels",))
    samples = [found.sample(index, (), None)["labels"] for index in range(len(found))]
    return {
        found.key(index): [None if math.isnan(one) else one for one in sample]
        for index, sample in enumerate(samples)
    }


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three photos and four classes, two of which are called alike; no header, as in V5."""
    classes = '/m/0,Box\n/m/1,Crane\n/m/2,"Fiat 500 ""topolino"""\n/m/3,Crane\n'
    (tmp_path / "class-descriptions.csv").write_text(classes)
    for number in range(3):
        draw(tmp_path / f"train/{image_id('train', number)}.jpg", number, size=(40, 24))
        draw(tmp_path / f"validation/{image_id('validation', number)}.jpg", number)
    ids = [image_id("train", number) for number in range(3)]
    human = (f"{ids[2]},verification,/m/1,0", f"{ids[0]},verification,/m/0,1")
    write(
        tmp_path,
        "oidv6-train-annotations-human-imagelabels.csv",
        *human,
        f"{ids[0]},crowdsource-verification,/m/3,0",
        f"{ids[0]},verification,/m/99,1",
        "ffff000000000000,verification,/m/0,1",
    )
    one = image_id("validation", 0)
    write(tmp_path, "validation-annotations-human-imagelabels.csv", f"{one},verification,/m/2,1")
    machine = (f"{ids[0]},machine,/m/3,0.9", f"{ids[0]},machine,/m/2,0.7")
    more = f"{ids[1]},machine,/m/0,0.4"
    write(tmp_path, "train-annotations-machine-imagelabels.csv", *machine, more)
    return tmp_path


def test_a_confidence_of_0_is_a_verified_absence_and_the_rest_is_unknown(small: Path) -> None:
    dataset = open_images(small)
    first, third = image_id("train", 0), image_id("train", 2)
    assert labels(dataset) == {third: [None, 0, None, None], first: [1, None, None, 0]}
    assert dataset.table.notes == {
        "labels of classes that are not read": 1,
        "labels of photos that are not here": 1,
    }
    assert list(dataset.names.labels) == [
        "Box",
        "Crane (/m/1)",
        'Fiat 500 "topolino"',
        "Crane (/m/3)",
    ]


def test_ids_keep_their_zeros_and_are_no_numbers(small: Path) -> None:
    # 0000000e10000000 is a number to many a reader of tables.
    assert image_id("train", 0) == "0000000e10000000"
    assert image_id("train", 0) in labels(open_images(small))


def test_what_people_say_comes_before_machines(small: Path) -> None:
    first, second, third = (image_id("train", number) for number in range(3))
    both = open_images(small, "dataset.labels_by=both", "dataset.confidence=0.6")
    assert labels(both) == {third: [None, 0, None, None], first: [1, None, 1, 0]}
    assert both.table.notes["labels by machines below dataset.confidence"] == 1
    write(small, "validation-annotations-machine-imagelabels.csv")
    alone = open_images(small, "dataset.labels_by=machine", "dataset.confidence=0.4")
    assert labels(alone) == {first: [None, None, 1, 1], second: [1, None, None, None]}


def test_a_box_is_its_own_sides_in_their_order_and_turns_with_its_photo(small: Path) -> None:
    one = image_id("train", 0)
    photo = np.zeros((24, 40, 3), np.uint8)
    photo[6:12, 20:40] = 255  # what the box holds: white, but red at its upper right
    photo[6:8, 36:40] = (255, 0, 0)
    Image.fromarray(photo).save(small / f"train/{one}.png")
    (small / f"train/{one}.jpg").unlink()
    header = f"{HEADER},XMin,XMax,YMin,YMax,{FLAGS}"
    row = f"{one},xclick,/m/2,1,0.5,1.0,0.25,0.5,-1,-1,-1,-1,-1"
    write(small, "oidv6-train-annotations-bbox.csv", row, header=header)
    name = "train-images-boxable-with-rotation.csv"

    def seen() -> np.ndarray[Any, Any]:
        dataset = open_images(small, "dataset.what=boxes", "head=classification")
        dataset.image_size = None  # it keeps its shape
        split = dataset.split("train", ("label",))
        assert len(split) == 1
        sample = split.sample(0, ("image",), None)
        assert sample["label"] == 2
        return np.asarray(sample["image"]).transpose(1, 2, 0)

    box = photo[6:12, 20:40]
    assert (seen() == box).all()
    for degrees in (0, 90, 180, 270):
        write(small, name, f"{one},train,{degrees}.0", header="ImageID,Subset,Rotation")
        # numpy's quarter turns are counter-clockwise, as the publisher's degrees.
        assert (seen() == np.rot90(box, degrees // 90)).all()
    assert not (seen() == 255).all()


def test_a_rotation_that_is_none_is_refused_by_line(small: Path) -> None:
    write(small, "train-images-with-rotation.csv", "a,0.0", "b,45", header="ImageID,Rotation")
    with pytest.raises(UserError, match=r"rotation.csv, line 3: Rotation 45, expected 0, 90"):
        open_images(small)


def test_narratives_are_the_captions_of_their_photo(folder: Path) -> None:
    words = ("dataset.what=narratives", "head=contrastive", "model=two_tower")
    split = open_images(folder, *words).split("val", ("group",))
    assert len(split) == 20  # each of two narratives a photo
    assert [split.sample(index, ("text",), None)["text"] for index in (0, 1)] == [
        "0 seen",
        "0 told",
    ]
    with pytest.raises(UserError, match="is for val has labels"):
        open_images(folder, *words).split("val", ("labels",))


def test_splits_are_told_by_names_of_files_val_being_validation(folder: Path) -> None:
    dataset = open_images(folder)
    assert [len(dataset.split(name, ())) for name in ("train", "val", "test")] == [24, 10, 4]
    files = Files(folder)
    for name, split in {
        "v7/oidv7-val-annotations-point-labels.csv": "validation",
        "validation-annotations-bbox.csv": "validation",
        "oidv6-train-annotations-bbox.csv": "train",
        "2017_11/test/annotations-human.csv": "test",
        "image_ids_and_rotation.csv": "",
    }.items():
        assert files.split_of(folder / name) == split


@pytest.mark.parametrize("place", ["images/train", "train/data", "train_e", ".", "images"])
def test_photos_are_found_where_downloaders_put_them(small: Path, place: str) -> None:
    expected = labels(open_images(small))
    (small / place).mkdir(parents=True, exist_ok=True)
    for path in (small / "train").glob("*.jpg"):
        path.rename(small / place / path.name)
    assert labels(open_images(small)) == expected


def test_the_classes_are_those_of_the_file_that_is_named(folder: Path) -> None:
    boxable, everything = (
        open_images(folder, f"dataset.classes={which}") for which in ("boxable", "all")
    )
    assert list(boxable.names.labels) == list(reversed(list(everything.names.labels)))
    with pytest.raises(UserError, match=r"dataset.num_classes=601, but .* has 4"):
        open_images(folder, "dataset.num_classes=601")
    (folder / "oidv7-class-descriptions-boxable.csv").unlink()
    with pytest.raises(UserError, match=r"dataset.classes=boxable: .* holds no"):
        open_images(folder, "dataset.classes=boxable")


# The published files


def test_class_files_of_every_version_are_read(data: Path) -> None:
    real = data / "open_images"
    first = read_classes(real / "v1/dict.csv")  # quoted, no header
    assert next(iter(first.items())) == ("/g/1172hxxrk", "traditional sport")
    fifth = read_classes(real / "documented_rows/class-descriptions.csv")  # no header
    assert fifth["/m/02wvth"] == 'Fiat 500 "topolino"' and fifth["/m/025dyy"] == "Box"
    sixth = read_classes(real / "datumaro_fixture/v6/annotations/oidv6-class-descriptions.csv")
    assert list(sixth) == ["/m/0", "/m/1", "/m/2", "/m/3"]  # a header


def test_documented_rows_are_read_once_their_photos_are_here(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "open_images/documented_rows", tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*"):
        path.chmod(0o644)
    (tmp_path / "class-descriptions.csv").write_text("/m/04hgtk,Head\n/m/07j7r,Tree\n")
    draw(tmp_path / "validation/000026e7ee790996.jpg")
    words = ("dataset.num_classes=2", "dataset.train_split=[validation]")
    dataset = open_images(tmp_path, *words)
    assert labels(dataset) == {"000026e7ee790996": [0, 1]}
    boxes = open_images(tmp_path, *words, "dataset.what=boxes", "head=classification")
    split = boxes.split("train", ("label",))
    record = boxes.table[0]
    assert split.key(0) == "000026e7ee790996#2" and record.label == 1
    assert record.box == pytest.approx((0.071905, 0.206591, 0.145346, 0.391306), abs=1e-6)


def test_the_tree_of_another_program_is_read(data: Path) -> None:
    tree = data / "open_images/datumaro_fixture/v6"
    dataset = open_images(tree)
    assert labels(dataset) == {"a": [1, None, None, None], "b": [0, None, None, None]}
    assert labels(dataset, "test") == {"c": [None, 1, None, 1]}
    assert turns(Files(tree)) == {}  # a row of it lacks the last field
    assert Here(tree).find("d", "validation") == "images/validation/d.png"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("class-descriptions.csv", "/m/0,Box\nBox\n", "line 2: 'Box' is no class"),
        (
            "train-annotations-human-imagelabels.csv",
            "ImageID,Source,Label,Confidence\n",
            "no column 'LabelName'; did you mean 'LabelName'|no column 'LabelName'",
        ),
        (
            "train-annotations-human-imagelabels.csv",
            f"{HEADER}\na,b,/m/0,yes\n",
            "line 2: Confidence 'yes' is no number",
        ),
        ("train-annotations-human-imagelabels.csv", f"{HEADER}\na,b\n", "line 2: 2 fields"),
    ],
)
def test_malformed_tables_are_refused_by_file_and_line(
    small: Path, name: str, text: str, says: str
) -> None:
    (small / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}.*({says})"):
        open_images(small)


def test_a_table_that_is_missing_is_named(small: Path) -> None:
    with pytest.raises(UserError, match=r"what=boxes: .* holds no \*annotations-bbox.csv"):
        open_images(small, "dataset.what=boxes")
