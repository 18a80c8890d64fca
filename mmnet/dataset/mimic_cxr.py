"""MIMIC-CXR (Johnson et al., arXiv 1901.07042): chest X-rays, reports and findings by study."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from mmnet.bounds import PositiveInt
from mmnet.data.csv_rows import read_rows
from mmnet.data.published import Pictures, SplitsIfAny
from mmnet.data.records import Found, Record
from mmnet.data.reports import told
from mmnet.errors import UserError
from mmnet.interfaces import Names


FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
VALUES = {"1": "positive", "0": "negative", "-1": "uncertain", "": "unmentioned"}
# Where mimic-cxr-reports.zip may have been unpacked.
REPORTS = ("", "mimic-cxr-reports/", "reports/")
JPG, LISTED, LOOSE = range(3)


class Study(NamedTuple):
    """What a labeler found in a study's report, as places in FINDINGS."""

    present: tuple[int, ...]
    absent: tuple[int, ...]


@dataclass
class MimicCxr(SplitsIfAny, Pictures):
    """X-rays with the report of their study, and the findings that a labeler read in it.

    Reads MIMIC-CXR-JPG (2.0.0 or 2.1.0; a sample is a picture) with the reports beside the
    folders of their studies, where mimic-cxr-reports.zip was unpacked into it or below
    mimic-cxr-reports/; and of MIMIC-CXR, the DICOM edition, the reports alone (a sample is a
    study): its pictures are those of the JPG edition, which are read instead. The splits are
    those of mimic-cxr-2.0.0-split.csv; where that is missing a study is val by a hash of its
    patient.

    section: of the report, see mmnet.data.reports; a report that lacks it gives no text and is
    counted. views: ViewPosition of the pictures to keep, such as [PA, AP], "" being none; null:
    all. labeler: chexpert or negbio. A finding is said to be there, not to be there, uncertain
    or is not mentioned: `uncertain` and `unmentioned` say what the last two count as; ignore:
    nobody knows. Pictures that are not here are left out and counted.

    Raises UserError when the files are malformed.
    """

    num_classes: PositiveInt
    section: Literal["findings", "impression", "both", "all"]
    views: list[str] | None
    labeler: Literal["chexpert", "negbio"]
    uncertain: Literal["ignore", "positive", "negative"]
    unmentioned: Literal["ignore", "negative"]

    title: ClassVar[str] = "mimic_cxr"
    layouts: ClassVar[list[list[str]]] = [
        ["mimic-cxr-*-metadata.csv*", "mimic-cxr-*-split.csv*", "files"],
        ["cxr-study-list.csv*", "files"],
        ["files/p[0-9]*/p[0-9]*/s[0-9]*.txt"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("labels", "group", "match")
    unsaid: ClassVar[float] = float("nan")
    remedy: ClassVar[str] = ""

    def sources(self) -> list[Path]:
        tables = ("metadata", "split", "chexpert", "negbio")
        found = [path for name in tables if (path := self._table(name)) is not None]
        patients = [
            path
            for place in REPORTS
            for path in (self.folder / place).glob("files/p[0-9]*/p[0-9]*")
        ]
        return [*found, *patients, *self.folder.glob("cxr-study-list.csv*")]

    def settings(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "views": self.views,
            "labeler": self.labeler,
            "uncertain": self.uncertain,
            "unmentioned": self.unmentioned,
        }

    def records(self, found: Found) -> Iterator[Record]:
        found.names.append(Names(classes=FINDINGS, labels=FINDINGS))
        studies = self._studies()
        yield from (self._pictures if self.layout == JPG else self._reports)(found, studies)

    def _pictures(self, found: Found, studies: dict[str, Study]) -> Iterator[Record]:
        splits = self._splits("dicom_id")
        path = self._table("metadata")
        assert path is not None
        columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
        study = ""
        captions: tuple[str, ...] = ()
        for _, (picture, subject, one, view) in read_rows(path, columns):
            if self.views is not None and view not in self.views:
                found.notes["pictures of other views"] += 1
                continue
            place = f"{place_of(subject, one)}/{picture}.jpg"
            if not (self.folder / place).is_file():
                found.notes["pictures that are not here"] += 1
                continue
            if picture not in splits:
                found.notes["pictures that no split names"] += 1
                continue
            if one != study:
                study, captions = one, self._captions(found, place_of(subject, one))
            held = studies.get(one)
            yield Record(
                key=picture,
                image=place,
                captions=captions,
                split=splits[picture],
                group=subject,
                present=None if held is None else held.present,
                absent=None if held is None else held.absent,
            )

    def _reports(self, found: Found, studies: dict[str, Study]) -> Iterator[Record]:
        splits = self._splits("study_id")
        for subject, one in self._listed():
            captions = self._captions(found, place_of(subject, one))
            if not captions:
                continue
            held = studies.get(one)
            yield Record(
                key=f"s{one}",
                captions=captions,
                split=splits.get(one, "none") if splits else "",
                group=subject,
                present=None if held is None else held.present,
                absent=None if held is None else held.absent,
            )

    def _listed(self) -> Iterator[tuple[str, str]]:
        """The subject and study of each report."""
        if self.layout == LISTED:
            path = next(self.folder.glob("cxr-study-list.csv*"))
            for _, (subject, study) in read_rows(path, ("subject_id", "study_id")):
                yield subject, study
            return
        for path in sorted(self.folder.glob(self.layouts[LOOSE][0])):
            yield path.parent.name[1:], path.stem[1:]

    def _captions(self, found: Found, place: str) -> tuple[str, ...]:
        """What the report of a study says in the section, if anything."""
        for above in REPORTS:
            path = self.folder / f"{above}{place}.txt"
            if path.is_file():
                try:
                    text = told(path.read_text("utf-8", "replace"), self.section)
                except OSError as error:
                    raise UserError(f"{path}: {error}") from error
                if text is None:
                    found.notes[f"reports without section={self.section}"] += 1
                return () if text is None else (text,)
        found.notes["studies whose report is not here"] += 1
        return ()

    def _splits(self, key: Literal["dicom_id", "study_id"]) -> dict[str, str]:
        path = self._table("split")
        if path is None:
            return {}
        return {one: split for _, (one, split) in read_rows(path, (key, "split"))}

    def _studies(self) -> dict[str, Study]:
        """What the labeler found in each study. Raises UserError."""
        path = self._table(self.labeler)
        if path is None:
            return {}
        meant = {
            "positive": "positive",
            "negative": "negative",
            "uncertain": self.uncertain,
            "unmentioned": self.unmentioned,
        }
        found = {}
        for line, (study, *values) in read_rows(path, ("study_id", *FINDINGS)):
            said: list[str] = []
            for name, value in zip(FINDINGS, values, strict=True):
                known = VALUES.get(value.removesuffix(".0"))
                if known is None:
                    raise UserError(
                        f"{path}, line {line}: {name} is '{value}', expected 1.0, 0.0, -1.0 or "
                        f"nothing"
                    )
                said.append(meant[known])
            found[study] = Study(
                tuple(i for i, one in enumerate(said) if one == "positive"),
                tuple(i for i, one in enumerate(said) if one == "negative"),
            )
        return found

    def _table(self, name: str) -> Path | None:
        # Packed or not; of several versions the last. Names keep 2.0.0 inside version 2.1.0.
        return max(self.folder.glob(f"mimic-cxr-[0-9]*-{name}.csv*"), default=None)


def place_of(subject: str, study: str) -> str:
    """The folder of a study below the root; its report is beside it, with .txt."""
    return f"files/p{subject[:2]}/p{subject}/s{study}"
