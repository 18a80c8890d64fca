"""BookCorpus (Zhu et al., arXiv 1506.06724): books, a sentence a line, or a book a file."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmnet.data.files import lines
from mmnet.data.published import Drawn, Texts
from mmnet.data.records import Found, Record


SENTENCES = "books_large_p1.txt"
OPEN = ("epubtxt/*.txt", "books1/epubtxt/*.txt")  # of bookcorpusopen, whole books
GATHERED = 500  # sentences of one group, where no book's borders are marked


@dataclass
class BookCorpus(Drawn, Texts):
    """Sentences of books, in the order of the files.

    Reads the sentences (books_large_p1.txt and the others beside it), the same with a file for
    each book (books_in_sentences/*.txt), or the whole books of bookcorpusopen (epubtxt/*.txt).
    Consecutive sentences are put together as far as `passage` has room. A book is on one side
    of a split; where lines do not say which book they are of, 500 in a row are. Of books that
    are the same, word for word, the first is read and the others are counted.

    Raises UserError when the files cannot be read.
    """

    title: ClassVar[str] = "bookcorpus"
    layouts: ClassVar[list[list[str]]] = [
        [SENTENCES],
        ["books_in_sentences/*.txt"],
        ["epubtxt/*.txt"],
        ["books1/epubtxt/*.txt"],
    ]
    offers: ClassVar[tuple[str, ...]] = ()

    def sources(self) -> list[Path]:
        [part] = self.layouts[self.layout]
        return sorted(self.folder.glob("books_large_p*.txt" if part == SENTENCES else part))

    def records(self, found: Found) -> Iterator[Record]:
        [part] = self.layouts[self.layout]
        seen: set[bytes] = set()
        for path in self.sources():
            name = path.relative_to(self.folder).as_posix()
            if part == SENTENCES:
                yield from self._sentences(path, name, GATHERED)
                continue
            text = "\n".join(lines(path))
            digest = hashlib.sha256(text.encode()).digest()
            if digest in seen:
                found.notes["books that are there twice"] += 1
            elif not text.strip():
                found.notes["books without a text"] += 1
            elif part in OPEN:
                yield Record(key=name, captions=(text,))
            else:
                yield from self._sentences(path, name, gathered=sys.maxsize)
            seen.add(digest)

    def _sentences(self, path: Path, name: str, gathered: int) -> Iterator[Record]:
        """gathered: lines of a group."""
        held: list[str] = []
        first = size = 0
        for number, line in enumerate(lines(path)):
            if not (sentence := line.strip()):
                continue
            full = size + len(sentence) + len(held) > (self.passage or 0)
            if held and (full or number // gathered != first // gathered):
                yield record(name, first, held, gathered)
                held, size = [], 0
            if not held:
                first = number
            held.append(sentence)
            size += len(sentence)
        if held:
            yield record(name, first, held, gathered)


def record(name: str, first: int, sentences: list[str], gathered: int) -> Record:
    """Of sentences in a row, called by the line that the first one is on."""
    group = f"{name}/{first // gathered}"
    return Record(key=f"{name}:{first + 1}", captions=(" ".join(sentences),), group=group)
