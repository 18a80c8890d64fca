"""Captions of every kind and condition become one line of text, or a bad sample."""

import json
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmnet.data.text import clean_caption
from mmnet.interfaces import BadSample


def clean(raw: object) -> str:
    began = time.process_time()
    try:
        return clean_caption(raw, "a/caption")
    finally:
        assert time.process_time() - began < 0.05


def is_clean(text: str) -> bool:
    """One printable line."""
    text.encode()
    return (
        0 < len(text) <= 10_000
        and text == " ".join(text.split())
        and not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
        and not any(unicodedata.bidirectional(c) in BIDI for c in text)
    )


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A dog on a beach.", "A dog on a beach."),
        ("  A dog \r\n on\ta beach. \n", "A dog on a beach."),
        ("zwei\u2028Zeilen\u0085und\x0bdrei\xa0mehr", "zwei Zeilen und drei mehr"),
        ("a\0b\x07c\x7f\x9f", "abc"),
        ("abc\u202edef\u202c \u2066x\u2069 \u200e\u200f", "abcdef x"),
        ("\ufeffdog\u200b\u2060", "dog"),
        ("\U0001f468\u200d\U0001f469 ok", "\U0001f468\u200d\U0001f469 ok"),
        (json.loads('"dog \\ud800 cat"'), "dog \ufffd cat"),
        ("\ud83d\udc36", "\U0001f436"),
        ("\udc36\ud83d", "\ufffd\ufffd"),
        ("Köpek, собака, 犬 और कुत्ता", "Köpek, собака, 犬 और कुत्ता"),
    ],
)
def test_captions_become_one_line(raw, text):
    assert clean(raw) == text
    assert is_clean(text)


@pytest.mark.parametrize(
    "raw",
    [
        "word " * 2_000_000,
        "w" * 10_000_000,
        "a" + "\u0301" * 100_000,
        "\ud800" * 100_000,
        "\u202ea" * 50_000,
    ],
    ids=["words", "word", "marks", "surrogates", "overrides"],
)
def test_long_captions_are_cut_in_no_time(raw):
    assert is_clean(clean(raw))


@pytest.mark.parametrize(
    "raw", ["", "   \n\t", "\0\x01\x02", "\u202e\u202c", "\u200b\ufeff", " " * 20_000 + "x"]
)
def test_a_caption_of_nothing_is_a_bad_sample(raw):
    with pytest.raises(BadSample) as bad:
        clean(raw)
    assert (bad.value.key, bad.value.reason) == ("a/caption", "empty caption")


@pytest.mark.parametrize("raw", [None, 3, 1.5, b"bytes", ["a dog"], {"caption": "a dog"}])
def test_a_caption_that_is_no_text_is_a_bad_sample(raw):
    with pytest.raises(BadSample, match="a/caption: caption is not text"):
        clean(raw)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_becomes_one_line_or_a_bad_sample(raw):
    try:
        text = clean(raw)
    except BadSample as bad:
        assert bad.reason == "empty caption"
    else:
        assert is_clean(text)
        assert clean(text) == text
