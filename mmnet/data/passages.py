"""Long texts divided where something ends: a paragraph, a sentence, a word."""

import re
from collections.abc import Iterable, Iterator

from mmnet.data.records import Record


PARAGRAPH, LINE = re.compile(r"\n\s*\n"), re.compile(r"\n")
SENTENCE, WORD = re.compile(r"[.!?]['\")\]]*\s"), re.compile(r"\s")


def passages(records: Iterable[Record], length: int | None) -> Iterator[Record]:
    """Each record with one text, of at most `length` characters; None: as they are.

    The parts of one text are numbered behind its key and share its group.
    """
    for record in records:
        texts = record.captions
        if length is None or all(len(text) <= length for text in texts):
            yield record
            continue
        group = record.group or record.key
        number = 0
        for text in texts:
            for part in divided(text, length):
                number += 1
                yield record._replace(key=f"{record.key}#{number}", captions=(part,), group=group)


def divided(text: str, length: int) -> Iterator[str]:
    """Consecutive parts of at most `length` characters that hold all of the text but blanks.

    Each is as long as it can be, if it ends where a paragraph ends, else a line, a sentence, a
    word; but rather than give away half of its length it ends where less does.
    """
    place = 0
    while place < len(text):
        end = _end(text, place, length)
        if part := text[place:end].strip():
            yield part
        place = end


def _end(text: str, place: int, length: int) -> int:
    if len(text) - place <= length:
        return len(text)
    window = text[place : place + length]
    for end in (PARAGRAPH, LINE, SENTENCE, WORD):
        last = 0
        for last_match in end.finditer(window, length // 2):
            last = last_match.end()
        if last:
            return place + last
    return place + length  # one word, longer than that
