"""Captions as found to captions that are safe to tokenize, print and store."""

from collections import Counter
from collections.abc import Mapping

from mmnet.interfaces import BadSample


# A tokenizer reads all of a text before it cuts it: 10 MB take 30 seconds, for 77 tokens.
MAX_CHARACTERS = 10_000

# Controls (C0, DEL, C1), and what is invisible or turns the line around: zero-width space,
# word joiner, byte order mark, soft hyphen, directional marks, embeddings and isolates.
_INVISIBLE = {
    *range(0x00, 0x20),
    *range(0x7F, 0xA0),
    *(0xAD, 0x061C, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
}
_TABLE = {code: " " if chr(code).isspace() else None for code in _INVISIBLE}


def clean_caption(raw: object, key: str) -> str:
    """One line of real characters, at most 10,000 of them, single-spaced.

    Halves of surrogate pairs become U+FFFD; controls and directional marks are dropped.
    Raises BadSample(key, reason) when it is not text or nothing is left of it.
    """
    if not isinstance(raw, str):
        raise BadSample(key, "caption is not text")
    text = raw[:MAX_CHARACTERS]
    if not text.isascii():
        # By way of UTF-16, so that two halves that belong together become one character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = " ".join(text.translate(_TABLE).split())
    if not text:
        raise BadSample(key, "empty caption")
    return text


def gist(text: str) -> str:
    """What two texts share that say the same: no case, no spacing, no full stop at the end."""
    return " ".join(text.casefold().split()).rstrip(" .")


def told_apart(names: Mapping[str, str]) -> list[str]:
    """The names of things by their ids, each with its id where others are called so, too."""
    times = Counter(name.casefold() for name in names.values())
    return [
        name if times[name.casefold()] == 1 else f"{name} ({one})" for one, name in names.items()
    ]
