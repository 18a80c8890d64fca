"""arXiv from its metadata: real lines, and generated ones with what can go wrong."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmnet.dataset.arxiv import Arxiv
from mmnet.errors import UserError


def arxiv(data: Path, **changes: Any) -> Arxiv:
    settings = {
        "root": None,
        "num_classes": 16,
        "passage": None,
        "split_seed": 0,
        "val_fraction": 0.3,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return Arxiv(**settings | changes, data=data)


# The published file


def test_the_real_lines_say_what_they_are_about(data: Path) -> None:
    found = arxiv(data / "arxiv")
    text = (data / "arxiv/arxiv-metadata-oai-snapshot.json").read_text("utf-8")
    papers = [json.loads(line) for line in text.split("\n") if line]
    assert len(found.table) == len(papers) == 140
    assert found.names.classes == found.names.labels == sorted(found.names.classes)
    for row, paper in enumerate(papers):
        record = found.table[row]
        archives = [one.split(".")[0] for one in paper["categories"].split()]
        assert record.key == paper["id"]
        assert record.label is not None
        assert found.names.classes[record.label] == archives[0]
        assert {found.names.labels[i] for i in record.present or ()} == set(archives)
    assert found.table[0].key == "0704.0001"


def test_titles_and_abstracts_are_cleaned_and_latex_is_left_alone(data: Path) -> None:
    found = arxiv(data / "arxiv")
    samples: dict[str, Any] = {}
    for name in ("train", "val"):
        split = found.split(name, ("label", "labels"))
        samples |= {split.key(i): split.sample(i, ("text",), None) for i in range(len(split))}
    told = samples["0704.0001"]
    assert told["text"].startswith(
        "Calculation of prompt diphoton production cross sections at Tevatron and LHC energies "
        "A fully differential calculation in perturbative quantum chromodynamics is presented for"
    )
    assert (sum(told["labels"]), found.names.classes[told["label"]]) == (1, "hep-ph")
    assert "$(k,\\ell)$-pebble game" in samples["0704.0002"]["text"]
    assert not any(re.search(r"\s\s|^\s|\s$|\n", one["text"]) for one in samples.values())


# Generated files


def paper(number: str, categories: Any = "cs.LG math.CO", **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "submitter": None,
        "title": f"On {number}\n  and more",
        "journal-ref": None,
        "categories": categories,
        "abstract": f"  About {number}.\n",
        "versions": [{"version": "v1"}],
    } | changes


PAPERS = [
    paper("0704.0010"),
    paper("hep-th/9901001", "hep-th"),
    paper("2001.1", ["stat.ML cs.AI"]),
    paper("2001.2", ["q-bio.NC", "math-ph"]),
]


def lines(papers: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, papers))


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("arxiv-metadata-oai-snapshot.json", lines(PAPERS).encode()),
        ("arxiv-metadata-oai-snapshot.json", json.dumps(PAPERS, indent=1).encode()),
        (
            "arxiv-metadata-oai-snapshot-2020-08-14.json",
            b"\xef\xbb\xbf \n" + json.dumps(PAPERS).encode(),
        ),
        ("arxiv-metadata.json.gz", gzip.compress(lines(PAPERS).encode())),
        ("arxiv-metadata.json.gz", gzip.compress(json.dumps(PAPERS).encode())),
        ("arxiv.jsonl", lines(PAPERS).encode()),
    ],
)
def test_lines_or_an_array_by_the_first_byte(tmp_path: Path, name: str, written: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(written)
    found = arxiv(tmp_path, num_classes=6)
    assert found.names.classes == ["cs", "hep-th", "math", "math-ph", "q-bio", "stat"]
    records = [found.table[row] for row in range(len(found.table))]
    assert [one.key for one in records] == ["0704.0010", "hep-th/9901001", "2001.1", "2001.2"]
    assert [one.label for one in records] == [0, 1, 5, 4]
    assert [one.present for one in records] == [(0, 2), (1,), (5, 0), (4, 3)]


def test_a_category_of_the_same_archive_counts_once(tmp_path: Path) -> None:
    (tmp_path / "arxiv.json").write_text(lines([paper("1", "cs.LG cs.AI math.CO")]))
    assert arxiv(tmp_path, num_classes=2).table[0].present == (0, 1)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    more = [paper("3", ""), paper("4", title=None, abstract=" \n"), paper("0704.0010")]
    (tmp_path / "arxiv.json").write_text(lines([*PAPERS, *more, paper("5", abstract=None)]))
    found = arxiv(tmp_path, num_classes=6)
    assert [found.table.key(i) for i in range(len(found.table))][-1] == "5"
    assert len(found.table) == 5
    assert found.table.notes == {
        "papers without a category": 1,
        "papers without a text": 1,
        "papers that are there twice": 1,
    }


def test_a_paper_stays_on_its_side_when_others_are_added(tmp_path: Path) -> None:
    sides = []
    for count in (100, 200):
        (tmp_path / str(count)).mkdir()
        papers = [paper(f"0704.{n:04}") for n in range(count)]
        (tmp_path / str(count) / "arxiv.json").write_text(lines(papers))
        split = arxiv(tmp_path / str(count), num_classes=2).split("val", ())
        sides.append({split.key(i) for i in range(len(split))})
    assert sides[0] == {key for key in sides[1] if int(key[5:]) < 100}
    assert len(sides[0]) == pytest.approx(30, abs=12)


def test_the_number_of_classes_must_be_that_of_the_file(data: Path) -> None:
    with pytest.raises(UserError, match=r"num_classes=38, but .* has 16: astro-ph, cond-mat"):
        arxiv(data / "arxiv", num_classes=38)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lines([*PAPERS, paper("6", id=704.0001)]), r"arxiv\.json, line 5: .*`str`, got `float`"),
        (lines([*PAPERS, paper("6", 5)]), r"arxiv\.json, line 5: .*categories"),
        (lines(PAPERS)[:-9], r"arxiv\.json, line 4: "),
        (lines(PAPERS).replace('"abstract"', '"abstrac"', 1), r"line 1: .*`abstract`"),
        (json.dumps(PAPERS)[:-9], r"arxiv\.json: "),
        (json.dumps([*PAPERS, {"id": "7"}]), r"arxiv\.json: .*\$\[4\]"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "arxiv.json").write_text(written)
    with pytest.raises(UserError, match=said):
        arxiv(tmp_path, num_classes=6)
