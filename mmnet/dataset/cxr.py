"""COVID-19 image data collection (Cohen et al., arXiv 2006.11988): X-rays with clinical notes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmnet.bounds import PositiveInt
from mmnet.data.files import inside, read_csv
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.interfaces import Names


COLUMNS = ("patientid", "finding", "folder", "filename", "clinical_notes")
OPEN = ("", "todo", "Unknown")  # findings that nobody has entered yet
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass
class Cxr(Drawn, Pictures):
    """X-rays with clinical notes, which may be missing; the class is the finding.

    Reads metadata.csv and the pictures in the folders that it names. The classes are the
    findings in alphabetical order; pictures whose finding is still to be entered have none.
    Volumes and pictures that are not here are left out and counted. All pictures of a patient
    are on one side of the split.

    Raises UserError when the file is malformed or disagrees with num_classes.
    """

    num_classes: PositiveInt

    title: ClassVar[str] = "cxr"
    layouts: ClassVar[list[list[str]]] = [["metadata.csv", "images"]]
    offers: ClassVar[tuple[str, ...]] = ("label", "group", "match")

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        """Whether the header is that of this collection."""
        with (folder / "metadata.csv").open("rb") as file:
            header = file.readline().decode("utf-8-sig", "replace").strip().split(",")
        return set(COLUMNS) <= set(header)

    def sources(self) -> list[Path]:
        return [self.folder / "metadata.csv", self.folder / "images"]

    def records(self, found: Found) -> Iterator[Record]:
        rows = [row for _, row in read_csv(self.folder / "metadata.csv", COLUMNS)]
        classes = sorted({row["finding"].strip() for row in rows} - set(OPEN))
        found.names.append(Names(classes=classes))
        number = {name: place for place, name in enumerate(classes)}
        for row in rows:
            place = f"{row['folder'] or 'images'}/{row['filename']}"
            if not place.lower().endswith(SUFFIXES):
                found.notes["files that are no pictures"] += 1
            elif not inside(place) or not (self.folder / place).is_file():
                found.notes["pictures that are not here"] += 1
            else:
                notes = row["clinical_notes"].strip()
                yield Record(
                    key=place,
                    image=place,
                    captions=(notes,) if notes else (),
                    group=row["patientid"],
                    label=number.get(row["finding"].strip()),
                )
