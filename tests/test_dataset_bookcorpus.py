"""BookCorpus from its files: real sentences, and generated ones with what can go wrong."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmnet.dataset.bookcorpus import BookCorpus
from mmnet.errors import UserError


def bookcorpus(data: Path, **changes: Any) -> BookCorpus:
    settings = {
        "root": None,
        "passage": 1000,
        "split_seed": 0,
        "val_fraction": 0.2,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return BookCorpus(**settings | changes, data=data)


def records(dataset: BookCorpus) -> list[Any]:
    return [dataset.table[row] for row in range(len(dataset.table))]


def sides(dataset: BookCorpus) -> list[set[str]]:
    """What the keys of each split begin with, up to the number."""
    splits = [dataset.split(name, ()) for name in ("train", "val")]
    return [{split.key(i) for i in range(len(split))} for split in splits]


# The published sentences


def real_lines(data: Path) -> list[str]:
    parts = sorted((data / "books/bookcorpus_layout").glob("books_large_p*.txt"))
    assert len(parts) == 2
    return [line for part in parts for line in part.read_text("utf-8").split("\n") if line]


def test_every_real_sentence_is_there_once_and_in_order(data: Path) -> None:
    found = records(bookcorpus(data / "books"))
    told = " ".join(record.captions[0] for record in found)
    assert told == " ".join(line.strip() for line in real_lines(data))
    assert max(len(record.captions[0]) for record in found) <= 1000
    assert found[0].key == "books_large_p1.txt:1"
    assert found[0].captions[0].startswith("alice 's adventures in wonderland lewis carroll the")


def test_without_passages_a_sample_is_a_line(data: Path) -> None:
    found = bookcorpus(data / "books", passage=None)
    assert [record.captions[0] for record in records(found)] == [
        line.strip() for line in real_lines(data)
    ]


def test_real_passages_are_as_long_as_they_can_be(data: Path) -> None:
    found = records(bookcorpus(data / "books"))
    for one, other in pairwise(found):
        if one.group == other.group and "#" not in one.key + other.key:
            assert len(one.captions[0]) + len(other.captions[0]) >= 1000 - 500


def test_five_hundred_lines_in_a_row_are_on_one_side(data: Path) -> None:
    train, val = (
        {(part, int(line.split("#")[0]) // 500) for part, line in parted}
        for parted in (
            [(key.split(":")[0], str(int(key.split(":")[1].split("#")[0]) - 1)) for key in keys]
            for keys in sides(bookcorpus(data / "books"))
        )
    )
    assert not train & val
    assert train and val


# Generated files


def write(folder: Path, **books: str) -> None:
    folder.mkdir(parents=True)
    for name, text in books.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8", newline="")


def test_groups_are_counted_by_lines_of_the_file_blank_ones_too(tmp_path: Path) -> None:
    lines = [f"s{n} ." if n % 3 else "" for n in range(1200)]
    write(tmp_path / "x", books_large_p1="\n".join(lines))
    groups: dict[str, list[str]] = defaultdict(list)
    for record in records(bookcorpus(tmp_path)):
        groups[record.group] += record.captions[0].split(" . ")
    assert list(groups) == [f"books_large_p1.txt/{n}" for n in range(3)]
    assert groups["books_large_p1.txt/1"][0] == "s500"
    assert groups["books_large_p1.txt/1"][-1] == "s998 ."  # 999 is blank


def test_all_numbered_parts_are_read(tmp_path: Path) -> None:
    write(tmp_path / "x", books_large_p1="one .\n", books_large_p2="two .", books_large_p3="three")
    assert [record.captions[0] for record in records(bookcorpus(tmp_path))] == [
        *("one .", "two .", "three")
    ]


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    write(tmp_path / "x", books_large_p1="a\u2028b .\r\nc\x0bd\x85e .\n\n \nf")
    found = records(bookcorpus(tmp_path, passage=None))
    assert [record.captions[0] for record in found] == ["a\u2028b .", "c\x0bd\x85e .", "f"]
    assert [record.key for record in found] == [f"books_large_p1.txt:{n}" for n in (1, 2, 5)]


def test_a_book_a_file_of_sentences_is_on_one_side(tmp_path: Path) -> None:
    books = {
        f"{n}__a-book": "\n".join(f"book {n} line {i} ." for i in range(900)) for n in range(30)
    }
    write(tmp_path / "any/books_in_sentences", **books)
    found = bookcorpus(tmp_path)
    assert found.folder == tmp_path / "any"
    assert {len(record.captions[0]) > 900 for record in records(found)} == {True, False}
    train, val = ({key.split(":")[0] for key in keys} for keys in sides(found))
    assert not train & val
    assert len(train | val) == 30
    told = " ".join(one.captions[0] for one in records(found) if "/7__" in one.key)
    assert told == books["7__a-book"].replace("\n", " ")


@pytest.mark.parametrize("place", ["epubtxt", "books1/epubtxt"])
def test_whole_books_are_divided_where_paragraphs_end(tmp_path: Path, place: str) -> None:
    paragraphs = [f"Paragraph {n}.\nIt goes on. " + "word " * 60 for n in range(20)]
    books = {"a.epub": "\n\n".join(paragraphs), "b.epub": "short", "c.epub": " \n"}
    write(tmp_path / "any" / place, **books)
    found = bookcorpus(tmp_path)
    assert found.table.notes == {"books without a text": 1}
    told = records(found)
    assert told[-1].key.endswith("b.epub.txt")
    assert {record.group for record in told[:-1]} == {told[0].key.partition("#")[0]}
    assert all(record.captions[0].startswith("Paragraph ") for record in told[:-1])
    assert " ".join(" ".join(one.captions[0].split()) for one in told[:-1]) == " ".join(
        books["a.epub"].split()
    )


@pytest.mark.parametrize("place", ["epubtxt", "books_in_sentences"])
def test_a_book_that_is_there_twice_is_read_once(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, a="one .\ntwo .", b="one .\ntwo .", c="one .\nthree .")
    found = bookcorpus(tmp_path)
    assert len({record.key.split(":")[0] for record in records(found)}) == 2
    assert found.table.notes == {"books that are there twice": 1}


def test_a_sentence_longer_than_a_passage_is_divided(tmp_path: Path) -> None:
    write(tmp_path / "x", books_large_p1="short .\n" + "word " * 50 + "\nend .")
    found = records(bookcorpus(tmp_path, passage=100))
    assert [record.key for record in found] == [
        "books_large_p1.txt:1",
        *(f"books_large_p1.txt:2#{n}" for n in (1, 2, 3)),
        "books_large_p1.txt:3",
    ]
    assert len({record.group for record in found}) == 1


def test_bytes_that_are_no_utf_8_cost_their_character(tmp_path: Path) -> None:
    (tmp_path / "books_large_p1.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9 .\n")
    assert records(bookcorpus(tmp_path))[0].captions == ("caf\ufffd .",)


def test_no_books_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset=bookcorpus wants .* holds books_large_p1\.txt"):
        bookcorpus(tmp_path)
