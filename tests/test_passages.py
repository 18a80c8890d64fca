"""Long texts in parts: nothing but blanks is lost, no part is too long, and it takes no time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmnet.data.passages import divided, passages
from mmnet.data.records import Record


# Texts in which paragraphs, lines, sentences and words end, here and there.
TEXTS = st.lists(
    st.sampled_from(
        ["word", "a", ".", "! ", '." ', " ", "\n", "\n\n", "\n \n", "\t", "ü", "\u2028"]
    ),
    max_size=200,
).map("".join) | st.text(max_size=300)
LENGTHS = st.integers(1, 80)


def solid(text: str) -> str:
    """Without its blanks."""
    return "".join(text.split())


@given(TEXTS, LENGTHS)
def test_nothing_but_blanks_is_lost_and_the_order_is_kept(text: str, length: int) -> None:
    assert "".join(map(solid, divided(text, length))) == solid(text)


@given(TEXTS, LENGTHS)
def test_parts_are_neither_too_long_nor_empty_nor_padded(text: str, length: int) -> None:
    for part in divided(text, length):
        assert 0 < len(part) <= length
        assert part == part.strip()


@given(TEXTS, LENGTHS)
def test_parts_stand_in_the_text_as_they_are(text: str, length: int) -> None:
    place = 0
    for part in divided(text, length):
        place = text.index(part, place) + len(part)


@given(
    st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=60), st.integers(20, 80)
)
def test_no_word_is_divided_that_has_room(words: list[str], length: int) -> None:
    text = " ".join(words)
    assert " ".join(divided(text, length)).split(" ") == words


@given(st.lists(TEXTS, max_size=4), LENGTHS)
def test_parts_of_a_record_share_its_group_and_have_keys_of_their_own(
    texts: list[str], length: int
) -> None:
    record = Record(key="k", captions=tuple(texts), label=3)
    parts = list(passages([record], length))
    if all(len(text) <= length for text in texts):
        assert parts == [record]
        return
    assert [part.key for part in parts] == [f"k#{n + 1}" for n in range(len(parts))]
    assert {(part.group, part.label) for part in parts} <= {("k", 3)}
    assert solid("".join(part.captions[0] for part in parts)) == solid("".join(texts))


def test_without_a_length_records_stay_as_they_are() -> None:
    record = Record(key="k", captions=("word " * 1000,))
    assert list(passages([record], None)) == [record]


def test_what_ends_last_decides_paragraphs_before_lines_before_sentences_before_words() -> None:
    assert list(divided("a b. c\nd\n\ne f. g h", 14)) == ["a b. c\nd", "e f. g h"]
    assert list(divided("a b. c d e\nf. g h", 14)) == ["a b. c d e", "f. g h"]
    assert list(divided("a b c d. e f g h", 12)) == ["a b c d.", "e f g h"]
    assert list(divided("aaaa bbbb cccc", 12)) == ["aaaa bbbb", "cccc"]
    assert list(divided("a" * 25, 10)) == ["a" * 10, "a" * 10, "a" * 5]


UNITS = ["a", "word ", "Sentence one. ", "line\n", "\n", " ", "\n ", ". ", '."', "\n\n", "."]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("length", [100, 10_000])
def test_ten_megabytes_take_seconds(unit: str, length: int) -> None:
    text = unit * (10_000_000 // len(unit))
    start = time.process_time()
    parts = sum(1 for _ in divided(text, length))
    assert time.process_time() - start < 5
    assert parts >= len(text) // length or not unit.strip()
