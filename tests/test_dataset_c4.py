"""C4 and Common Crawl from their files: real ones, and generated ones with what can go wrong."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmnet.dataset.c4 import C4
from mmnet.dataset.commoncrawl import CommonCrawl
from mmnet.errors import UserError
from tests.official.commoncrawl import record, records


def c4(data: Path, **changes: Any) -> C4:
    settings = {
        "root": None,
        "languages": None,
        "passage": None,
        "train_split": ["train"],
        "val_split": ["validation"],
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return C4(**settings | changes, data=data)


def commoncrawl(data: Path, **changes: Any) -> CommonCrawl:
    settings = {
        "root": None,
        "languages": None,
        "passage": None,
        "split_seed": 0,
        "val_fraction": 0.3,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return CommonCrawl(**settings | changes, data=data)


def texts(dataset: Any) -> list[str]:
    return [dataset.table[row].captions[0] for row in range(len(dataset.table))]


def line(number: int, **changes: Any) -> str:
    told = {"url": f"https://x.org/{number}", "text": f"Text {number}\nmore"}
    return json.dumps(told | {"timestamp": "2019-04-25T12:57:54Z"} | changes, ensure_ascii=False)


def write(path: Path, lines: list[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + end
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


# C4


def test_the_real_shards_have_four_documents_of_which_the_last_line_has_no_end(data: Path) -> None:
    # Three lines by `wc -l`, the last one without a line feed.
    found = c4(data / "c4")
    with gzip.open(data / "c4/en/c4-train.00000-of-01024.json.gz") as file:
        lines = file.read().split(b"\n")
    told = [json.loads(one)["text"] for one in lines if one]
    assert texts(found) == told * 2
    assert [len(found.split(name, ())) for name in ("train", "val")] == [len(told)] * 2
    assert found.table.key(0) == (
        "c4-train.00000-of-01024.json.gz:1 "
        "https://klyq.com/beginners-bbq-class-taking-place-in-missoula/"
    )
    assert found.split("val", ()).key(0).startswith("c4-validation.00000-of-00008.json.gz:1 ")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("c4-train.00000-of-01024.json.gz", "train"),
        ("c4-train.00511-of-00512.json.gz", "train"),
        ("c4-train.07167-of-07168.json", "train"),
        ("c4-validation.00000-of-00001.json.gz", "validation"),
        ("c4-de.tfrecord-00000-of-02048.json.gz", "train"),
        ("c4-de-validation.tfrecord-00000-of-00016.json.gz", "validation"),
        ("c4-zh-Latn.tfrecord-00000-of-00001.json.gz", "train"),
        ("c4-zh-Latn-validation.tfrecord-00000-of-00001.json.gz", "validation"),
        ("c4-fil.tfrecord-00000-of-00001.json.gz", "train"),
        ("c4-und.tfrecord-00000-of-00001.json.gz", "train"),
    ],
)
def test_the_split_is_in_the_name_of_a_shard(tmp_path: Path, name: str, split: str) -> None:
    write(tmp_path / "anywhere" / name, [line(1)])
    found = c4(tmp_path)
    assert found.table[0].split == split
    assert len(found.split(split, ())) == 1


def test_languages_are_chosen_by_the_names_of_shards(tmp_path: Path) -> None:
    for number, language in enumerate(("de", "fr", "zh", "zh-Latn")):
        write(tmp_path / f"c4-{language}.tfrecord-00000-of-00001.json.gz", [line(number)])
    assert len(c4(tmp_path).table) == 4
    assert texts(c4(tmp_path, languages=["fr", "zh"])) == ["Text 1\nmore", "Text 2\nmore"]
    with pytest.raises(UserError, match=r"dataset\.languages=zh_Latn: .*mean 'zh-Latn'\?"):
        c4(tmp_path, languages=["zh_Latn"])


def test_two_editions_are_not_one(tmp_path: Path) -> None:
    for edition in ("en", "realnewslike"):
        write(tmp_path / edition / "c4-train.00000-of-00001.json.gz", [line(1)])
    with pytest.raises(UserError, match=r"found .*en, .*realnewslike\. Name it with dataset\.root"):
        c4(tmp_path)
    assert len(c4(tmp_path, root=str(tmp_path / "en")).table) == 1


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    strange = "one\u2028two\u0085three\x0bfour"
    write(tmp_path / "c4-train.00000-of-00001.json", [line(1, text=strange), line(2)], end="")
    assert texts(c4(tmp_path)) == [strange, "Text 2\nmore"]
    split = c4(tmp_path).split("train", ())
    assert split.sample(0, ("text",), None)["text"] == "one two three four"


def test_keys_come_in_any_order_and_empty_pages_are_counted(tmp_path: Path) -> None:
    odd = '{"timestamp":1,"text":"a","more":[1],"url":"u"}'
    write(tmp_path / "c4-train.00000-of-00001.json.gz", [odd, line(2, text=" \n"), "", line(3)])
    found = c4(tmp_path)
    assert texts(found) == ["a", "Text 3\nmore"]
    assert [found.table.key(i).split(":", 1)[1] for i in (0, 1)] == ["1 u", "4 https://x.org/3"]
    assert found.table.notes == {"pages without a text": 1}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace(b'"text"', b'"txet"', 2), r"line 1: .*`text`"),
        (lambda text: text.replace(b'{"url"', b'"url"', 1), r"line 1: "),
        (lambda text: text[:-15], r"line 5: "),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, damage: Any, said: str) -> None:
    name = "c4-train.00000-of-00001.json.gz"
    text = "\n".join(line(n) for n in range(5)).encode()
    (tmp_path / name).write_bytes(gzip.compress(damage(text)))
    with pytest.raises(UserError, match=rf"{name}, {said}"):
        c4(tmp_path)


def test_a_shard_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    name = "c4-train.00000-of-00001.json.gz"
    lines = [line(n, text=f"{n * 7919} words") for n in range(20_000)]
    (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode())[:-9])
    with pytest.raises(UserError, match=rf"{name}, after line \d+: Compressed file ended"):
        c4(tmp_path)


def test_a_split_without_shards_is_said_to_be_missing(tmp_path: Path) -> None:
    write(tmp_path / "c4-train.00000-of-00001.json.gz", [line(1)])
    with pytest.raises(UserError, match=r"val_split=validation: .*it has train \(1\)"):
        c4(tmp_path).split("val", ())


# Common Crawl


def test_the_real_wet_file_has_one_page_and_warcinfo_is_none(data: Path) -> None:
    found = commoncrawl(data / "commoncrawl")
    [text] = texts(found)
    assert found.table[0].key == "https://an.wikipedia.org/wiki/Escopete"
    assert text.startswith("Escopete - Biquipedia, a enciclopedia libre\nIr al contenido\n")
    assert len(text.encode()) == 4456  # Content-Length counts bytes
    assert len(text) < 4456


PAGES = [
    ("https://www.a.org/1", "Eins – ü\u2028zwei", "deu"),
    ("https://a.org/2", "two", "eng,deu"),
    ("https://b.org/3", "three", ""),
    ("https://c.org/4", " \n ", "deu"),
    ("nowhere", "five", "deu"),
]
NAME = "CC-MAIN-1.warc.wet.gz"


def wet(path: Path, pages: list[tuple[str, str, str]] = PAGES, pack: Any = gzip.compress) -> Path:
    path.write_bytes(b"".join(map(pack, records(pages))))
    return path


@pytest.mark.parametrize(("name", "pack"), [(NAME, gzip.compress), (NAME[:-3], bytes)])
def test_pages_are_read_packed_or_not(tmp_path: Path, name: str, pack: Any) -> None:
    wet(tmp_path / name, pack=pack)
    found = commoncrawl(tmp_path)
    assert texts(found) == ["Eins – ü\u2028zwei", "two", "three", "five"]
    assert [found.table[i].group for i in range(4)] == ["a.org", "a.org", "b.org", "nowhere"]
    assert found.table.notes == {"pages without a text": 1}


def test_the_main_language_decides(tmp_path: Path) -> None:
    wet(tmp_path / NAME)
    assert texts(commoncrawl(tmp_path, languages=["deu"])) == ["Eins – ü\u2028zwei", "five"]
    found = commoncrawl(tmp_path, languages=["eng"])
    assert texts(found) == ["two"]
    assert found.table.notes == {"pages in deu": 3, "pages whose language is not told": 1}


def test_pages_of_a_host_are_on_one_side(tmp_path: Path) -> None:
    pages = [(f"https://h{n % 20}.org/{n}", f"page {n}", "") for n in range(200)]
    wet(tmp_path / NAME, pages)
    found = commoncrawl(tmp_path)
    sides = [
        {split.key(i).split("/")[2] for i in range(len(split))}
        for split in (found.split(name, ()) for name in ("train", "val"))
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 20


def test_several_files_are_one_and_other_kinds_of_records_are_none(tmp_path: Path) -> None:
    wet(tmp_path / "a.warc.wet.gz", PAGES[:1])
    other = record("response", "HTTP/1.1 200 OK\r\n\r\n<html>", "WARC-Target-URI: http://x.org")
    (tmp_path / "b.warc.wet.gz").write_bytes(
        gzip.compress(other) + gzip.compress(records(PAGES[1:2])[1])
    )
    (tmp_path / "c.warc.gz").write_bytes(b"not read")
    assert texts(commoncrawl(tmp_path)) == ["Eins – ü\u2028zwei", "two"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-30],
        lambda packed: gzip.compress(gzip.decompress(packed)[:-40]),
        lambda packed: gzip.compress(gzip.decompress(packed)),  # one member for all records
        lambda packed: b"<html>" + packed,
        lambda packed: packed[: len(packed) // 2] + b"\0" * 50 + packed[len(packed) // 2 + 50 :],
    ],
)
def test_a_wet_file_that_is_damaged_is_refused_with_the_place(tmp_path: Path, damage: Any) -> None:
    pages = [(f"https://h{n}.org/", f"page {n} " + "word " * 50, "") for n in range(20)]
    path = wet(tmp_path / NAME, pages)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"{NAME}, after record \d+(, byte \d+)?: ."):
        commoncrawl(tmp_path)


def test_lines_of_either_dataset_that_are_no_utf_8_cost_their_character(tmp_path: Path) -> None:
    whole = records([("https://a.org", "caf\xe9", "")])
    whole[1] = whole[1].replace("\xe9".encode(), b"\xe9 ")
    (tmp_path / NAME).write_bytes(b"".join(map(gzip.compress, whole)))
    assert texts(commoncrawl(tmp_path)) == ["caf\ufffd "]
    assert Counter(commoncrawl(tmp_path).table.notes) == Counter()
