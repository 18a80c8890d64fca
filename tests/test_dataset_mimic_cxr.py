"""MIMIC-CXR: reports beside their studies, four-valued findings, splits; contents made up."""

import gzip
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmnet.compose import load, make
from mmnet.data.reports import sections, told
from mmnet.dataset.mimic_cxr import FINDINGS, MimicCxr
from mmnet.errors import UserError
from tests.official import official


LABELS = ("labels",)


def mimic(folder: Path, *words: str) -> MimicCxr:
    run = load("dataset=mimic_cxr", "head=multilabel", "dataset.image_size=32", *words)
    found = make(run.dataset, data=folder)
    assert isinstance(found, MimicCxr)
    return found


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    official("mimic_cxr").make(tmp_path, data)
    return tmp_path


def table(folder: Path, name: str) -> Path:
    return folder / f"mimic-cxr-2.0.0-{name}.csv.gz"


def write(path: Path, text: str) -> None:
    with gzip.open(path, "wt") as file:
        file.write(text)


def read(path: Path) -> str:
    with gzip.open(path, "rt") as file:
        return file.read()


def test_a_picture_comes_with_the_report_beside_its_study(folder: Path) -> None:
    dataset = mimic(folder)
    split = dataset.split("train", ())
    assert (
        split.sample(0, ("text",), None)["text"] == "Heart number 0 is seen. The lungs are clear."
    )
    record = dataset.table[0]
    assert record.image == f"files/p10/p10000032/s50000000/{record.key}.jpg"
    assert split.sample(0, ("image",), None)["image"].shape == (3, 32, 32)


def test_the_published_splits_are_train_validate_and_test(folder: Path) -> None:
    dataset = mimic(folder, "dataset.views=null")
    assert [len(dataset.split(name, ())) for name in ("train", "val", "test")] == [40, 16, 8]
    with pytest.raises(UserError, match=r"val_split=val: .* it has train \(30\), validate \(12\)"):
        mimic(folder, "dataset.val_split=[val]").split("val", ())


def test_views_choose_pictures_and_the_others_are_counted(folder: Path) -> None:
    dataset = mimic(folder)  # PA and AP
    assert len(dataset.table) == 48 and dataset.table.notes == {"pictures of other views": 16}
    assert len(mimic(folder, "dataset.views=[PA]").table) == 32


def test_four_values_become_yes_no_or_nobody_knows(folder: Path) -> None:
    row = ["1.0", "0.0", "-1.0", ""] + [""] * 10
    header = f"subject_id,study_id,{','.join(FINDINGS)}\n"
    write(table(folder, "chexpert"), f"{header}10000032,50000000,{','.join(row)}\n")

    def seen(*words: str) -> list[Any]:
        split = mimic(folder, *words).split("train", LABELS)
        assert len(split) == 2  # of one study; the others are without labels
        assert split.notes["train: samples without labels"] == 28
        held = split.sample(0, (), None)["labels"]
        return [None if math.isnan(one) else int(one) for one in held]

    unknown = [None] * 10
    assert seen() == [1, 0, None, None, *unknown]
    assert seen("dataset.uncertain=positive") == [1, 0, 1, None, *unknown]
    assert seen("dataset.uncertain=negative") == [1, 0, 0, None, *unknown]
    assert seen("dataset.unmentioned=negative") == [1, 0, None, 0, *[0] * 10]


def test_a_fifth_value_is_refused_by_line(folder: Path) -> None:
    path = table(folder, "chexpert")
    write(path, read(path).replace("-1.0", "2.0", 1))
    with pytest.raises(UserError, match=r"chexpert.csv.gz, line \d+: .* is '2.0', expected 1.0"):
        mimic(folder)


@pytest.mark.parametrize("name", ["metadata", "split", "chexpert"])
def test_a_table_without_its_columns_or_cut_off_is_refused_by_name(folder: Path, name: str) -> None:
    path = table(folder, name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=path.name):
        mimic(folder)
    write(path, "a,b\n1,2\n")
    with pytest.raises(UserError, match=f"{path.name}, line 1: the header has no column"):
        mimic(folder)


def test_tables_may_be_unpacked(folder: Path) -> None:
    expected = mimic(folder).split("train", ()).digest
    for name in ("metadata", "split", "chexpert"):
        path = table(folder, name)
        path.with_suffix("").write_text(read(path))
        path.unlink()
    assert mimic(folder).split("train", ()).digest == expected


def test_reports_may_lie_below_a_folder_of_their_own(folder: Path) -> None:
    expected = mimic(folder).split("train", ()).digest
    for path in folder.glob("files/*/*/*.txt"):
        target = folder / "mimic-cxr-reports" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    assert mimic(folder).split("train", ()).digest == expected
    shutil.rmtree(folder / "mimic-cxr-reports")
    dataset = mimic(folder)
    assert dataset.table.notes["studies whose report is not here"] == 32
    assert "text" not in dataset.split("train", ()).sample(0, ("text",), None)


def test_pictures_that_are_not_here_are_counted(folder: Path) -> None:
    next(folder.glob("files/p10/p10000032/s50000000/*.jpg")).unlink()
    assert mimic(folder).table.notes["pictures that are not here"] == 1


def test_of_the_dicom_edition_the_reports_are_read(folder: Path) -> None:
    expected = [
        mimic(folder, "dataset.views=[PA]").split("train", ()).sample(i, ("text",), None)["text"]
        for i in range(20)
    ]
    rows = ["subject_id,study_id,path"]
    for path in sorted(folder.glob("files/*/*/*.txt")):
        subject, study = path.parent.name[1:], path.stem[1:]
        rows.append(f"{subject},{study},{path.relative_to(folder)}")
        shutil.rmtree(path.with_suffix(""))
    write(folder / "cxr-study-list.csv.gz", "\n".join(rows))
    table(folder, "metadata").unlink()
    words = ("model=text_only", "head=multilabel")
    split = mimic(folder, *words).split("train", LABELS)
    assert [split.sample(i, ("text",), None)["text"] for i in range(20)] == expected
    table(folder, "split").unlink()
    drawn = mimic(folder, *words, "dataset.val_fraction=0.4")
    sides = [drawn.split(name, ()) for name in ("train", "val")]
    assert sum(map(len, sides)) == 32
    patients = [{drawn.table[int(row)].group for row in drawn.rows(n)} for n in ("train", "val")]
    assert not patients[0] & patients[1]


# Sections of reports


def test_the_documented_report_is_read(data: Path) -> None:
    path = data / "mimic_cxr_layout/files/p10/p10000032/s50414267.txt"
    text = path.read_text()
    assert told(text, "impression") == "Large left pleural effusion"
    findings = told(text, "findings")
    assert findings is not None
    assert findings.startswith("Cardiac size cannot") and findings.endswith("thoracic spine")
    assert told(text, "both") == f"{findings}\nLarge left pleural effusion"
    assert (told(text, "all") or "").startswith("FINAL REPORT")
    assert set(sections(text)) == {
        *("preamble", "examination", "indication", "technique", "comparison"),
        *("findings", "impression"),
    }
    dataset = mimic(data / "mimic_cxr_layout", "model=text_only", "head=multilabel")
    assert [dataset.table.key(row) for row in range(len(dataset.table))] == ["s50414267"]


def report(*lines: str) -> str:
    return "".join(f" {line}\n" for line in ("FINAL REPORT", *lines))


@pytest.mark.parametrize(
    ("text", "section", "says"),
    [
        (report("CONCLUSION: It is fine."), "impression", "It is fine."),
        (report("IMPRESSON: It is fine."), "impression", "It is fine."),
        (report("CHEST, TWO VIEWS: All clear."), "findings", "All clear."),
        # Of a heading that comes twice, the last; an addendum stands on top.
        (report("IMPRESSION: New.", "____", "IMPRESSION: Old."), "impression", "Old."),
        # A title that looks like findings.
        (report("CHEST, PA:", "", "INDICATION: Pain.", "IMPRESSION: ok"), "findings", None),
        (report("IMPRESSION: Only this."), "findings", None),
        (report("IMPRESSION: Only this."), "both", "Only this."),
        # Neither: what follows the first paragraph of the last section, else the comparison.
        (report("INDICATION: Pain.", "", "Clear.", "", "No air."), "both", "Clear.\n \n No air."),
        (report("COMPARISON: None. Lungs are clear."), "impression", "None. Lungs are clear."),
        (report("INDICATION: Pain."), "findings", None),
    ],
)  # fmt: skip
def test_sections_follow_the_publishers_rules(text: str, section: Any, says: str | None) -> None:
    assert told(text, section) == says


def test_reports_without_the_section_are_counted(folder: Path) -> None:
    path = next(iter(sorted(folder.glob("files/*/*/*.txt"))))
    path.write_text(report("IMPRESSION: Only this."))
    dataset = mimic(folder)
    assert dataset.table.notes["reports without section=findings"] == 1
    assert dataset.table[0].captions == ()
