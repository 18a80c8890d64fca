"""Common Crawl (commoncrawl.org): the text of pages as crawled, from WET files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import urlsplit

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from mmnet.data.files import DAMAGE
from mmnet.data.published import Drawn, Texts
from mmnet.data.records import Found, Record
from mmnet.errors import UserError


LANGUAGES = "WARC-Identified-Content-Language"  # spa,eng: the one with most of the text first


@dataclass
class CommonCrawl(Drawn, Texts):
    """Pages of the web with all that their text holds: menus, lists, any language.

    Reads the WET files (.warc.wet.gz, or unpacked) that lie in one folder; of other WARC files
    it reads the records of that kind (conversion, text/plain) alone. The pages of a host are on
    one side of the split.

    languages: ISO 639-3 codes of which one must be the page's main one; None: all pages. Pages
    whose language is not told are then left out and counted, as the others are.

    Raises UserError for a file that is cut off or malformed, naming the place in it.
    """

    title: ClassVar[str] = "commoncrawl"
    layouts: ClassVar[list[list[str]]] = [["*.warc.wet.gz"], ["*.warc.wet"]]
    offers: ClassVar[tuple[str, ...]] = ()

    languages: list[str] | None

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "languages": self.languages}

    def sources(self) -> list[Path]:
        return sorted({path for [part] in self.layouts for path in self.folder.glob(part)})

    def records(self, found: Found) -> Iterator[Record]:
        for path in self.sources():
            with path.open("rb") as file:
                yield from self._pages(path, file, found)

    def _pages(self, path: Path, file: IO[bytes], found: Found) -> Iterator[Record]:
        count = 0
        records = ArchiveIterator(file, check_digests=False)
        try:
            for count, record in enumerate(records, 1):
                if record.rec_type != "conversion":
                    continue  # warcinfo says how the file was made
                told = record.rec_headers.get_header(LANGUAGES) or ""
                main = told.partition(",")[0].strip()
                if self.languages is not None and main not in self.languages:
                    why = f"pages in {main}" if main else "pages whose language is not told"
                    found.notes[why] += 1
                    continue
                url = record.rec_headers.get_header("WARC-Target-URI") or f"{path.name}:{count}"
                text = record.content_stream().read()
                if record.length and len(text) != record.length:
                    raise EOFError(f"{len(text)} bytes of {record.length} are there")
                text = text.decode("utf-8", "replace")
                if text.strip():
                    yield Record(key=url, captions=(text,), group=host_of(url))
                else:
                    found.notes["pages without a text"] += 1
        except (ArchiveLoadFailed, *DAMAGE) as error:
            said = " ".join(str(error).split())
            # Not known in a file that is one gzip member, which is no WARC file.
            where = f", byte {records.offset}" if records.offset >= 0 else ""
            raise UserError(f"{path}, after record {count}{where}: {said}") from error


def host_of(url: str) -> str:
    """Without www; the address itself where it has none."""
    try:
        return (urlsplit(url).hostname or url).removeprefix("www.")
    except ValueError:
        return url
