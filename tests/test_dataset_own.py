"""A user's own data: tables, files of the hub, folders of pictures."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from mmnet.compose import load, make
from mmnet.data.multimodal import MultiModalDataset
from mmnet.data.records import Record
from mmnet.errors import UserError
from mmnet.interfaces import BadSample
from tests.official import cropped, draw
from tests.official import hf as hub


def dataset(name: str, folder: Path, *words: str) -> Any:
    some = "dataset.val_fraction=0.3"
    run = load(f"dataset={name}", "head=contrastive", "fusion=separate", some, *words)
    return make(run.dataset, data=folder)


def records(found: Any) -> list[Record]:
    return [found.table[row] for row in range(len(found.table))]


def keys(found: Any, name: str) -> list[str]:
    split = found.split(name, ())
    return [split.key(index) for index in range(len(split))]


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    """A table and three pictures beside it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    for number in range(3):
        draw(folder / f"{number}.png", number)
    return folder


# Tables


CSV = 'image_path,caption,label,split\n0.png,"a, b",cat,train\n1.png,b,dog,val\n2.png,,cat,train\n'
SAME = {
    "a.csv": CSV,
    "b.csv": "\ufeff" + CSV.replace(",", ";").replace("a; b", "a, b"),
    "c.tsv": CSV.replace(",", "\t").replace('"a\t b"', "a, b"),
    "d.csv": CSV.replace("image_path", "File Name")
    .replace("caption", "TEXT")
    .replace("\n", "\r\n"),
    "e.jsonl": '{"image": "0.png", "text": "a, b", "class": "cat", "split": "train"}\n'
    '{"class": "dog", "image": "./1.png", "text": ["b"], "split": "val"}\n'
    '{"image": "2.png", "text": null, "class": "cat", "split": "train"}',
    "f.json": '[{"path": "0.png", "sentence": "a, b", "category": "cat", "split": "train"},\n'
    '{"path": "1.png", "sentence": "b", "category": "dog", "split": "val"},'
    '{"path": "2.png", "category": "cat", "split": "train"}]\n',
}


@pytest.mark.parametrize("name", SAME)
def test_a_table_of_any_kind_says_the_same(name: str, tmp_path: Path) -> None:
    found = dataset("table", table(tmp_path, SAME[name], name))
    said = [(one.image, one.captions, one.label, one.split) for one in records(found)]
    assert said == [
        ("0.png", ("a, b",), 0, "train"),
        ("1.png", ("b",), 1, "val"),
        ("2.png", (), 0, "train"),
    ]
    assert found.names.classes == ["cat", "dog"] and found.table.notes == {"rows without a text": 1}
    assert keys(found, "val") == [f"{name}:{2 + (name[0] < 'e')}"]
    sample = found.split("train", ("label",)).sample(0, ("image", "text"), None)
    assert sample["text"] == "a, b" and sample["label"] == 0 and sample["image"].shape[0] == 3


def test_a_parquet_of_paths_is_a_table(tmp_path: Path) -> None:
    rows = [{"filepath": f"{i}.png", "title": f"t{i}", "label": i - 1} for i in range(3)]
    hub.write(table(tmp_path, "nothing", "read.me") / "rows.parquet", rows)
    found = dataset("table", tmp_path)
    assert [(one.image, one.label) for one in records(found)] == [
        ("0.png", None),  # -1: not published
        ("1.png", 0),
        ("2.png", 1),
    ]
    assert found.table.notes == {"rows without a label": 1}


def test_several_rows_or_a_list_are_the_captions_of_one_picture(tmp_path: Path) -> None:
    rows = [
        ("0.png", "a"),
        ("0.png", "b"),
        ("1.png", "c"),
        ("2.png", "d"),
        ("1.png", "e"),
        ("0.png", "a"),
    ]
    lines = (json.dumps({"image": image, "caption": text}) for image, text in rows)
    found = dataset("table", table(tmp_path, "\n".join(lines), "t.jsonl"))
    assert {one.image: one.captions for one in records(found)} == {
        "0.png": ("a", "b"),
        "1.png": ("c", "e"),
        "2.png": ("d",),
    }
    told = {"image": "0.png", "captions": ["a", " ", "b"]}
    found = dataset("table", table(tmp_path / "list", json.dumps(told), "t.jsonl"))
    assert records(found)[0].captions == ("a", "b")


def test_rows_of_one_picture_that_differ_in_their_label_stay_apart_on_one_side(
    tmp_path: Path,
) -> None:
    lines = [f"{i % 3}.png,says {i},{i % 2}" for i in range(12)]
    text = "\n".join(["image,sentence,label", *lines])
    found = dataset("table", table(tmp_path, text), "dataset.split_seed=1")
    sides = [{found.table[int(row)].image for row in found.rows(name)} for name in ("train", "val")]
    assert len(found.table) == 6 and not sides[0] & sides[1]


@pytest.mark.parametrize(
    "path", ["../0.png", "/etc/passwd", "a/../../0.png", "C:\\0.png", "..\\0.png"]
)
def test_a_path_that_leads_outside_is_refused(path: str, tmp_path: Path) -> None:
    folder = table(tmp_path / "own", f"image,text\n0.png,a\n{path},b\n")
    with pytest.raises(UserError, match=r"table.csv, line 3: .* leads out of .*dataset.images"):
        dataset("table", folder)


def test_an_absolute_path_within_the_folder_is_one_of_it(tmp_path: Path) -> None:
    folder = table(tmp_path, f"image,text\n{tmp_path}/0.png,a\n")
    assert records(dataset("table", folder))[0].image == "0.png"


def test_pictures_are_found_in_the_usual_folders_and_where_a_setting_says(tmp_path: Path) -> None:
    folder = table(tmp_path, "image,text\n0.png,a\n1.png,b\n")
    (folder / "images").mkdir()
    for name in ("0.png", "1.png"):
        (folder / name).rename(folder / "images" / name)
    assert records(dataset("table", folder))[0].image == "images/0.png"
    (folder / "images").rename(folder / "elsewhere")
    found = dataset("table", folder)
    split = found.split("train" if len(found.rows("train")) else "val", ())
    with pytest.raises(BadSample, match="missing file"):
        split.sample(0, ("image",), None)
    found = dataset("table", folder, "dataset.images=elsewhere")
    assert records(found)[0].image == "elsewhere/0.png"
    with pytest.raises(UserError, match=r"dataset.images=nosuch: no folder"):
        dataset("table", folder, "dataset.images=nosuch")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", 'image,text\n0.png,a\n1.png,"b\n', "t.csv, line 3: unexpected end of data"),
        ("t.csv", "image,text\n0.png,a,b\n", "t.csv, line 2: 3 fields, expected 2"),
        ("t.csv", "", "t.csv: empty"),
        ("t.jsonl", '{"image": "0.png"}\n{"image": \n', "t.jsonl, line 2"),
        ("t.jsonl", '{"image": "0.png"}\n["0.png"]\n', r"t.jsonl, line 2: Expected `object`"),
        ("t.jsonl", "[" * 100_000, "t.jsonl"),
        ("t.parquet", "PAR1", "t.parquet"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        dataset("table", table(tmp_path, text, name))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    folder = table(tmp_path, CSV)
    with pytest.raises(UserError, match=r"dataset.caption=captoin: .* did you mean 'caption'"):
        dataset("table", folder, "dataset.caption=captoin")
    (folder / "table.csv").write_text("a,b\n0.png,c\n")
    with pytest.raises(UserError, match=r"there are a, b. Name them with dataset.image"):
        dataset("table", folder, f"dataset.root='{folder}'")
    named = dataset(
        "table", folder, f"dataset.root='{folder}'", "dataset.image=a", "dataset.caption=b"
    )
    assert records(named)[0].captions == ("c",)


def test_texts_alone_are_samples_of_text(tmp_path: Path) -> None:
    found = dataset("table", table(tmp_path, "text,label\none,1\n,2\ntwo,3\n"))
    assert [one.captions for one in records(found)] == [("one",), ("two",)]
    assert found.table.notes == {"rows without a text": 1}


def test_files_named_train_and_val_are_those(tmp_path: Path) -> None:
    table(tmp_path, "image,text\n0.png,a\n1.png,b\n", "train.csv")
    table(tmp_path, "image,text\n2.png,c\n", "validation.csv")
    found = dataset("table", tmp_path)
    assert (keys(found, "train"), keys(found, "val")) == (
        ["train.csv:2", "train.csv:3"],
        ["validation.csv:2"],
    )


def test_real_tables(data: Path, tmp_path: Path) -> None:
    notes = dataset(
        "table", data / "cxr_notes", "dataset.image=filename", "dataset.caption=clinical_notes"
    )
    assert len(notes.table) > 70 and records(notes)[0].image.startswith("images/")
    split = notes.split("train", ())
    assert split.sample(0, ("image", "text"), None)["text"]
    shutil.copy(data / "nlvr/dev/dev.json", tmp_path / "dev.json")  # JSON lines
    nlvr = dataset("table", tmp_path)
    assert len(nlvr.table) == 330 and nlvr.names.classes == ["false", "true"]


# Files of the hub


def test_parquet_of_the_hub_with_its_splits_in_a_column(data: Path) -> None:
    found = dataset("hf", data / "hf_parquet")
    assert len(found.table) == 30 and len(records(found)[0].captions) == 5
    assert found.folder.name == "flickr30k_schema"
    with pytest.raises(
        UserError, match=r"none of the splits .* is called train; it has test \(30\)"
    ):
        found.split("train", ())
    split = dataset("hf", data / "hf_parquet", "dataset.train_split=[test]").split("train", ())
    assert split.sample(0, ("image", "text"), None)["image"].dtype.is_floating_point is False


def test_names_of_classes_and_rows_without_pictures(tmp_path: Path) -> None:
    rows = [hub.row(i, tmp_path) for i in range(6)]
    rows[2]["image"] = None
    rows[3]["label"] = -1
    names = {"label": {"_type": "ClassLabel", "names": ["x", "y", "z"]}}
    hub.write(tmp_path / "test.parquet", rows, names)
    found = dataset("hf", tmp_path)
    assert found.names.classes == ["x", "y", "z"]
    assert [one.label for one in records(found)] == [0, 1, None, 1, 2]
    assert found.table.notes == {"rows without a picture": 1, "rows without a label": 1}
    assert found.picture(records(found)[2].image) == hub.picture(3, tmp_path)


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_as_datasets_saves_it(stream: bool, tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([hub.row(i, tmp_path) for i in range(5)])
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with new(str(tmp_path / name / "data-00000-of-00001.arrow"), rows.schema) as writer:
            writer.write_table(rows)
    found = dataset("hf", tmp_path)
    assert [len(keys(found, name)) for name in ("train", "val")] == [5, 5]
    assert found.picture(records(found)[1].image) == hub.picture(1, tmp_path)


def test_pictures_are_copied_again_when_the_cache_was_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMNET_CACHE", str(tmp_path / "cache"))
    hub.write(tmp_path / "data/a.parquet", [hub.row(i, tmp_path) for i in range(5)])
    found = dataset("hf", tmp_path / "data")
    place = records(found)[4].image
    shutil.rmtree(tmp_path / "cache")
    assert found.picture(place) == hub.picture(4, tmp_path)


def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    hub.write(tmp_path / "a.parquet", [hub.row(i, tmp_path) for i in range(5)])
    content = (tmp_path / "a.parquet").read_bytes()
    for damaged in (content[:-9], content[: len(content) // 2], b"PAR1", b""):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.parquet"):
            dataset("hf", tmp_path)


# Folders


def test_a_folder_is_a_class_and_splits_are_above_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            draw(tmp_path / split / name / f"{number}.JPG", number)
            draw(tmp_path / split / name / "more" / f"{number}.webp", number)
    (tmp_path / "train/cat/list.txt").write_text("no picture")
    draw(tmp_path / "train/alone.png")
    found = dataset("folder", tmp_path)
    assert found.names.classes == ["cat", "dog"]
    assert keys(found, "val")[0] == "val/cat/0.JPG" and len(keys(found, "train")) == 4
    assert [one.label for one in records(found)] == [0, 0, 1, 1] * 2
    assert found.table.notes == {
        "files that are no pictures": 1,
        "pictures in no class's folder": 1,
    }
    alone = dataset("folder", tmp_path / "val")
    assert len(keys(alone, "train")) + len(keys(alone, "val")) == 4


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_says_what_the_pictures_are(name: str, tmp_path: Path) -> None:
    text = "file_name,text\n0.png,zero\nsub/1.png,one\n"
    if name.endswith("jsonl"):
        text = '{"file_name": "0.png", "text": "zero"}\n{"file_name": "sub/1.png", "text": "one"}'
    for split in ("train", "test"):
        table(tmp_path / split, text, name)
    found = dataset("folder", tmp_path)
    assert [(one.image, one.captions) for one in records(found)] == [
        ("test/0.png", ("zero",)),
        ("test/sub/1.png", ("one",)),
        ("train/0.png", ("zero",)),
        ("train/sub/1.png", ("one",)),
    ]
    assert len(found.rows("test")) == 2
    assert len(found.rows("train")) + len(found.rows("val")) == 2


# A class of one's own


class Own(MultiModalDataset):
    """What a test says."""

    told: ClassVar[list[dict[str, Any]]] = []

    def samples(self) -> list[dict[str, Any]]:
        return self.told


def own(folder: Path, *told: dict[str, Any]) -> Own:
    folder.mkdir(exist_ok=True)
    draw(folder / "0.png")
    Own.told = list(told)
    return Own(
        root=None,
        on_bad_sample="skip",
        max_bad_fraction=0.1,
        data=folder,
        split_seed=0,
        val_fraction=0.3,
        image_size=16,
        augment=cropped(1, 0),
        num_classes=None,
        train_split=None,
        val_split=None,
    )


def test_a_class_of_ones_own_says_anything_of_a_sample(tmp_path: Path) -> None:
    found = own(
        tmp_path,
        {
            "image_path": "0.png",
            "caption": ["a", "b"],
            "label": "x",
            "labels": ["l"],
            "split": "train",
        },
        {"caption": "text alone", "label": "y", "value": 2, "split": "val"},
        {"label": "y"},
    )
    assert records(found) == [
        Record("0", "0.png", ("a", "b"), "train", "0.png", 0, (0,)),
        Record("1", None, ("text alone",), "val", "text alone", 1, value=2.0),
    ]
    assert found.table.notes == {"samples without a picture and a text": 1}
    assert (found.names.classes, found.names.labels) == (["x", "y"], ["l"])


def test_what_it_says_is_never_out_of_date(tmp_path: Path) -> None:
    assert records(own(tmp_path, {"caption": "a"}))[0].captions == ("a",)
    assert records(own(tmp_path, {"caption": "b"}))[0].captions == ("b",)


def test_what_it_may_not_say(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Own.samples, sample 0: no 'captoin' .* 'caption'"):
        own(tmp_path, {"captoin": "a"})
    with pytest.raises(UserError, match=r"sample 1: ../0.png leads out of"):
        own(tmp_path, {"caption": "a"}, {"image_path": "../0.png"})
