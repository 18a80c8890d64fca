"""Flickr30k in its layouts: the real captions of a sixth of its photos, and what can go wrong."""

import csv
import json
import multiprocessing
import os
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmnet.data.archive import Archive
from mmnet.dataset.flickr30k import Flickr30k
from mmnet.errors import UserError
from mmnet.interfaces import BadSample
from tests.jobs import fingerprint
from tests.official import cropped, draw


BOTH = ("image", "text")


def flickr(data: Path, **changes: Any) -> Flickr30k:
    settings: dict[str, Any] = {
        "root": None,
        "splits": "karpathy",
        "train_split": ["train"],
        "val_split": ["val"],
        "drop_unrelated": True,
        "image_size": 16,
        "augment": cropped(0.5, 0.5),
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return Flickr30k(**settings | changes, data=data)


@pytest.fixture
def real(data: Path) -> Path:
    return data / "flickr30k_text"


def kaggle(real: Path, to: Path, *, nested: bool) -> Path:
    """Kaggle's layout of the real captions, with Karpathy's lists."""
    place = to / "flickr30k_images" if nested else to
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(real / "flickr30k_images/results.csv", place)
    shutil.copytree(real / "splits_karpathy", to / "lists")
    draw(place / "flickr30k_images" / "1000092795.jpg", 1)
    return to


# The real captions


def test_the_original_layout_and_the_two_ways_to_divide_it(real: Path) -> None:
    karpathy = flickr(real)
    train, val = (karpathy.split(name, ()) for name in ("train", "val"))
    assert (len(train), len(val)) == (3000, 1014)
    assert train.key(0) == "1000092795.jpg"
    assert train.sample(0, ("text",), None)["text"].startswith("Two young guys with shaggy hair")
    assert len(val.texts(0)) == 5
    entities = flickr(real, splits="entities", val_split=["val", "test"])
    photos = len((real / "results_20130124.token").read_text("utf-8").split("\n")) // 5
    names = {
        name: {split.key(i) for i in range(len(split))}
        for name, split in (
            ("karpathy train", train),
            ("entities train", entities.split("train", ())),
            ("entities val", entities.split("val", ())),
        )
    }
    assert len(names["entities train"]) + len(names["entities val"]) == photos == 4015
    assert names["karpathy train"] & names["entities val"], "they would leak into each other"
    assert not names["entities train"] & names["entities val"]


def test_captions_that_are_not_of_their_photo_are_left_out_and_counted(real: Path) -> None:
    with_all = flickr(real, splits="entities", drop_unrelated=False)
    without = flickr(real, splits="entities")
    said = "captions left out as unrelated to their photo"
    captions = [len(one.split("train", ("group",))) for one in (with_all, without)]
    assert said not in with_all.table.notes
    assert without.table.notes[said] > 0

    def told(dataset: Flickr30k) -> list[str]:
        rows = range(len(dataset.table))
        [row] = [row for row in rows if dataset.table.key(row) == "100759042.jpg"]
        return list(dataset.table.captions(row))

    assert captions[0] == captions[1]
    assert told(with_all)[:4] == told(without)
    assert told(with_all)[4] == "You know i am looking like Justin Bieber."


def test_kaggles_table_says_the_same_and_its_broken_row_is_repaired(
    real: Path, tmp_path: Path
) -> None:
    original = flickr(real, drop_unrelated=False)
    repaired = flickr(kaggle(real, tmp_path, nested=True))
    assert repaired.table.notes["rows repaired: no bar between the number and the caption"] == 1
    assert len(original.table) == len(repaired.table) == 4014
    for row in range(len(original.table)):
        assert original.table[row] == repaired.table[row]
        if original.table.key(row) == "2199200615.jpg":
            assert repaired.table.captions(row)[4] == "A dog runs across the grass ."
    assert repaired.split("train", ()).sample(0, BOTH, None)["image"].shape == (3, 16, 16)


def test_kaggles_folder_may_be_the_root_itself(real: Path, tmp_path: Path) -> None:
    found = flickr(kaggle(real, tmp_path, nested=False))
    assert len(found.split("val", ())) == 1014
    assert found.split("train", ()).sample(0, BOTH, None)["image"].shape == (3, 16, 16)


def test_another_table_of_that_name_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("name,score\na,1\n")
    with pytest.raises(UserError, match=r"found none .*is none by what is in it"):
        flickr(tmp_path)


# The hub's layout


def hub(to: Path, *, zipped: bool = False, method: int = zipfile.ZIP_STORED) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    with (to / "flickr_annotations_30k.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["raw", "sentids", "split", "filename", "img_id"])
        for number, split in enumerate(("train", "train", "val", "test")):
            raw = json.dumps([f'a "photo", number {number}', "é again"])
            writer.writerow([raw, "[0, 1]", split, f"{number}.jpg", number])
    for number in range(4):
        draw(to / "flickr30k-images" / f"{number}.jpg", number)
    if zipped:
        with zipfile.ZipFile(to / "flickr30k-images.zip", "w", method) as archive:
            archive.writestr("__MACOSX/flickr30k-images/._1.jpg", b"\0\5\26\7")
            for path in sorted((to / "flickr30k-images").iterdir()):
                archive.write(path, f"flickr30k-images/{path.name}")
        shutil.rmtree(to / "flickr30k-images")
    return to


def test_the_hubs_table_has_karpathys_splits_in_a_column(tmp_path: Path) -> None:
    found = flickr(hub(tmp_path), val_split=["val", "test"])
    train, val = found.split("train", ()), found.split("val", ("group",))
    assert [train.key(i) for i in range(2)] == ["0.jpg", "1.jpg"]
    assert [val.sample(i, ("text",), None)["text"] for i in (0, 1)] == [
        'a "photo", number 2',
        "é again",
    ]
    said = r"splits=entities: .*no such splits.*it has those of dataset\.splits=karpathy"
    with pytest.raises(UserError, match=said):
        flickr(tmp_path, splits="entities")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_photos_are_read_from_the_archive_as_they_are_beside_it(
    tmp_path: Path, method: int
) -> None:
    folders = [hub(tmp_path / "a"), hub(tmp_path / "b", zipped=True, method=method)]
    splits = [flickr(folder).split("train", ()) for folder in folders]
    for i in range(2):
        plain, zipped = (fingerprint(split.sample(i, ("image",), None)) for split in splits)
        assert plain == zipped
    assert not list(folders[1].glob("*.jpg")), "nothing is unpacked"


def damaged(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        [info] = [one for one in archive.infolist() if one.filename.endswith("/1.jpg")]
    content = bytearray(path.read_bytes())
    content[info.header_offset + 200] ^= 1
    path.write_bytes(content)


def test_damage_within_the_archive_costs_one_photo(tmp_path: Path) -> None:
    hub(tmp_path, zipped=True)
    damaged(tmp_path / "flickr30k-images.zip")
    split = flickr(tmp_path).split("train", ())
    assert split.sample(0, BOTH, None)["image"].shape == (3, 16, 16)
    with pytest.raises(BadSample, match=r"1\.jpg: unreadable file: damaged in the archive"):
        split.sample(1, BOTH, None)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    hub(tmp_path, zipped=True)
    (tmp_path / "flickr30k-images.zip").write_bytes(b"not one")
    with pytest.raises(UserError, match=r"flickr30k-images\.zip: File is not a zip file"):
        flickr(tmp_path)


def _read_all(archive: Archive, names: list[str], seed: int) -> None:
    order = random.Random(seed).sample(names * 20, len(names) * 20)
    good = all(archive.read(name) == name.encode() * 999 for name in order)
    os._exit(0 if good else 1)


def test_forked_workers_read_an_archive_at_once(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(50)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, name * 999)
    archive = Archive(tmp_path / "a.zip")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_read_all, args=(archive, names, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with pytest.raises(FileNotFoundError):
        archive.read("nothing")


# Splits


def small(to: Path, *names: str, **lists: str) -> Path:
    """The original layout of a few photos, with lists by path."""
    to.mkdir(exist_ok=True)
    told = [f"{name}#{n}\tphoto {name} said {n}" for name in names for n in range(2)]
    (to / "results_20130124.token").write_text("\n".join(told))
    for path, text in lists.items():
        (to / f"{path}.txt").write_text(text)
    return to


def test_lists_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    lists = {"train": "1.jpg\n2.jpg\n", "flickr_val": "3.jpg", "trainImages": "3\n", "test": "1\n"}
    root = small(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg", **lists)
    karpathy = flickr(root)
    assert [len(karpathy.split(name, ())) for name in ("train", "val")] == [2, 1]
    assert karpathy.table.notes == {"photos in none of the karpathy splits": 1}
    entities = flickr(root, splits="entities", val_split=["test"])
    assert [entities.split(name, ()).key(0) for name in ("train", "val")] == ["3.jpg", "1.jpg"]
    with pytest.raises(UserError, match=r"val_split=val: .* it has test \(1\), train \(1\)"):
        flickr(root, splits="entities").split("val", ())


def test_a_family_that_is_not_there_is_not_made_up_from_the_other(tmp_path: Path) -> None:
    root = small(tmp_path, "1.jpg", "2.jpg", train="1\n", val="2\n")
    with pytest.raises(UserError, match=r"splits=karpathy: .*dataset\.splits=entities"):
        flickr(root)
    with pytest.raises(UserError, match=r"splits=entities: .* holds no such splits"):
        flickr(small(tmp_path / "bare", "1.jpg"), splits="entities")


def test_a_list_with_names_of_both_kinds_and_a_photo_in_two_splits_are_refused(
    tmp_path: Path,
) -> None:
    root = small(tmp_path / "a", "1.jpg", "2.jpg", train="1.jpg\n2\n", val="2.jpg")
    with pytest.raises(UserError, match=r"train\.txt, line 2: '2', but the names above"):
        flickr(root)
    root = small(tmp_path / "b", "1.jpg", "2.jpg", train="1.jpg\n2.jpg\n", val="2.jpg")
    with pytest.raises(UserError, match=r"val\.txt: 2\.jpg is for val, and for train elsewhere"):
        flickr(root)


def test_karpathys_own_file_divides_and_is_enough(tmp_path: Path) -> None:
    photos = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": f"said of {n}"}]}
        for n, split in enumerate(("train", "train", "val", "test"))
    ]
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": photos}))
    alone = flickr(tmp_path, val_split=["val", "test"])
    counts = [len(alone.split(name, ())) for name in ("train", "val")]
    assert counts == [2, 2]
    small(tmp_path, "0.jpg", "2.jpg")
    beside = flickr(tmp_path)
    assert [beside.split(name, ()).key(0) for name in ("train", "val")] == ["0.jpg", "2.jpg"]
    assert beside.split("val", ()).texts(0)[0] == "photo 2.jpg said 0"
    assert beside.table.notes == {"photos of the splits without captions": 2}


# Malformed files


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("results_20130124.token", "1.jpg#0\ta\n1.jpg b\n", r"token, line 2: '1\.jpg b', expected"),
        ("results_20130124.token", "1.jpg#0\ta\n1.jpg#0\tb\n", r"line 2: caption 0 of 1\.jpg is"),
        ("results_20130124.token", "../1.jpg#0\ta\n", r"line 1: '\.\./1\.jpg' is no file's bare"),
        (
            "results.csv",
            "image_name| comment_number| comment\n1.jpg| 0| a\n1.jpg| two\n",
            r"results\.csv, line 3: '1\.jpg\| two', expected <photo>\| <number>\| <caption>",
        ),
        (
            "flickr_annotations_30k.csv",
            'raw,sentids,split,filename,img_id\n"[""a""]",[0],train,1.jpg,1\nx,[0],val,2.jpg,2\n',
            r"30k\.csv, line 3: raw is no list of captions",
        ),
        (
            "flickr_annotations_30k.csv",
            'raw,sentids,split,filename,img_id\n"[""a""]",[0],tarin,1.jpg,1\n',
            r"line 2: split 'tarin', expected train, val or test",
        ),
        ("flickr_annotations_30k.csv", "raw,split\n", r"line 1: the header has no column 'filen"),
    ],
)
def test_malformed_files_are_named_with_the_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "train.txt").write_text("1.jpg\n")
    with pytest.raises(UserError, match=said):
        flickr(tmp_path)


def test_unrelated_captions_that_say_something_else_are_refused(tmp_path: Path) -> None:
    root = small(tmp_path, "1.jpg", train="1.jpg\n")
    (root / "UNRELATED_CAPTIONS").write_text("# header\n1 1\n1 zero\n")
    with pytest.raises(UserError, match=r"UNRELATED_CAPTIONS, line 3: '1 zero', expected"):
        flickr(root)


def test_a_caption_is_drawn_in_training_and_each_counts_in_evaluation(real: Path) -> None:
    train = flickr(real).split("train", ())
    drawn = Counter(train.sample(0, ("text",), random.Random(s))["text"] for s in range(60))
    assert len(drawn) == 5
    assert len(flickr(real, drop_unrelated=False).split("val", ("group",))) == 1014 * 5
    with pytest.raises(BadSample, match=r"1000092795\.jpg: missing file"):
        train.sample(0, BOTH, None)
