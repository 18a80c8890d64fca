"""Wikipedia from dumps and Parquet files: real ones, and generated ones with what can go wrong."""

import bz2
import gzip
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmnet.data.wiki_dump import Dump
from mmnet.data.wikitext import Page, plain, plain_pages
from mmnet.dataset import wikipedia as module
from mmnet.dataset.wikipedia import Wikipedia
from mmnet.errors import UserError


def wikipedia(data: Path, **changes: Any) -> Wikipedia:
    settings = {
        "root": None,
        "markup": "strip",
        "passage": None,
        "split_seed": 0,
        "val_fraction": 0.2,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return Wikipedia(**settings | changes, data=data)


def texts(dataset: Wikipedia) -> dict[str, str]:
    """Whole text by key."""
    return {
        row.key: row.captions[0]
        for row in map(dataset.table.__getitem__, range(len(dataset.table)))
    }


# The published files


def test_the_real_dump_has_106_articles(data: Path) -> None:
    found = wikipedia(data / "wikipedia")
    assert found.folder == data / "wikipedia"
    assert len(found.table) == 106
    assert found.table.notes == {"redirects": 99, "pages that are no articles": 1}
    first = found.table[0]
    assert (first.key, first.group) == ("12 Anarchism", "12")
    assert first.captions[0].startswith(
        "Anarchism is a political philosophy that advocates self-governed societies based on "
        "voluntary institutions. These are often"
    )
    for text in texts(found).values():
        assert not any(mark in text for mark in ("[[", "'''", "<ref", "\nCategory:", "\n\n\n"))


def test_the_real_parquet_files_are_read_as_they_stand(data: Path) -> None:
    found = wikipedia(data / "wikipedia/hf_parquet")
    [path] = (data / "wikipedia/hf_parquet").rglob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert texts(found) == {f"{row['id']} {row['title']}": row["text"] for row in rows}


def test_an_article_is_on_the_same_side_in_either_edition(data: Path) -> None:
    editions = [wikipedia(data / "wikipedia"), wikipedia(data / "wikipedia/hf_parquet")]
    sides = [
        {
            name: {split.key(i) for i in range(len(split))}
            for name in ("train", "val")
            for split in [dataset.split(name, ())]
        }
        for dataset in editions
    ]
    assert sides[0]["val"] & sides[1]["val"]
    assert not sides[0]["val"] & sides[1]["train"]
    assert not sides[1]["val"] & sides[0]["train"]


def test_passages_of_an_article_share_its_side(data: Path) -> None:
    found = wikipedia(data / "wikipedia", passage=500)
    sides: list[set[str]] = []
    for name in ("train", "val"):
        split = found.split(name, ())
        sides.append({split.key(i).rpartition("#")[0] or split.key(i) for i in range(len(split))})
        assert max(len(split.sample(i, ("text",), None)["text"]) for i in range(len(split))) <= 500
    assert not sides[0] & sides[1]


# Generated files


def page(number: int, title: str, text: str | None, space: int = 0, more: str = "") -> str:
    inner = "<text bytes='0' />" if text is None else f"<text xml:space='preserve'>{text}</text>"
    return (
        f"<page><title>{title}</title><ns>{space}</ns><id>{number}</id>{more}<revision>"
        f"<id>9{number}</id><contributor><id>7</id></contributor>{inner}</revision></page>"
    )


SITE = (
    '<siteinfo><namespaces><namespace key="6">Datei</namespace><namespace key="0" />'
    '<namespace key="14">Kategorie</namespace><namespace key="1">Diskussion</namespace>'
    "</namespaces></siteinfo>"
)
PAGES = [page(n, f"Title {n}", f"Text of ''{n}''.") for n in range(1, 9)]


def dump(pages: list[str], version: str | None = "0.11") -> str:
    schema = f' xmlns="http://www.mediawiki.org/xml/export-{version}/"' if version else ""
    return f"<mediawiki{schema}>\n{SITE}\n" + "\n".join(pages) + "\n</mediawiki>\n"


EXPECTED = {f"{n} Title {n}": f"Text of {n}." for n in range(1, 9)}


@pytest.mark.parametrize("version", ["0.3", "0.10", "0.11", None])
def test_every_version_of_the_schema(tmp_path: Path, version: str | None) -> None:
    (tmp_path / "dewiki-20240101-pages-articles.xml").write_text(dump(PAGES, version))
    assert texts(wikipedia(tmp_path)) == EXPECTED


def multistream(text: str) -> bytes:
    """Several bzip2 streams in a row, as multistream dumps are."""
    data = text.encode()
    return b"".join(bz2.compress(data[i : i + 300]) for i in range(0, len(data), 300))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("enwiki-20240101-pages-articles.xml", str.encode),
        ("enwiki-20240101-pages-articles.xml.gz", lambda text: gzip.compress(text.encode())),
        ("enwiki-20240101-pages-articles.xml.bz2", lambda text: bz2.compress(text.encode())),
        ("enwiki-20240101-pages-articles-multistream.xml.bz2", multistream),
        ("enwiki-20240101-pages-articles-multistream1.xml-p1p41242.bz2", multistream),
        ("any.xml", lambda text: text.encode("utf-16")),
        (
            "any.xml",
            lambda text: ('<?xml version="1.0" encoding="utf-16"?>' + text).encode("utf-16"),
        ),
        ("any.xml.bz2", lambda text: bz2.compress(text.encode("utf-16"))),
        ("named wrongly.xml.gz", lambda text: bz2.compress(text.encode())),
    ],
)
def test_every_way_a_dump_is_packed(tmp_path: Path, name: str, pack: Any) -> None:
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / name).write_bytes(pack(dump(PAGES)))
    assert texts(wikipedia(tmp_path)) == EXPECTED


def test_numbered_parts_are_one_and_an_article_given_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "x-pages-articles1.xml-p1p4").write_text(dump(PAGES[:5]))
    (tmp_path / "x-pages-articles2.xml-p5p8").write_text(dump(PAGES[4:]))
    (tmp_path / "x-pages-articles-multistream-index.txt.bz2").write_bytes(bz2.compress(b"1:2:a"))
    (tmp_path / "siteinfo.xml").write_text("<other/>")
    found = wikipedia(tmp_path)
    assert texts(found) == EXPECTED
    assert found.table.notes == {"articles that are there twice": 1}


def test_what_is_no_article_is_left_out_and_counted(tmp_path: Path) -> None:
    pages = [
        *PAGES,
        page(20, "Talk:A", "talk", space=1),
        page(21, "B", "#REDIRECT [[C]]", more='<redirect title="C" />'),
        page(22, "D", "  #redirect [[C]]"),
        page(23, "E", None),
        page(24, "F", "{{only|a template}}"),
    ]
    (tmp_path / "any.xml").write_text(dump(pages))
    found = wikipedia(tmp_path)
    assert texts(found) == EXPECTED
    assert found.table.notes == {
        "pages that are no articles": 1,
        "redirects": 2,
        "pages without a text": 2,
    }


def test_an_old_dump_without_numbers_of_namespaces_tells_them_by_their_names(
    tmp_path: Path,
) -> None:
    pages = [page(1, "Star Trek: Picard", "text"), page(2, "Diskussion:Star Trek", "talk")]
    old = [one.replace("<ns>0</ns>", "") for one in pages]
    (tmp_path / "any.xml").write_text(dump(old, "0.3"))
    assert texts(wikipedia(tmp_path)) == {"1 Star Trek: Picard": "text"}


def test_names_of_namespaces_are_those_of_the_wiki(tmp_path: Path) -> None:
    text = "[[Datei:a.jpg|mini|ein [[Bild]]]]Text[[Kategorie:Alles]] [[Diskussion:x|sagt]]"
    (tmp_path / "any.xml").write_text(dump([page(1, "T", text)]))
    assert texts(wikipedia(tmp_path)) == {"1 T": "Text sagt"}


def test_markup_is_kept_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "any.xml").write_text(dump(PAGES))
    found = texts(wikipedia(tmp_path, markup="keep"))
    assert found["1 Title 1"] == "Text of ''1''."


def cut(text: str) -> bytes:
    return text[: len(text) // 2].encode()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (cut, r"any\.xml: no whole XML dump: .*line \d+, column"),
        (lambda text: bz2.compress(text.encode())[:-20], r"any\.xml: Compressed file ended"),
        (lambda text: gzip.compress(text.encode())[:-20], r"any\.xml: Compressed file ended"),
        (lambda text: text.replace("</page>", "</pag>", 1).encode(), r"mismatched tag: line 3"),
    ],
)
def test_a_dump_that_is_damaged_is_refused_with_the_place(
    tmp_path: Path, broken: Any, said: str
) -> None:
    (tmp_path / "any.xml").write_bytes(broken(dump(PAGES * 200)))
    with pytest.raises(UserError, match=said):
        wikipedia(tmp_path)


def rows(count: int, first: int = 0) -> dict[str, list[str]]:
    numbers = [str(n) for n in range(first, first + count)]
    return {
        "id": numbers,
        "url": [f"https://x.org/{n}" for n in numbers],
        "title": [f"T{n}" for n in numbers],
        "text": [f"Text {n}\n\nmore" for n in numbers],
    }


def test_parquet_files_are_known_by_their_columns_and_all_are_read(tmp_path: Path) -> None:
    folder, other = tmp_path / "oddly" / "named", tmp_path / "other"
    for one in (folder, other):
        one.mkdir(parents=True)
    for number in range(3):
        pq.write_table(pa.table(rows(10, 10 * number)), folder / f"part{number}.parquet")
    pq.write_table(pa.table({"image": ["a"], "text": ["b"]}), folder / "of something else.parquet")
    pq.write_table(pa.table({"url": ["a"], "text": ["b"]}), other / "x.parquet")
    (other / "broken.parquet").write_bytes(b"PAR1")
    found = wikipedia(tmp_path)
    assert found.folder == folder
    assert len(found.table) == 30
    assert found.table[29].key == "29 T29"
    with pytest.raises(UserError, match=r"holds no dump .* columns id, url, title, text"):
        wikipedia(tmp_path, root=str(other))


def test_two_wikis_are_not_one(tmp_path: Path) -> None:
    for language in ("de", "fr"):
        (tmp_path / f"20231101.{language}").mkdir()
        pq.write_table(pa.table(rows(5)), tmp_path / f"20231101.{language}/train-0.parquet")
    with pytest.raises(UserError, match=r"20231101\.de, .*20231101\.fr\. Name it"):
        wikipedia(tmp_path)


# Its markup


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''A''' ''b'' '''''c'''''", "A b c"),
        ("[[a]] [[b|c]] [[d]]s [[:Category:E]]", "a c ds Category:E"),
        ("x[[File:a.jpg|thumb|cap [[b]] d]][[category:y]][[de:Z]][[zh-min-nan:Z]]y", "xy"),
        ("a {{cite|{{b}}|c}} d", "a  d"),
        ("a<ref>b</ref>c<ref name='d'/>e<REF name=f>g\nh</REF>i<!-- j\nk -->l", "aceil"),
        ("a<!-- never closed", "a"),
        ("a <ref>never closed. b", "a <ref>never closed. b"),
        ("== A ==\none\n=== B ===\ntwo", "A\n\none\n\nB\n\ntwo"),
        ("a\n{| class=x\n! h\n|-\n| c || d\n|}\nb", "a\n\nb"),
        ("* a\n** b\n# c", "a\nb\nc"),
        ("a &amp; b&nbsp;c &#8211; d<br />e", "a & b c – d\ne"),
        ("[http://a.org b c] [http://d.org] http://e.org", "b c  http://e.org"),
        ("a <math>x^2</math> <gallery>f.jpg</gallery> <span style='x'>b</span>", "a   b"),
        ("__NOTOC__\na", "a"),
        ("", ""),
    ],
)
def test_markup_becomes_what_a_reader_sees(markup: str, text: str) -> None:
    assert plain(markup) == text


def many(count: int) -> Iterator[Page]:
    return (Page(str(n), f"T{n}", f"''{n}'' [[a|b]]") for n in range(count))


def test_more_processes_give_the_same_in_the_same_order() -> None:
    one, two = (list(plain_pages(many(333), frozenset(), processes)) for processes in (1, 2))
    assert one == two
    assert [page.number for page, _ in two] == [str(n) for n in range(333)]


def test_processes_stop_when_nobody_reads_on() -> None:
    pages = plain_pages(many(10**9), frozenset(), 2)
    assert next(pages)[0].text == "0 b"
    pages.close()  # type: ignore[attr-defined]


def test_large_dumps_are_read_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "any.xml").write_text(dump(PAGES))
    monkeypatch.setattr(module, "LARGE", 1)
    assert texts(wikipedia(tmp_path)) == EXPECTED


@pytest.mark.parametrize("unit", ["<ref>", "{{", "[[", "{|\n", "'''", "<!--", "<div>", "[[a|"])
def test_hostile_markup_costs_little_and_raises_nothing_else(unit: str) -> None:
    start = time.process_time()
    [(page, _)] = plain_pages(iter([Page("1", "t", unit * 100_000)]), frozenset(), 1)
    assert page.number == "1"
    assert time.process_time() - start < 5


def test_memory_stays_flat(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.xml"
        path.write_text(dump([page(n, f"T{n}", "word " * 1000) for n in range(count)]))
        tracemalloc.start()
        for _ in Dump(path, Counter()).pages():
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(2000) < 1.3 * peak(200) + 200_000
