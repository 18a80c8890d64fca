"""ImageNet-21K: six orders of its classes, folders and tars, MIIL's splits."""

import shutil
import tarfile
from pathlib import Path

import pytest

from mmnet.compose import load, make
from mmnet.dataset.imagenet21k import ORDERS, ImageNet21k
from mmnet.errors import UserError
from tests.official import official
from tests.official.imagenet21k import CLASSES, pack


LABEL = ("label",)
SIZES = {
    "fall11": 21841,
    "goog": 21843,
    "ms": 21842,
    "miil": 11221,
    "miil_w21": 10450,
    "12k": 11821,
}


def imagenet(folder: Path, *words: str) -> ImageNet21k:
    run = load("dataset=imagenet21k", "model=image_only", "dataset.image_size=32", *words)
    found = make(run.dataset, data=folder)
    assert isinstance(found, ImageNet21k)
    return found


def ordered(folder: Path, *words: str) -> ImageNet21k:
    few = ("dataset.classes=order.txt", "dataset.num_classes=3", "dataset.val_fraction=0.3")
    return imagenet(folder, *few, *words)


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    official("imagenet21k").make_drawn(tmp_path, data)
    return tmp_path


def labels(dataset: ImageNet21k, *splits: str) -> dict[str, int]:
    """Of each picture by its name."""
    found = {}
    for split in (dataset.split(name, LABEL) for name in splits or ("train", "val")):
        for index in range(len(split)):
            sample = split.sample(index, ("image",), None)
            found[split.key(index).rpartition("/")[2]] = sample["label"]
            assert sample["image"].shape == (3, 32, 32)
    return found


@pytest.mark.parametrize("order", ORDERS)
def test_the_class_is_the_place_in_the_order_that_is_named(
    folder: Path, data: Path, order: str
) -> None:
    size = SIZES[order]
    dataset = imagenet(folder, f"dataset.classes={order}", f"dataset.num_classes={size}")
    published = data / "imagenet21k" / f"{ORDERS[order]}.txt"
    wnids = published.read_text().split()
    assert len(wnids) == size == len(dataset.names.classes) == len(set(dataset.names.classes))
    here = {*CLASSES, "n04004475"} & set(wnids)
    found = labels(dataset)
    assert {name.partition("_")[0]: label for name, label in found.items()} == {
        wnid: wnids.index(wnid) for wnid in here
    }


def test_synsets_outside_the_order_and_those_of_imagenet_1k_are_counted(folder: Path) -> None:
    dataset = ordered(folder)
    assert dataset.names.classes == ["dog", "benthos", "tench"]
    assert dataset.table.notes == {
        "pictures of synsets that are not in classes=order.txt": 12,
        "pictures of synsets of ImageNet-1K": 12,
    }
    found = labels(dataset)
    assert len(found) == 36
    assert all(found[name] == CLASSES.index(name.partition("_")[0]) for name in found)


def test_the_publishers_archive_of_tars_is_read_in_place(folder: Path, tmp_path: Path) -> None:
    expected = labels(ordered(folder))
    for wnid in (CLASSES[0], CLASSES[2], "n04004475"):
        pack(folder / wnid)
    (folder / "n00006024.tar").touch()  # a synset without a picture
    assert labels(ordered(folder)) == expected
    whole = folder / "whole"
    whole.mkdir()
    with tarfile.open(whole / "fall11_whole.tar", "w") as tar:
        for path in sorted(folder.glob("n*.tar")):
            tar.add(path, path.name)
    for name in ("order.txt", "other.txt"):
        shutil.copy(folder / name, whole)
    assert labels(ordered(whole, f"dataset.root='{whole}'")) == expected
    packed = whole / "fall11_whole.tar.gz"
    packed.write_bytes(b"\x1f\x8b")
    (whole / "fall11_whole.tar").unlink()
    with pytest.raises(UserError, match=r"is compressed.*gunzip"):
        ordered(whole, f"dataset.root='{whole}'")


def test_miils_folders_are_its_splits(tmp_path: Path, data: Path) -> None:
    official("imagenet21k").make(tmp_path, data)
    dataset = ordered(tmp_path)
    assert len(dataset.split("train", LABEL)) == 24
    assert labels(dataset, "val") == {
        f"{wnid}_{picture}val.JPEG": number
        for number, wnid in enumerate(CLASSES)
        for picture in range(4)
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n00005787\ndog\n", "order.txt, line 2: 'dog' is no synset"),
        ("n00005787\nn00005787\n", "line 2: 'n00005787' stands on line 1 already"),
    ],
)
def test_a_malformed_order_is_refused_by_line(folder: Path, text: str, says: str) -> None:
    (folder / "order.txt").write_text(text)
    with pytest.raises(UserError, match=says):
        ordered(folder)


def test_an_order_that_is_not_known_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.classes=mill .* did you mean 'miil'"):
        imagenet(folder, "dataset.classes=mill")
    with pytest.raises(UserError, match=r"dataset.num_classes=21841, but .* has 11221"):
        imagenet(folder, "dataset.classes=miil")
