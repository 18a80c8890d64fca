"""Wikipedia: articles, from a dump of their wiki markup or from Parquet files of their text."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mmnet.data.published import Drawn, Texts
from mmnet.data.records import Found, Record
from mmnet.data.wiki_dump import Dump, is_dump
from mmnet.data.wikitext import Page, plain_pages, processors
from mmnet.errors import UserError


COLUMNS = ("id", "url", "title", "text")  # of the Parquet files
ROWS = 1000  # read at once
LARGE = 20_000_000  # bytes of dumps that are worth starting processes for


@dataclass
class Wikipedia(Drawn, Texts):
    """Articles: those of the main namespace that are no redirects.

    Reads either the dumps of dumps.wikimedia.org (pages-articles as XML, packed or not, whole
    or in numbered parts, one stream or many, any version of its schema) or the Parquet files of
    the Hugging Face hub ({id, url, title, text}). Files are known by what is in them. All that
    a folder holds is read; an article that is there twice, in another part or edition, is read
    once. What is left out is counted.

    markup: strip, which leaves of a dump the running text (no templates, tables, references or
    captions), or keep, which leaves it as it stands; Parquet files hold running text. The title
    is part of the key ("12 Anarchism") and no part of the text, and the number alone says which
    side an article is on, so that it stays there in the dump of another month.

    Dumps of 20 MB and more are stripped in as many processes as there are processors, at some
    5 MB of XML a second each.

    Raises UserError when a file cannot be read or is cut off, naming the place.
    """

    title: ClassVar[str] = "wikipedia"
    layouts: ClassVar[list[list[str]]] = [["*.xml*"], ["*.parquet"]]
    offers: ClassVar[tuple[str, ...]] = ()

    markup: Literal["strip", "keep"]

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        return bool(dumps(folder) or tables(folder))

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "markup": self.markup}

    def sources(self) -> list[Path]:
        found = dumps(self.folder) or tables(self.folder)
        if not found:
            raise UserError(
                f"{self.folder} holds no dump of a wiki (XML that begins with <mediawiki>) and no "
                f"Parquet files with the columns {', '.join(COLUMNS)}"
            )
        return found

    def records(self, found: Found) -> Iterator[Record]:
        for page in once(self._pages(found), found):
            if page.text.strip():
                key = f"{page.number} {page.title}"
                yield Record(key=key, captions=(page.text,), group=page.number)
            else:
                found.notes["pages without a text"] += 1

    def _pages(self, found: Found) -> Iterator[Page]:
        paths = self.sources()
        if paths[0].suffix == ".parquet":
            for path in paths:
                yield from rows(path)
            return
        size = sum(path.stat().st_size for path in paths)
        processes = processors() if size >= LARGE else 1
        for path in paths:
            dump = Dump(path, found.notes)
            if self.markup == "keep":
                yield from dump.pages()
                continue
            pages = dump.pages()
            first = list(islice(pages, 1))  # what tells the prefixes stands before it
            for page, parsed in plain_pages(chain(first, pages), dump.prefixes, processes):
                if parsed:
                    yield page
                else:
                    found.notes["pages whose markup cannot be parsed"] += 1


def dumps(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.xml*")) if path.is_file() and is_dump(path)]


def tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.parquet")) if set(COLUMNS) <= columns(path)]


def columns(path: Path) -> set[str]:
    """None, where it is no Parquet file."""
    try:
        return set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return set()


def rows(path: Path) -> Iterator[Page]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=["id", "title", "text"]):
                for row in batch.to_pylist():
                    yield Page(str(row["id"]), row["title"] or "", row["text"] or "")
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: {error}") from error


def once(pages: Iterator[Page], found: Found) -> Iterator[Page]:
    """Each number the first time."""
    seen = bytearray()  # a bit an article: a set of them would take a gigabyte
    for page in pages:
        number = int(page.number) if page.number.isascii() and page.number.isdecimal() else None
        if number is None or number >= 2**30:
            yield page
            continue
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(seen):
            seen.extend(bytes(place + 1 - len(seen)))
        if seen[place] & bit:
            found.notes["articles that are there twice"] += 1
        else:
            seen[place] |= bit
            yield page
