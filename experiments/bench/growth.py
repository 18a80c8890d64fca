"""Do memory and rate stay what they are from ten thousand samples to a million?

One shard of small photos is linked under many names: an index and a table are made of all of
them, each by itself, and samples are drawn from anywhere. Every size runs in a fresh process.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common
from mmnet.compose import load, make
from mmnet.data.order import epoch_order
from mmnet.data.shard_format import write_tar
from mmnet.dataset import webdataset  # noqa: F401  that its import is not measured


SHARD = 10_000  # samples
SIZES = {"10 k": 1, "100 k": 10, "1 M": 100}  # shards
QUICK_SHARD, QUICK = 200, {"10 k": 1, "1 M": 4}  # the names stay, to have the same rows
DRAWN = 3000  # samples of a round
WORDS = ("dataset=webdataset", "head=contrastive", "fusion=separate", "dataset.val_fraction=0.01")


def write(path: Path, samples: int) -> None:
    """Pictures of 160 x 120, of which a hundred differ, with texts."""
    noise = np.random.default_rng(0)
    files = []
    for _ in range(100):
        small = Image.fromarray(noise.integers(0, 256, (15, 20, 3), np.uint8))
        file = BytesIO()
        small.resize((160, 120), Image.Resampling.BICUBIC).save(file, "JPEG", quality=88)
        files.append(file.getvalue())

    def some() -> Iterator[dict[str, Any]]:
        for number in range(samples):
            text = f"caption {number} of some ten words, as they stand beside pictures"
            yield {
                "__key__": f"{number:09d}",
                "jpg": files[number % 100],
                "txt": text.encode(),
            }

    write_tar(path, some())


def measure(folder: Path, rounds: int, drawn: int) -> dict[str, Any]:
    """In this process: an index and a table of the folder, then samples from anywhere."""
    run = load(*WORDS, "dataset.image_size=112")
    before = memory()
    began = time.process_time()
    dataset = make(run.dataset, data=folder)
    made = time.process_time() - began
    split = dataset.split("train", ())
    decoded, read = [], []
    for turn in range(rounds + 1):
        order = epoch_order(turn, 0, len(split))[:drawn].tolist()
        rng = random.Random(turn)
        began = time.process_time()
        for index in order:
            split.sample(index, ("image", "text"), rng)
        decoded.append((time.process_time() - began) / len(order))
        began = time.process_time()
        for index in order:
            dataset.picture(dataset.table[index].image)
        read.append((time.process_time() - began) / len(order))
    after = memory()
    return {
        "samples": len(dataset.table),
        "made": made / len(dataset.table) * 1e6,
        "decoded": [one * 1e6 for one in decoded[1:]],  # the first one meets cold files
        "read": [one * 1e6 for one in read[1:]],
        "own": after["RssAnon"] - before["RssAnon"],
        "peak": after["VmHWM"] - before["VmRSS"],
    }


def memory() -> dict[str, float]:
    """Megabytes of this process: its own (RssAnon), with mapped files (VmRSS), at most (VmHWM)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) / 1024 for line in lines if line[-1] == "kB"}


def child(folder: Path, rounds: int, drawn: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), str(rounds), str(drawn)],
        env=os.environ | {"MMNET_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    common.say(f"{folder.name}: {found}")
    return found


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=3)
    report = common.Report("growth", given, ("pyarrow", "numpy", "pillow", "torchvision"))
    sizes = QUICK if given.quick else SIZES
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sizes}
    with tempfile.TemporaryDirectory() as place:
        shard = Path(place) / "shard"
        write(shard, QUICK_SHARD if given.quick else SHARD)
        for turn in range(given.rounds):
            for name in [*sizes][turn % len(sizes) :] + [*sizes][: turn % len(sizes)]:
                folder = Path(place) / f"{name}-{turn}".replace(" ", "")
                folder.mkdir()
                for number in range(sizes[name]):
                    os.link(shard, folder / f"{number:05d}.tar")
                found[name].append(
                    child(folder, 1 if given.quick else 3, 60 if given.quick else DRAWN)
                )
                for path in sorted(folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()

    def column(name: str, what: str) -> list[float]:
        return [
            float(np.median(one[what])) if isinstance(one[what], list) else one[what]
            for one in found[name]
        ]

    small, large = "10 k", "1 M"
    for what, words in (("decoded", "a sample, decoded"), ("read", "a sample, its bytes")):
        aim = {"aim": round(1 / 0.95, 3)} if what == "decoded" else {}
        report.ratio(f"{words}: {large} / {small}", column(large, what), column(small, what), **aim)
    grown = [b - a for a, b in zip(column(small, "own"), column(large, "own"), strict=True)]
    report.figure(f"memory of its own: {large} - {small}", grown, "MB", aim=50)
    for name in sizes:
        report.figure(f"{name}: a sample, decoded", column(name, "decoded"), "us")
        report.figure(f"{name}: a sample, its bytes", column(name, "read"), "us")
        report.figure(f"{name}: index and table, a sample, once", column(name, "made"), "us")
        report.figure(f"{name}: memory of its own", column(name, "own"), "MB")
        report.figure(
            f"{name}: memory at its peak, mapped files and all", column(name, "peak"), "MB"
        )
    report.finish()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(Path(sys.argv[2]), *map(int, sys.argv[3:]))))
    else:
        main()
