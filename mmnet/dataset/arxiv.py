"""arXiv's metadata (Clement et al., arXiv 1905.00075): titles, abstracts and categories."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec

from mmnet.bounds import PositiveInt
from mmnet.data.files import DAMAGE, opened, read_json, read_json_lines
from mmnet.data.published import Drawn, Texts
from mmnet.data.records import Found, Record
from mmnet.interfaces import Names


# What is read of a paper, by its own names.
class Paper(msgspec.Struct, gc=False):
    id: str
    title: str | None
    abstract: str | None
    categories: str | list[str]  # a list in some copies: ["hep-ph math.CO"]


@dataclass
class Arxiv(Drawn, Texts):
    """Titles and abstracts of papers; what they are about, by archive.

    Reads arxiv-metadata-oai-snapshot.json as Kaggle has it: JSON Lines, whatever its name, or
    one array of the same objects (told by the first byte), packed or not. Several files that
    lie in the folder are one dataset; of a paper that is there twice the first is read.

    The text is the title, then the abstract; LaTeX stays as it is. An archive is what stands
    before the dot of a category: cs of cs.LG, hep-th. The classes are the archives that the
    files name, in the order of the alphabet: `label` is that of the first, the primary
    category, `labels` those of all. A paper without a category is left out and counted.

    Raises UserError for a malformed line, or when num_classes is not the number of archives.
    """

    title: ClassVar[str] = "arxiv"
    layouts: ClassVar[list[list[str]]] = [["arxiv*.json"], ["arxiv*.json.gz"], ["arxiv*.jsonl"]]
    offers: ClassVar[tuple[str, ...]] = ("label", "labels")

    num_classes: PositiveInt

    def sources(self) -> list[Path]:
        return sorted(self.folder.glob(self.layouts[self.layout][0]))

    def records(self, found: Found) -> Iterator[Record]:
        archives = sorted({one for paper in self._papers() for one in archives_of(paper)})
        number = {name: i for i, name in enumerate(archives)}
        found.names.append(Names(classes=archives, labels=archives))
        seen: set[str] = set()
        for paper in self._papers():
            held = [number[name] for name in archives_of(paper)]
            texts = [text.strip() for text in (paper.title, paper.abstract) if text]
            if not held:
                found.notes["papers without a category"] += 1
            elif not any(texts):
                found.notes["papers without a text"] += 1
            elif paper.id in seen:
                found.notes["papers that are there twice"] += 1
            else:
                seen.add(paper.id)
                yield Record(
                    key=paper.id,
                    captions=("\n\n".join(filter(None, texts)),),
                    label=held[0],
                    present=tuple(dict.fromkeys(held)),
                )

    def _papers(self) -> Iterator[Paper]:
        for path in self.sources():
            if is_array(path):
                yield from read_json(path, list[Paper])
            else:
                yield from (paper for _, paper in read_json_lines(path, Paper))


def archives_of(paper: Paper) -> list[str]:
    """Of each category, the primary one first."""
    told = paper.categories if isinstance(paper.categories, list) else [paper.categories]
    return [category.partition(".")[0] for category in " ".join(told).split()]


def is_array(path: Path) -> bool:
    try:
        with opened(path) as file:
            return file.read(100).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    except DAMAGE:
        return False  # reading it says what is wrong
