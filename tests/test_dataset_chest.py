"""Chest X-rays with reports (OpenI) and with clinical notes (the COVID-19 collection)."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmnet.compose import load, make
from mmnet.errors import UserError
from tests.official import draw, official


LABEL = ("label",)


def built(name: str, folder: Path, *words: str) -> Any:
    sides = () if "model=text_only" in words else ("dataset.image_size=32",)
    run = load(f"dataset={name}", *sides, *words)
    return make(run.dataset, data=folder)


@pytest.fixture
def openi(tmp_path: Path, data: Path) -> Path:
    official("openi").make(tmp_path, data)
    return tmp_path


def test_real_reports_alone_are_texts_that_are_normal_or_not(data: Path) -> None:
    dataset = built("openi", data / "openi_reports", "model=text_only")
    table = dataset.table
    # 45 of the 400 have no findings.
    assert len(table) == 355 and table.notes == {"reports without section=findings": 45}
    files = sorted((data / "openi_reports").rglob("*.xml"))
    major = [re.findall(r"<major>(.*?)</major>", path.read_text("utf-8")) for path in files]
    assert sum(one == ["normal"] for one in major) == 153
    everything = built("openi", data / "openi_reports", "model=text_only", "dataset.section=all")
    labels = Counter(everything.table[row].label for row in range(len(everything.table)))
    assert labels == {0: 152, 1: 236, None: 11}  # one of the 400 says nothing at all
    assert everything.table.notes == {"reports without section=all": 1}
    report = next(everything.table[r] for r in range(399) if everything.table.key(r) == "207")
    assert report.label == 0 and report.captions[0].startswith("None.\nXXXX, right sided rib pain")
    splits = [everything.split(name, LABEL) for name in ("train", "val")]
    assert sum(map(len, splits)) == 388
    notes = [split.notes for split in splits]
    left = [notes[i].get(f"{('train', 'val')[i]}: samples without label", 0) for i in (0, 1)]
    assert sum(left) == 11


def test_the_pictures_of_a_report_share_its_text_and_its_side(openi: Path) -> None:
    dataset = built("openi", openi, "dataset.val_fraction=0.3")
    table = dataset.table
    assert table.notes["reports without section=findings"] == 4
    groups = [{table[int(row)].group for row in dataset.rows(name)} for name in ("train", "val")]
    assert not groups[0] & groups[1]
    record = table[0]
    assert record.image == f"NLMCXR_png/{record.key}.png" and record.key.startswith("CXR")
    (openi / record.image).unlink()
    again = built("openi", openi, "dataset.val_fraction=0.3").table
    assert again.notes["pictures that are not here"] == 1 and len(again) == len(table) - 1


def test_a_malformed_report_is_refused_by_file_and_line(openi: Path) -> None:
    path = min((openi / "ecgen-radiology").iterdir())
    text = path.read_text("utf-8")
    path.write_text(text[: len(text) // 2], "utf-8")
    with pytest.raises(UserError, match=rf"{path.name}: .* line \d+"):
        built("openi", openi)
    path.write_text("<?xml version='1.0'?><eCitation/><b/>")
    with pytest.raises(UserError, match=f"{path.name}: junk"):
        built("openi", openi)


@pytest.fixture
def cxr(tmp_path: Path, data: Path) -> Path:
    official("cxr").make(tmp_path, data)
    return tmp_path


def test_real_pictures_come_with_notes_and_findings(data: Path) -> None:
    dataset = built("cxr", data / "cxr_notes", "dataset.val_fraction=0.3")
    assert len(dataset.table) == 80 and not dataset.table.notes
    assert dataset.names.classes[:4] == ["ARDS", "Bacterial", "COVID-19", "COVID-19, ARDS"]
    first = dataset.table[0]
    assert first.captions[0].startswith("Small consolidation in right upper lobe, and"[:38])
    assert dataset.names.classes[first.label] == "COVID-19"
    splits = [dataset.split(name, LABEL) for name in ("train", "val")]
    assert sum(map(len, splits)) == 49  # the finding of 31 is still "todo"
    for split in splits:
        for index in range(len(split)):  # RGB, L and RGBA
            assert split.sample(index, ("image",), None)["image"].shape == (3, 32, 32)
    patients = [{dataset.table[int(r)].group for r in dataset.rows(n)} for n in ("train", "val")]
    assert not patients[0] & patients[1]


def test_what_is_no_picture_or_not_here_is_counted(cxr: Path) -> None:
    path = cxr / "metadata.csv"
    text = path.read_text("utf-8")
    name = text.split("\n")[1].split(",images,")[1].split(",")[0]
    (cxr / "images" / name).unlink()
    other = text.split("\n")[2].split(",images,")[1].split(",")[0]
    path.write_text(text.replace(f",images,{other}", ",volumes,a.nii.gz"), "utf-8")
    notes = built("cxr", cxr).table.notes
    assert notes == {"pictures that are not here": 1, "files that are no pictures": 1}


def test_a_malformed_table_is_refused_by_line(cxr: Path) -> None:
    with (cxr / "metadata.csv").open("a") as file:
        file.write("1,2,3\n")
    with pytest.raises(UserError, match=r"metadata.csv, line \d+: 3 fields, expected 29"):
        built("cxr", cxr)


def test_a_table_of_something_else_is_none(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\nimages/a.png,b\n")
    draw(tmp_path / "images/a.png")
    with pytest.raises(UserError, match="found none"):
        built("cxr", tmp_path)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(UserError, match="lacks images"):
        built("cxr", tmp_path)
