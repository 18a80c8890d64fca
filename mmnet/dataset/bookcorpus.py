"""BookCorpus (Zhu et al., arXiv 1506.06724): books, a sentence a line, or a book a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmnet.data.files import lines
from mmnet.data.published import Drawn, Texts
from mmnet.data.records import Found, Record


SENTENCES = "books_large_p1.txt"
GATHERED = 500  # sentences of one group: no book's borders are marked


@dataclass
class BookCorpus(Drawn, Texts):
    """Sentences of books, in the order of the files.

    Reads the sentences (books_large_p1.txt and the others beside it), or the whole books of
    bookcorpusopen (epubtxt/*.txt). Of the sentences consecutive ones are put together as far as
    `passage` has room; 500 lines in a row are on one side of a split, since lines do not say
    where a book ends.

    Raises UserError when the files cannot be read.
    """

    title: ClassVar[str] = "bookcorpus"
    layouts: ClassVar[list[list[str]]] = [[SENTENCES], ["epubtxt/*.txt"], ["books1/epubtxt/*.txt"]]
    offers: ClassVar[tuple[str, ...]] = ()

    def sources(self) -> list[Path]:
        pattern = "books_large_p*.txt" if self.layout == 0 else self.layouts[self.layout][0]
        return sorted(self.folder.glob(pattern))

    def records(self, found: Found) -> Iterator[Record]:
        for path in self.sources():
            name = path.relative_to(self.folder).as_posix()
            if self.layout == 0:
                yield from self._sentences(path, name)
            else:
                yield Record(key=name, captions=("\n".join(lines(path)),))

    def _sentences(self, path: Path, name: str) -> Iterator[Record]:
        held: list[str] = []
        first = size = 0
        for number, line in enumerate(lines(path)):
            full = size + len(line) + len(held) > (self.passage or 0)
            if held and (full or number % GATHERED == 0):
                yield self._record(name, first, held)
                held, size = [], 0
            if not held:
                first = number
            if line.strip():
                held.append(line.strip())
                size += len(line)
        if held:
            yield self._record(name, first, held)

    def _record(self, name: str, first: int, sentences: list[str]) -> Record:
        group = f"{name}/{first // GATHERED}"
        return Record(key=f"{name}:{first + 1}", captions=(" ".join(sentences),), group=group)
