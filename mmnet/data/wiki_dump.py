"""The pages of a dump of MediaWiki's XML, however it is packed and encoded."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree  # nosec B405: expat limits what entities expand to

from mmnet.data.files import DAMAGE, opened
from mmnet.data.wikitext import DROPPED, Page
from mmnet.errors import UserError


PREFIXED = ("-2", "6", "14")  # namespaces of media, files and categories: what shows no text
HEAD = 2000  # bytes that begin a dump


class Dump:
    """The articles of one file: of the main namespace, no redirects.

    prefixes: lower-case prefixes of links that show no text in this wiki; known once the first
    page is there.
    """

    def __init__(self, path: Path, notes: Counter[str]) -> None:
        self.path, self.notes = path, notes
        self.prefixes = DROPPED
        self._others: frozenset[str] = frozenset()  # names of the other namespaces

    def pages(self) -> Iterator[Page]:
        """In the order of the file; memory stays flat. Raises UserError naming file and line."""
        try:
            with opened(self.path) as file:
                yield from self._articles(file)
        except ElementTree.ParseError as error:
            raise UserError(f"{self.path}: no whole XML dump: {error}") from error
        except DAMAGE as error:
            raise UserError(f"{self.path}: {error}") from error

    def _articles(self, file: IO[bytes]) -> Iterator[Page]:
        events = ElementTree.iterparse(file, ("start", "end"))  # nosec B314: as above
        _, root = next(events)
        if local(root) != "mediawiki":
            raise UserError(f"{self.path}: begins with <{local(root)}>, expected <mediawiki>")
        for event, element in events:
            if event == "start":
                continue
            match local(element):
                case "siteinfo":
                    self._read_namespaces(element)
                case "page":
                    page = self._article(element)
                    # The page, and the root's memory of it.
                    root.clear()
                    if page is not None:
                        yield page

    def _read_namespaces(self, siteinfo: ElementTree.Element) -> None:
        named = [one for one in siteinfo.iter() if local(one) == "namespace" and one.text]
        names = {one.get("key"): str(one.text).casefold() for one in named}
        self.prefixes = DROPPED | {names[key] for key in PREFIXED if key in names}
        self._others = frozenset(names.values())

    def _article(self, page: ElementTree.Element) -> Page | None:
        """None, and a note why, for a page that is none."""
        told: dict[str, Any] = {}
        for child in page:
            told[local(child)] = child  # of several revisions the last
        revision = {local(child): child for child in told.get("revision", ())}
        title = told["title"].text if "title" in told else None
        text = revision["text"].text if "text" in revision else None
        number = told["id"].text if "id" in told else None
        # Old dumps number no namespaces and mark no redirects.
        prefix = (title or "").partition(":")[0].casefold()
        space = told["ns"].text if "ns" in told else ("0", "other")[prefix in self._others]
        if (space or "").strip() != "0":
            self.notes["pages that are no articles"] += 1
        elif "redirect" in told or (text or "").lstrip()[:9].upper() == "#REDIRECT":
            self.notes["redirects"] += 1
        elif not title or not number or not (text or "").strip():
            self.notes["pages without a text"] += 1
        else:
            return Page(number.strip(), title, str(text))
        return None


def is_dump(path: Path) -> bool:
    """Whether a file begins as a dump does, in UTF-8 or UTF-16, or cannot be looked into."""
    try:
        with opened(path) as file:
            head = file.read(HEAD)
    except DAMAGE:
        return True  # reading it says what is wrong
    return b"<mediawiki" in head.replace(b"\0", b"")


def local(element: ElementTree.Element) -> str:
    """The name without the namespace of its schema, which every version has another of."""
    return element.tag.rpartition("}")[2]
