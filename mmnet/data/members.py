"""What the members of a sample in a tar say: its picture, its texts, its labels.

A setting names a member by its extension (`txt`, `cls`, `caption.txt`) or a field of the sample's
JSON (`json.caption`, `json.meta.title`). A member whose name has more dots than that is found by
its last part, where none is named exactly: `crop.jpg` is a jpg.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from mmnet.data.shard_format import PICTURES
from mmnet.data.tar_index import Member


TEXTS = ("txt", "text", "caption", "json.caption", "json.captions", "json.text")
LABELS = ("cls", "json.label")
LARGEST = 10_000_000  # bytes of a text or JSON; a picture may be larger


class Unreadable(Exception):
    """A member that is damaged, and what is wrong with it, the same for alike cases."""


class Members:
    """Of one sample. `read` returns a member's bytes, or raises OSError."""

    def __init__(self, members: Iterable[Member], read: Callable[[Member], bytes]) -> None:
        self.by_extension = {member.extension: member for member in members}
        self._read = read
        self._json: Any = None

    def find(self, extension: str) -> Member | None:
        """The member of an extension; None if there is none."""
        exactly = self.by_extension.get(extension)
        if exactly is not None:
            return exactly
        for ending in (extension, f"{extension}.gz"):
            for name, member in self.by_extension.items():
                if name == ending or name.endswith(f".{ending}"):
                    return member
        return None

    def picture(self) -> Member | None:
        """The first that is called a picture."""
        for extension in PICTURES:
            if extension in self.by_extension:
                return self.by_extension[extension]
        for extension in PICTURES:
            if (member := self.find(extension)) is not None and member.extension[-3:] != ".gz":
                return member
        return None

    def value(self, fields: Sequence[str]) -> Any:
        """What the first of these fields that there is says; None where none is.

        A member is a string, a field of JSON whatever JSON has. Raises Unreadable.
        """
        for field in fields:
            if field.startswith("json."):
                found = self._field(field.removeprefix("json."))
            else:
                member = self.find(field)
                found = None if member is None else self._text(member)
            if found is not None:
                return found
        return None

    def _field(self, path: str) -> Any:
        if self._json is None:
            member = self.find("json")
            if member is None:
                return None
            try:
                self._json = msgspec.json.decode(self._text(member))
            except (msgspec.MsgspecError, RecursionError):
                raise Unreadable("json that is malformed") from None
        found = self._json
        while isinstance(found, dict):
            if path in found:
                return found[path]
            first, _, path = path.partition(".")
            found = found.get(first)
        return None

    def _text(self, member: Member) -> str:
        if member.size > LARGEST:
            raise Unreadable(f"a text of more than {LARGEST:,} bytes")
        try:
            content = self._read(member)
            if member.extension.endswith(".gz"):
                packed = zlib.decompressobj(zlib.MAX_WBITS | 16)
                content = packed.decompress(content, LARGEST)
                if not packed.eof:
                    raise Unreadable("a gzip that is cut short or too large")
        except zlib.error:
            raise Unreadable("a gzip that is damaged") from None
        except OSError as error:
            raise Unreadable(f"a text that cannot be read: {error.strerror}") from None
        return content.decode("utf-8", "replace")


def captions_of(found: Any) -> tuple[str, ...]:
    """Texts as a field has them: one, or a list of them; what is blank is none."""
    several = found if isinstance(found, list) else [found]
    return tuple(text for text in several if isinstance(text, str) and text.strip())


def strings_of(found: Any) -> list[Any]:
    """Labels as a field has them: a list, one alone, or several in a line apart by commas."""
    if isinstance(found, str):
        return [part.strip() for part in found.split(",") if part.strip()]
    if isinstance(found, list):
        return [part for part in found if isinstance(part, str | int | float)]
    return [found] if isinstance(found, int | float) else []


def number_of(found: Any) -> float | None:
    """A quantity; None for what is none."""
    if isinstance(found, bool | str | int | float):
        try:
            number = float(found)
        except ValueError:
            return None
        return number if abs(number) < float("inf") else None
    return None
