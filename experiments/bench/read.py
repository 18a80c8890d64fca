"""What does it cost to read a sample of a shard, undecoded? mmnet's index against streams.

Shards of samples of three files (a picture's bytes, a text, JSON) lie in memory, as the system
keeps what was read lately. webdataset's own reader and tarfile go through them from front to
back; mmnet reads the same files of every sample in an order drawn over all shards.
"""

import json
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common
from mmnet.compose import load, make
from mmnet.data.places import Places, place_of
from mmnet.data.shard_format import write_tar
from mmnet.data.tar_index import index_of, write_index


SHARDS, SAMPLES = 4, 1000  # of each shard
QUICK_SAMPLES = 50
PICTURE = 57_000  # bytes, as of photos of 500 x 375
WORDS = ("dataset=webdataset", "head=contrastive", "fusion=separate", "dataset.val_fraction=0.01")


def write(folder: Path, samples: int) -> list[Path]:
    """Shards of noise."""
    folder.mkdir()
    rng = random.Random(0)

    def some(shard: int) -> Iterator[dict[str, Any]]:
        for number in range(samples):
            size = rng.randrange(PICTURE // 2, PICTURE * 3 // 2)
            told = {"url": f"http://site/{number}", "similarity": rng.random()}
            yield {
                "__key__": f"{shard:05d}{number:04d}",
                "jpg": rng.randbytes(size),
                "json": json.dumps(told).encode(),
                "txt": b"a caption of some ten words, as they stand beside pictures",
            }

    paths = [folder / f"{shard:05d}.tar" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        write_tar(path, some(shard))
    return paths


def timed(samples: int, read: Callable[[], int]) -> float:
    """CPU microseconds a sample; `read` returns the bytes that it saw."""
    began = time.process_time()
    total = read()
    took = time.process_time() - began
    assert total > samples * PICTURE // 2
    return took / samples * 1e6


def by_webdataset(paths: list[Path], shuffle: int) -> int:
    import webdataset as wds

    found = wds.WebDataset([str(path) for path in paths], shardshuffle=False, empty_check=False)
    if shuffle:
        found = found.shuffle(shuffle)
    return sum(len(one["jpg"]) + len(one["txt"]) + len(one["json"]) for one in found)


def by_tarfile(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                total += len(file.read()) if file else 0
                vars(tar)["members"] = []  # which it would keep, as webdataset sees to as well
    return total


def places(paths: list[Path]) -> list[list[str]]:
    """Of the files of each sample."""
    return [
        [place_of(path.name, *member[1:]) for member in members]
        for path in paths
        for _, members in index_of(path).samples()
    ]


def by_index(opened: Places, order: list[list[str]]) -> int:
    return sum(len(opened.read(place)) for one in order for place in one)


def by_dataset(dataset: Any, rows: list[int]) -> int:
    """What training does before it decodes: the record, and the picture's bytes."""
    total = 0
    for row in rows:
        record = dataset.table[row]
        total += len(dataset.picture(record.image)) + len(record.captions[0])
    return total


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=9)
    report = common.Report("read", given, ("webdataset", "pyarrow", "numpy"))
    count = (QUICK_SAMPLES if given.quick else SAMPLES) * SHARDS
    with tempfile.TemporaryDirectory() as place:
        paths = write(Path(place) / "shards", count // SHARDS)
        plain = places(paths)
        summed_paths = write(Path(place) / "summed", count // SHARDS)
        for path in summed_paths:
            write_index(path, checksums=True)
        began = time.process_time()
        for path in paths:
            write_index(path)
        indexed = (time.process_time() - began) / count * 1e6
        summed = places(summed_paths)
        dataset = make(load(*WORDS).dataset, data=paths[0].parent)
        order = np.random.default_rng(0).permutation(count).tolist()
        opened, checked = Places(paths[0].parent), Places(summed_paths[0].parent)
        drawn, with_sums = [plain[i] for i in order], [summed[i] for i in order]
        contenders = {
            "webdataset": lambda: by_webdataset(paths, 0),
            "webdataset, shuffle(1000)": lambda: by_webdataset(paths, 1000),
            "tarfile": lambda: by_tarfile(paths),
            "mmnet, any order": lambda: by_index(opened, drawn),
            "mmnet, any order, checksums": lambda: by_index(checked, with_sums),
            "mmnet, record and picture": lambda: by_dataset(dataset, order),
        }
        for read in contenders.values():  # so that all is in memory, and imported
            read()
        figures = common.interleave(
            {name: partial(timed, count, read) for name, read in contenders.items()},
            given.rounds,
        )
    ours = figures["mmnet, any order"]
    report.ratio("mmnet, any order / webdataset", ours, figures["webdataset"], aim=0.2)
    report.ratio(
        "mmnet, any order, checksums / webdataset",
        figures["mmnet, any order, checksums"],
        figures["webdataset"],
    )
    report.ratio("mmnet, any order / tarfile", ours, figures["tarfile"])
    for name, values in figures.items():
        aim = {"aim": 20} if name == "mmnet, any order" else {}
        report.figure(f"{name}, a sample", values, "us", **aim)
    report.figure("making the index, a sample, once", [indexed], "us")
    report.finish()


if __name__ == "__main__":
    main()
