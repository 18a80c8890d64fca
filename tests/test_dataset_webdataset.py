"""webdataset shards: awkward ones, those of others, and what `prepare` writes."""

import gc
import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from mmnet.compose import load, make
from mmnet.data.records import Record
from mmnet.data.shard_format import Prepared, card_of, shard_name, write_card, write_shard
from mmnet.data.tar_index import index_path, write_index
from mmnet.errors import UserError
from mmnet.interfaces import BadSample, Names
from tests.official import webdataset as ours
from tests.official.webdataset import picture, write_tar


def dataset(folder: Path, *words: str) -> Any:
    some = "dataset.val_fraction=0.2"
    run = load("dataset=webdataset", "head=contrastive", "fusion=separate", some, *words)
    return make(run.dataset, data=folder)


def keys(found: Any, name: str = "train") -> list[str]:
    split = found.split(name, ())
    return [split.key(index) for index in range(len(split))]


def records(found: Any) -> dict[str, Record]:
    return {found.table.key(row): found.table[row] for row in range(len(found.table))}


def sample(found: Any, key: str, *targets: str, train: bool = False) -> Any:
    for name in ("train", "val"):
        split = found.split(name, targets)
        for index in range(len(split)):
            if split.key(index).endswith(key):
                rng = random.Random(0) if train else None
                return split.sample(index, ("image", "text"), rng)
    raise KeyError(key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of ours, so that an index may be written."""
    ours.make(tmp_path, tmp_path)
    return tmp_path


def copied(data: Path, pattern: str, folder: Path) -> Path:
    for path in sorted(data.glob(pattern)):
        shutil.copy(path, folder)
    return folder


def test_keys_with_dots_end_at_the_first_one_as_in_webdataset(data: Path, tmp_path: Path) -> None:
    found = dataset(copied(data, "webdataset_crafted/dotted_keys.tar", tmp_path))
    parts = ["a", "photo", "0001", "plain", "dir.with.dot/img"]
    assert list(records(found)) == [f"dotted_keys.tar/{part}" for part in parts]
    assert all(one.image and len(one.captions) == 1 for one in records(found).values())
    assert records(found)["dotted_keys.tar/photo"].captions[0].startswith("A kitchen")


def test_of_half_samples_what_is_there_is_used_and_what_is_not_is_counted(
    data: Path, tmp_path: Path
) -> None:
    folder = copied(data, "webdataset_crafted/missing_parts.tar", tmp_path)
    found = dataset(folder)
    assert found.table.notes == {
        "samples without a picture": 1,
        "samples without a text": 2,  # no file, and an empty one
        "samples with json that is malformed": 1,
    }
    assert len(found.table) == 6
    assert "text" not in sample(found, "000000000802")
    assert sample(found, "000000229358")["text"] == "caf� au lait"  # bytes that are no UTF-8
    with pytest.raises(BadSample, match="not a picture"):  # an empty file
        sample(found, "000000022192")
    both = dataset(folder, "dataset.needs=[image,text]")
    assert len(both.table) == 4
    texts = dataset(folder, "dataset.needs=[text]")
    assert sample(texts, "000000205401").keys() == {"text"}


def test_shards_of_the_test_suites_of_others(data: Path, tmp_path: Path) -> None:
    folder = copied(data, "webdataset_testdata/*", tmp_path)
    pictures = dataset(folder, "dataset.shards='clip_retrieval_image{1..2}.tar'")
    assert next(iter(records(pictures))) == "clip_retrieval_image1.tar/123_456"
    assert len(pictures.table) == 7 and not pictures.table.notes
    packed = dataset(folder, "dataset.shards=compressed.tar", "dataset.needs=[text]")
    assert [one.captions for one in records(packed).values()] == [
        ("hello\n",),
        ("world\n",),
        ("gzip\n",),
    ]
    digits = dataset(folder, "dataset.shards=[sample.tgz]", "dataset.num_classes=10")
    assert len(digits.table) == 90 and list(digits.names.classes) == [str(i) for i in range(10)]
    assert sample(digits, "sample.tgz/11", "label")["label"] == 6
    with pytest.raises(UserError, match=r"none is for train.*samples without a picture: 100"):
        dataset(folder, "dataset.shards=mpdata.tar").split("train", ())


def test_members_that_are_interleaved_are_whole_samples(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(6)], [f"{i}.txt" for i in range(6)]
    files = [
        (name, picture(1) if name.endswith("jpg") else b"text") for some in names for name in some
    ]
    write_tar(tmp_path / "a.tar", [*files, ("3.txt", b"another")])
    found = dataset(tmp_path)
    assert len(found.table) == 6
    assert all(one.image and one.captions == ("text",) for one in records(found).values())
    assert found.table.notes == {
        "members apart from the rest of their sample": 7,
        "members of a name that was there before": 1,
    }


def test_what_each_setting_reads(folder: Path) -> None:
    found = dataset(folder)
    assert found.table.notes == {"samples without a text": 9}
    one = records(found)["train-000000.tar/000005"]
    assert (one.captions, one.label, one.present, one.value) == (("caption 5",), 2, None, None)
    words = ("text=json.title", "label=json.kind", "labels=json.tags", "value=json.score")
    found = dataset(folder, *(f"dataset.{word}" for word in words))
    one = records(found)["train-000000.tar/000005"]
    assert (one.captions, one.label, one.present, one.value) == (("title 5",), 1, (0,), 2.5)
    assert found.names == Names(["0", "1"], ["a", "b", "c"])
    assert sample(found, "000007", "labels", "value")["labels"] == [1, 1, 1]
    assert len(keys(found)) + len(keys(found, "val")) == 60


def test_settings_that_name_nothing_there_is(folder: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.text=text: no sample .* did you mean 'txt'"):
        dataset(folder, "dataset.text=text")
    with pytest.raises(UserError, match=r"dataset.value=json.scoer: .*cls, jpg, json, txt"):
        dataset(folder, "dataset.value=json.scoer")
    with pytest.raises(UserError, match=r"no train-000002.tar; did you mean 'train-000001.tar'"):
        dataset(folder, "dataset.shards='train-{000000..000002}.tar'")
    with pytest.raises(UserError, match="streams are read with"):
        dataset(folder, "dataset.shards='pipe:cat train-000000.tar'")
    with pytest.raises(UserError, match=r"no sample of .* has a value, .*dataset.value says"):
        dataset(folder).split("train", ("value",))
    with pytest.raises(UserError, match=r"dataset.num_classes=2, but .* has 3: 0, 1, 2"):
        dataset(folder, "dataset.num_classes=2").split("train", ("label",))


def test_splits_are_named_by_shards_and_else_drawn(folder: Path) -> None:
    drawn = dataset(folder, "dataset.val_fraction=0.3")
    held = set(keys(drawn, "val"))
    assert 0 < len(held) < 40 and not held & set(keys(drawn))
    shutil.copy(folder / "train-000000.tar", folder / "z-train-000003.tar")
    more = dataset(folder, "dataset.val_fraction=0.3")
    assert held <= set(keys(more, "val"))  # a shard that is added moves none
    shutil.copy(folder / "train-000000.tar", folder / "validation-000000.tar")
    named = dataset(folder)
    assert set(keys(named, "val")) == {f"validation-000000.tar/{i:06d}" for i in range(20)}
    assert len(keys(named)) == 80
    only = dataset(folder, "dataset.train_split=[more]", "dataset.val_split=[train]")
    assert len(keys(only)) == 20 and len(keys(only, "val")) == 60
    with pytest.raises(UserError, match=r"dataset.val_split=vla: .* it has .*train"):
        dataset(folder, "dataset.val_split=[vla]").split("val", ())


def test_folders_of_train_and_val(folder: Path) -> None:
    for name, to in (("train-000000.tar", "train"), ("more-000000.tar", "val")):
        (folder / "set" / to).mkdir(parents=True)
        shutil.move(folder / name, folder / "set" / to / "00.tar")
    found = dataset(folder / "set")
    assert keys(found, "val")[0] == "val/00.tar/000040" and len(keys(found)) == 20


def test_a_shard_that_is_damaged_is_named(folder: Path) -> None:
    path = folder / "train-000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train-000001.tar: damaged or cut short at byte [\d,]+"):
        dataset(folder)


def test_a_corrupt_member_costs_exactly_its_sample(folder: Path) -> None:
    path = folder / "train-000000.tar"
    index = write_index(path, checksums=True)
    before = records(dataset(folder))
    place = before["train-000000.tar/000004"].image
    offset = int(place.split(":")[1])
    content = bytearray(path.read_bytes())
    content[offset + 300] ^= 4
    path.write_bytes(content)
    found = dataset(folder)
    assert records(found) == before and index.num_samples == 20
    bad = []
    for name in ("train", "val"):
        split = found.split(name, ())
        for number in range(len(split)):
            try:
                split.sample(number, ("image",), None)
            except BadSample as problem:
                bad.append((problem.key, problem.reason))
    said = "unreadable file: not the bytes of which the index has the checksum"
    assert bad == [("train-000000.tar/000004", said)]


# What prepare writes


RECORDS = [
    Record(
        "a/1.jpg", "", ("one", "eins"), "train", "g", 1, (0, 2), (1,), 0.5, (0.0, 0.0, 0.5, 1.0)
    ),
    Record("a/2.jpg", "", (), "train", "", None, None, None, None, None),
    Record("text", None, ("alone",), "train", "", 0, (), None, None, None),
]


def prepared(folder: Path) -> None:
    samples = [Prepared(one, None if one.image is None else picture(7, "PNG")) for one in RECORDS]
    write_shard(folder / shard_name("train", 0), samples, 0)
    write_shard(
        folder / shard_name("restval", 0),
        [Prepared(RECORDS[1]._replace(key="b", split="restval"), picture(8))],
        3,
    )
    val = [
        Prepared(one._replace(split="val", key=f"v{one.key}"), b"no picture") for one in RECORDS[:1]
    ]
    write_shard(folder / shard_name("val", 0), val, 4)
    names = Names(["cat", "dog"], ["x", "y", "z"], "m")
    shards = {"train-000000.tar": 3, "restval-000000.tar": 1, "val-000000.tar": 1}
    roles = {"train": ["train", "restval"], "val": ["val"]}
    card = card_of("coco", "abc", names, ("label",), float("nan"), roles, {"left out": 5}, shards)
    write_card(folder, card)


def test_what_was_prepared_is_read_as_it_was(tmp_path: Path) -> None:
    prepared(tmp_path)
    found = dataset(tmp_path)
    read = records(found)
    for one in RECORDS:
        place = read[one.key].image
        assert read[one.key] == one._replace(image=place)
        assert (place is None) == (one.image is None)
        if place:
            assert found.picture(place) == picture(7, "PNG")
    assert found.names == Names(["cat", "dog"], ["x", "y", "z"], "m")
    assert found.table.notes == {"left out": 5}
    assert sorted(keys(found)) == ["a/1.jpg", "a/2.jpg", "b", "text"] and keys(found, "val") == [
        "va/1.jpg"
    ]
    labels = sample(found, "text", "labels")["labels"]
    assert all(value != value for value in labels)  # NaN: nobody knows
    split = found.split("train", ("labels",))
    assert split.notes["train: samples without labels"] == 4 - len(split) > 0
    with pytest.raises(BadSample, match="not a picture"):
        sample(found, "va/1.jpg")


def test_the_same_samples_are_the_same_bytes_with_an_index_beside(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prepared(tmp_path / name)
    files = [{path.name: path for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0].keys() == files[1].keys() and len(files[0]) == 7
    for name, path in files[0].items():
        if not name.endswith(".index"):  # it holds when its shard was written
            assert path.read_bytes() == files[1][name].read_bytes()
    assert index_path(files[0]["val-000000.tar"]) == files[0]["val-000000.tar.index"]


def test_a_prepared_set_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path)
    (tmp_path / "restval-000000.tar").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"lacks restval-000000.tar, of dataset.json"):
        dataset(tmp_path)
    (tmp_path / "away").rename(tmp_path / "restval-000000.tar")
    shutil.copy(tmp_path / "val-000000.tar", tmp_path / "train-000000.tar")
    index_path(tmp_path / "train-000000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000000.tar: 1 samples, but dataset.json says 3"):
        dataset(tmp_path)
    told = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**told, "version": 9}))
    with pytest.raises(UserError, match=r"dataset.json: version 9, this mmnet reads version 1"):
        dataset(tmp_path)


def test_webdataset_itself_reads_what_was_prepared(tmp_path: Path) -> None:
    prepared(tmp_path)
    import webdataset as wds

    urls = [str(tmp_path / "train-000000.tar")]
    with warnings.catch_warnings(action="ignore"):  # it leaves its files open
        samples = list(wds.WebDataset(urls, shardshuffle=False))
        gc.collect()
    assert [one["__key__"] for one in samples] == ["000000000", "000000001", "000000002"]
    assert samples[0]["png"] == picture(7, "PNG")
    assert json.loads(samples[0]["json"])["captions"] == ["one", "eins"]
