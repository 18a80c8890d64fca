"""CC3M, its labelled subset and CC12M: 12,000 real rows, and what can go wrong."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from mmnet.data.conceptual import rows
from mmnet.dataset.cc3m import Cc3m
from mmnet.dataset.cc3m_labels import Cc3mLabels
from mmnet.dataset.cc12m import Cc12m
from mmnet.errors import UserError
from tests.official import cropped, draw
from tests.official.cc3m import md5


COMMON: dict[str, Any] = {
    "root": None,
    "image_size": 16,
    "augment": cropped(0.5, 0.5),
    "on_bad_sample": "skip",
    "max_bad_fraction": 0.01,
}
DRAWN: dict[str, Any] = COMMON | {"split_seed": 0, "val_fraction": 0.2}
NAME = "Image_Labels_Subset_Train_GCC-Labels-training.tsv"


def cc3m(data: Path) -> Cc3m:
    return Cc3m(**COMMON, train_split=["train"], val_split=["val"], data=data)


def labelled(data: Path, num_classes: int = 3) -> Cc3mLabels:
    return Cc3mLabels(**DRAWN, num_classes=num_classes, data=data)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


# The real rows


def test_all_real_rows_are_read_as_they_stand(data: Path) -> None:
    path = data / "cc3m/Validation_GCC-1.1.0-Validation.tsv"
    found = list(rows(path))
    expected = [line.split(b"\t") for line in path.read_bytes().split(b"\n")[:-1]]
    assert len(found) == len(expected) == 12_000
    assert [[row.caption.encode(), row.url.encode()] for row in found] == expected
    assert found[0].caption == "author : a life in photography -- in pictures"
    assert {row.labels for row in found} == {None}


def test_real_labels_are_told_apart(data: Path) -> None:
    found = list(rows(data / "cc3m" / NAME))
    assert len(found) == 6
    first = found[0].labels
    assert first is not None
    assert (first[0], first[-1], len(first)) == ("christmas tree", "graphics", 15)


def test_of_the_real_rows_those_with_a_picture_are_samples(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "cc3m"
    shutil.copytree(data / "cc3m", root, copy_function=shutil.copyfile)
    root.chmod(0o755)
    train = list(rows(root / "Train_GCC-training.tsv"))
    draw(root / "training" / f"{md5(train[1].url)}.jpg", 1)
    draw(root / "training/3.jpg", 1)
    for number in (0, 11_999):
        draw(root / f"val/{number:09d}.jpg", 1)
    found = cc3m(tmp_path)
    told = {name: found.split(name, ()) for name in ("train", "val")}
    # A folder is named in one way: one name that is no number, and numbers are none.
    assert [told["train"].key(i) for i in range(len(told["train"]))] == ["train/1"]
    assert [told["val"].key(i) for i in range(2)] == ["val/0", "val/11999"]
    assert told["val"].sample(0, ("text", "image"), None)["text"].startswith("author : a life in")
    assert found.table.notes == {"addresses without a picture": 5 - 1 + 12_000 - 2}


# Names of files and of pictures


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train_GCC-training.tsv", "Validation_GCC-1.1.0-Validation.tsv"),
        ("GCC-training.tsv", "GCC-1.1.0-Validation.tsv"),
        ("GCC-training.tsv?_ga=2.191230122.-1896153081", "Train%2FGCC-1.1.0-Validation.tsv?_g"),
    ],
)
@pytest.mark.parametrize("reversed_", [False, True])
def test_files_go_by_several_names_and_either_order_of_columns(
    tmp_path: Path, train: str, val: str, reversed_: bool
) -> None:
    fields = [("a cat", "http://a/1?x=1,2"), ('"a', "https://b/2.jpg"), ("£ 6,000", "http://c")]
    lines = ["\t".join(pair[:: -1 if reversed_ else 1]) for pair in fields]
    write(tmp_path / train, *lines)
    write(tmp_path / val, *lines[:2])
    for number in range(3):
        draw(tmp_path / f"images/train/{number}.jpg", number)
        draw(tmp_path / f"images/{md5(fields[number][1])}.png", number)
    found = cc3m(tmp_path)
    sets = [found.split(name, ()) for name in ("train", "val")]
    assert [len(split) for split in sets] == [3, 2]
    texts = [sets[0].sample(i, ("text",), None)["text"] for i in range(3)]
    assert texts == ["a cat", '"a', "£ 6,000"], "nothing is quoted"
    assert found.table[0].image == "images/train/0.jpg"
    assert str(found.table[3].image).endswith(".png")


def test_numbers_in_a_shared_folder_count_only_where_there_is_one_file(tmp_path: Path) -> None:
    write(tmp_path / "GCC-training.tsv", "a\thttp://a", "b\thttp://b")
    for number in range(2):
        draw(tmp_path / f"images/{number}.jpg", number)
    assert len(cc3m(tmp_path).split("train", ())) == 2
    write(tmp_path / "GCC-1.1.0-Validation.tsv", "c\thttp://c", "d\thttp://d")
    found = cc3m(tmp_path)
    assert (len(found.table), found.table.notes) == (0, {"addresses without a picture": 4})


def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("GCC-training.tsv", "Train_GCC-training.tsv"):
        write(tmp_path / name, "a\thttp://a")
    with pytest.raises(UserError, match=r"GCC-training\.tsv and Train_GCC-training\.tsv, of which"):
        cc3m(tmp_path)


def test_cc12m_has_its_columns_the_other_way_round(tmp_path: Path) -> None:
    write(tmp_path / "cc12m.tsv", *(f"http://a/{i}\t<PERSON> No. {i}" for i in range(60)))
    for number in range(60):
        draw(tmp_path / f"images/{number:08d}.jpg", number)
    found = Cc12m(**DRAWN, data=tmp_path)
    train, val = (found.split(name, ()) for name in ("train", "val"))
    assert len(train) + len(val) == 60 and 4 < len(val) < 24
    number = int(train.key(0))
    assert train.sample(0, ("text",), None)["text"] == f"<PERSON> No. {number}"


# What is malformed


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a\tb", "c\td"], r"cannot be told by the first 100 rows: 0 addresses in the first, 0"),
        (["http://a\thttp://b"], r"1 addresses in the first, 1 in the second"),
        (["a\thttp://a", "no tab"], r"training\.tsv, line 2: 'no tab', expected <caption><TAB>"),
        (["http://a\ta", "http://b\tb\tc"], r"line 2: .*expected <url><TAB><caption>"),
        (["caption\turl", "a\thttp://a"], r"line 1: 'caption\\turl', expected"),
        (["a\thttp://a", "", "b\thttp://b"], r"line 2: '', expected"),
        ([""], r"cannot be told"),
    ],
)
def test_malformed_files_are_named_with_the_line(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    write(tmp_path / "GCC-training.tsv", *lines)
    with pytest.raises(UserError, match=said):
        cc3m(tmp_path)


# Labels


def label_rows(to: Path) -> list[str]:
    """Five rows: b is in all of the first three, a in two, one has a comma, one has none."""
    told = [
        "x\thttp://a/0\ta,b\t/m/1,/m/2\t0.9,0.8",
        "x\thttp://a/1\tb,c\t/m/2,/m/3\t0.9,0.8",
        "x\thttp://a/2\tb,a,d\t/m/2,/m/1,/m/4\t0.9,0.8,0.7",
        "x\thttp://a/3\tone, two,b\t/m/5,/m/2\t0.9,0.8",
        "x\thttp://a/4\t\t\t",
    ]
    write(to / NAME, *told)
    for number in range(5):
        draw(to / f"training/{number}.jpg", number)
    return told


def test_labels_are_those_that_most_pictures_have(tmp_path: Path) -> None:
    label_rows(tmp_path)
    found = labelled(tmp_path)
    assert list(found.names.labels) == ["b", "a", "c"]
    assert [found.table[row].present for row in range(len(found.table))] == [(0, 1), (0, 2), (0, 1)]
    assert found.table.notes == {"rows without labels": 2}
    both = [labelled(tmp_path).split(name, ("labels",)) for name in ("train",)]
    held = [both[0].sample(i, (), None)["labels"] for i in range(len(both[0]))]
    assert all(sum(labels) in (1, 2) and len(labels) == 3 for labels in held)
    with pytest.raises(UserError, match=r"num_classes=9, but there are 4 labels of the"):
        labelled(tmp_path, 9)


def test_numbers_are_not_those_of_the_labelled_rows_where_the_training_file_is(
    tmp_path: Path,
) -> None:
    told = label_rows(tmp_path)
    write(tmp_path / "GCC-training.tsv", *("\t".join(row.split("\t")[:2]) for row in told[::-1]))
    assert len(labelled(tmp_path).table) == 0
    assert len(cc3m(tmp_path).table) == 5
