"""LAION: the three outputs of img2dataset, real ones, and the published metadata."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmnet.compose import load, make
from mmnet.errors import UserError
from tests.official import draw, laion
from tests.official.webdataset import picture


OUTPUTS = ("webdataset_256_keepratio", "files_128_border", "parquet_128_centercrop")


def dataset(folder: Path, *words: str) -> Any:
    return make(load("dataset=laion", *laion.WORDS, *words).dataset, data=folder)


def pairs(found: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Address and captions of each sample, which is what all outputs share."""
    rows = (found.table[row] for row in range(len(found.table)))
    return sorted((one.group, one.captions) for one in rows)


def texts(found: Any) -> dict[str, tuple[str, ...]]:
    return dict(pairs(found))


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_of_img2dataset_has_the_same_samples(
    output: str, data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(data / "laion_img2dataset" / output, tmp_path / output)
    found = dataset(folder)
    assert len(found.table) == 199
    assert found.table.notes == {
        "addresses that were not downloaded": 9,
        "pictures that were not resized": 2,
        "samples without a text": 1,
    }
    first = "http://images.cocodataset.org/train2017/000000525891.jpg"
    assert (first, ("A red stop sign next to a large bush with red flowers.",)) in pairs(found)
    split = found.split("train", ())
    for index in range(0, len(split), 10):  # grey and CMYK ones among them
        image = split.sample(index, ("image",), None)["image"]
        assert image.shape == (3, 224, 224)


def test_the_outputs_agree_sample_by_sample(data: Path, tmp_path: Path) -> None:
    said = []
    for output in OUTPUTS:
        folder = shutil.copytree(data / "laion_img2dataset" / output, tmp_path / output)
        said.append(pairs(dataset(folder)))
    assert said[0] == said[1] == said[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    laion.make(tmp_path, tmp_path)
    return tmp_path


def test_a_shard_without_stats_was_not_finished(folder: Path) -> None:
    found = dataset(folder)
    assert len(found.table) == 75
    assert found.table.notes["shards without _stats.json, which were not finished"] == 1
    last = folder / "00002.tar"
    last.write_bytes(last.read_bytes()[:5000])
    (folder / "00002.tar.index").unlink()
    found = dataset(folder)
    assert len(found.table) == 50
    assert found.table.notes["shards that end in the middle, left out"] == 1
    (folder / "00002_stats.json").write_text('{"count": 25, "successes": 25}')
    with pytest.raises(UserError, match=r"00002.tar: damaged or cut short at byte"):
        dataset(folder)


def test_samples_fewer_than_were_written_are_counted(folder: Path) -> None:
    (folder / "00001_stats.json").write_text('{"count": 30, "successes": 29}')
    assert dataset(folder).table.notes["samples fewer than _stats.json has successes"] == 4


def test_captions_that_are_null_are_no_texts(folder: Path) -> None:
    found = dataset(folder)
    assert found.table.notes["samples without a text"] == 7
    assert texts(found)["http://site/3.jpg"] == ()


@pytest.mark.parametrize("names", [("URL", "TEXT"), ("url", "caption"), ("Url", "top_caption")])
def test_metadata_with_pictures_by_row_or_by_md5(names: tuple[str, str], tmp_path: Path) -> None:
    urls = [f"http://site/{number}" for number in range(8)]
    columns = {names[0]: urls, "SAMPLE_ID": list(map(float, range(8)))}
    columns[names[1]] = [None if number == 5 else f"text {number}" for number in range(8)]
    table = pa.table(columns)
    pq.write_table(table.slice(0, 5), tmp_path / "part-00000-aa-c000.snappy.parquet")
    pq.write_table(table.slice(5), tmp_path / "part-00001-aa-c000.snappy.parquet")
    for number in (0, 5, 6):  # counted through all parts
        draw(tmp_path / "images" / f"{number:09d}.jpg", number)
    assert texts(dataset(tmp_path)) == {urls[0]: ("text 0",), urls[5]: (), urls[6]: ("text 6",)}
    shutil.rmtree(tmp_path / "images")
    digest = hashlib.md5(urls[7].encode(), usedforsecurity=False).hexdigest()
    draw(tmp_path / "images" / f"{digest}.jpg")
    found = dataset(tmp_path)
    assert texts(found) == {urls[7]: ("text 7",)}
    assert found.table.notes == {"addresses without a picture": 7}


def test_metadata_of_no_such_columns(data: Path, tmp_path: Path) -> None:
    found = dataset(data / "laion_metadata/laion400m_schema")
    assert found.table.notes == {"addresses without a picture": 210}
    with pytest.raises(UserError, match="img2dataset downloads the pictures"):
        found.split("train", ())
    pq.write_table(pa.table({"URL": ["a"], "WORDS": ["b"]}), tmp_path / "part.parquet")
    with pytest.raises(UserError, match=r"no column called caption or text .*are URL, WORDS"):
        dataset(tmp_path / "x", f"dataset.root='{tmp_path}'")


def test_files_with_json_that_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "00000").mkdir()
    pq.write_table(pa.table({"url": ["a"], "caption": [""]}), tmp_path / "00000.parquet")
    for number in range(3):
        stem = tmp_path / "00000" / f"{number:04d}"
        stem.with_suffix(".webp").write_bytes(picture(number, "WEBP"))
        stem.with_suffix(".json").write_text(
            "{" if number == 1 else json.dumps({"url": str(number)})
        )
        stem.with_suffix(".txt").write_text(f"text {number}")
    found = dataset(tmp_path)
    assert texts(found) == {"0": ("text 0",), "2": ("text 2",)}
    assert found.table.notes["samples with json that is malformed"] == 1
