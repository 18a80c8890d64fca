"""Indiana University's chest X-rays and reports (Demner-Fushman et al., JAMIA 2016), of OpenI."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree  # nosec B405 (see below)

from mmnet.bounds import PositiveInt
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.errors import UserError
from mmnet.interfaces import Names


CLASSES = ("normal", "not normal")
NOT_INDEXED = "No Indexing"
PARTS = {
    "findings": ("FINDINGS",),
    "impression": ("IMPRESSION",),
    "both": ("FINDINGS", "IMPRESSION"),
    "all": ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"),
}
FOLDERS = ("NLMCXR_png", "images", "png", ".")  # in which pictures are looked for
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass
class OpenI(Drawn, Pictures):
    """X-rays with the report they belong to; the class is whether it was indexed as normal.

    Reads the reports (ecgen-radiology/*.xml) and the pictures that lie in NLMCXR_png/, images/,
    png/ or beside them, by the names that the reports give. A sample is a picture; where no
    picture is here at all, it is a report. A report is normal if that is its only main heading
    (MeSH major); those that nobody indexed have no class. All pictures of a report are on one
    side of the split.

    section: of the report: findings, impression, both of them as far as they are there, or all.

    Raises UserError when a report is malformed.
    """

    num_classes: PositiveInt
    section: Literal["findings", "impression", "both", "all"]

    title: ClassVar[str] = "openi"
    layouts: ClassVar[list[list[str]]] = [["ecgen-radiology/*.xml"], ["[0-9]*.xml"]]
    offers: ClassVar[tuple[str, ...]] = ("label", "group", "match")

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        """Of a folder of numbered XML, whether the first is such a report."""
        path = next((path for one in cls.layouts for path in sorted(folder.glob(one[0]))), None)
        return path is not None and b"<eCitation" in path.read_bytes()[:500]

    def sources(self) -> list[Path]:
        folders = [self.folder / name for name in FOLDERS if (self.folder / name).is_dir()]
        return [*self._reports, *folders]

    def settings(self) -> dict[str, Any]:
        return {"section": self.section}

    def records(self, found: Found) -> Iterator[Record]:
        found.names.append(Names(classes=CLASSES))
        here = self._here()
        for path in self._reports:
            report = parsed(path)
            captions = self._captions(report, found)
            label = label_of(report)
            named = [image.get("id", "") for image in report.findall("parentImage")]
            base = Record(key=path.stem, captions=captions, group=path.stem, label=label)
            if not here:
                if captions:
                    yield base
                continue
            if not named:
                found.notes["reports without a picture"] += 1
            for name in named:
                if name in here:
                    yield base._replace(key=name, image=here[name])
                else:
                    found.notes["pictures that are not here"] += 1

    @cached_property
    def _reports(self) -> list[Path]:
        def place(path: Path) -> tuple[int, str]:
            number = re.match(r"\d+", path.stem)
            return int(number[0]) if number else 0, path.stem

        return sorted(self.folder.glob(self.layouts[self.layout][0]), key=place)

    def _here(self) -> dict[str, str]:
        """The pictures by their names without suffix."""
        return {
            path.stem: path.relative_to(self.folder).as_posix()
            for name in reversed(FOLDERS)
            if (self.folder / name).is_dir()
            for path in sorted((self.folder / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        }

    def _captions(self, report: ElementTree.Element, found: Found) -> tuple[str, ...]:
        said: dict[str, str] = {}
        for part in report.iter("AbstractText"):
            if text := "".join(part.itertext()).strip():
                said[part.get("Label", "")] = text
        text = "\n".join(said[name] for name in PARTS[self.section] if name in said)
        if not text:
            found.notes[f"reports without section={self.section}"] += 1
        return (text,) if text else ()


def parsed(path: Path) -> ElementTree.Element:
    """A report. Raises UserError naming the file and the line."""
    try:
        # Expat refuses entities that grow beyond bounds, and reads none from elsewhere.
        root = ElementTree.parse(path).getroot()  # nosec B314
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    if root.tag != "eCitation":
        raise UserError(f"{path}, line 1: <{root.tag}>, expected <eCitation>")
    return root


def label_of(report: ElementTree.Element) -> int | None:
    """0: normal; 1: something else was found; None: nobody said."""
    major = [(heading.text or "").strip() for heading in report.findall("MeSH/major")]
    if not major or NOT_INDEXED in major:
        return None
    return 0 if major == ["normal"] else 1
