"""C4 (Raffel et al., arXiv 1910.10683): pages of Common Crawl, cleaned, as allenai/c4 has them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mmnet.data.files import read_json_lines
from mmnet.data.published import Splits, Texts
from mmnet.data.records import Found, Record
from mmnet.errors import UserError, nearest


# c4-train.00000-of-01024.json.gz, c4-de.tfrecord-00000-of-02048.json.gz (train) and
# c4-de-validation.tfrecord-00000-of-00016.json.gz
SHARD = re.compile(
    r"c4-(?:(?P<split>train|validation)|(?P<language>\w+(?:-[A-Z]\w+)?)(?P<held>-validation)?\.tfrecord)"
    r"[.-](?P<number>\d+)-of-\d+\.json(?:\.gz)?"
)


# What is read of a line, by its own names.
class Page(msgspec.Struct, gc=False):
    text: str
    url: str


@dataclass
class C4(Splits, Texts):
    """Pages of the web, one text each, from the shards that lie in one folder.

    Reads every edition (en, en.noblocklist, en.noclean, realnewslike, and multilingual with a
    language in the names of its shards), packed or not. The split is in a shard's name. A page
    is called by the shard and the line that it stands in, and by its address.

    languages: of the multilingual edition, those that are read, as shards are named; None: all.

    Raises UserError for a line that is none, naming it, and for a shard that is cut off.
    """

    title: ClassVar[str] = "c4"
    layouts: ClassVar[list[list[str]]] = [["c4-*-of-*.json*"]]
    offers: ClassVar[tuple[str, ...]] = ()

    languages: list[str] | None

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "languages": self.languages}

    def sources(self) -> list[Path]:
        shards = {
            path: match
            for path in sorted(self.folder.glob("c4-*"))
            if (match := SHARD.fullmatch(path.name))
        }
        languages = {match["language"] for match in shards.values()} - {None}
        for language in self.languages or ():
            if language not in languages:
                have = f"; it has {', '.join(sorted(languages)) or 'one language'}"
                raise UserError(
                    f"dataset.languages={language}: {self.folder} has no such shards"
                    f"{nearest(language, languages) or have}"
                )
        chosen = set(self.languages or ())
        found = [
            path for path, match in shards.items() if not chosen or match["language"] in chosen
        ]
        if not found:
            raise UserError(
                f"{self.folder} has no shards named like c4-train.00000-of-01024.json.gz or "
                f"c4-de.tfrecord-00000-of-02048.json.gz"
            )
        return found

    def records(self, found: Found) -> Iterator[Record]:
        for path in self.sources():
            split = split_of(path)
            for number, page in read_json_lines(path, Page):
                if page.text.strip():
                    key = f"{path.name}:{number} {page.url}"
                    yield Record(key=key, captions=(page.text,), split=split)
                else:
                    found.notes["pages without a text"] += 1


def split_of(path: Path) -> str:
    match = SHARD.fullmatch(path.name)
    assert match is not None, path
    return match["split"] or ("validation" if match["held"] else "train")
