"""Damaged and malicious files through datasets and the loader: decoded, or counted and named.

Mutations of tars and tables, seeded: 10,000 in the full tier, 2,000 in the slow one, 240 every day.
"""

import json
import os
import pickle
import random
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmnet.assembly import assemble
from mmnet.compose import load, make
from mmnet.config import Run
from mmnet.data.loader import Reading, eval_batches
from mmnet.errors import UserError
from tests.official import draw
from tests.official.webdataset import sample, write_tar


FULL = bool(os.environ.get("MMNET_FULL"))
SECONDS = 10  # for one mutation, on a busy machine
MEGABYTES = 600  # that all of them may add

WORDS = (
    "model=micro",
    "tracker=none",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "dataset.num_classes=null",
    "dataset.val_fraction=0.4",
    "dataset.image_size=32",
    "head=contrastive",
    "fusion=separate",
)


class Marker:
    """What a pickle would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset's in it, and a cache beside."""
    monkeypatch.setenv("MMNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path


def shard(place: Path) -> Path:
    """A tar of whole samples, and of what a stranger might add."""
    bad = pickle.dumps(Marker(place / "marker"))
    files = [one for number in range(8) for one in sample(number)]
    more = [(f"000003.{kind}", bad) for kind in ("pyd", "pkl", "pickle", "pth", "PYD", "pyd.gz")]
    names = ["../../outside.txt", f"{place}/outside.jpg", "../outside.json"]
    write_tar(place / "data/s.tar", [*files, *more, *((name, b"outside") for name in names)])
    return place / "data/s.tar"


def rows(place: Path, name: str) -> Path:
    """A table of eight pictures."""
    told = [{"image": f"{i}.jpg", "caption": f"says {i}", "label": i % 2} for i in range(8)]
    for i in range(8):
        draw(place / "data" / f"{i}.jpg", i)
    text = "\n".join(json.dumps(row) for row in told)
    if name.endswith("csv"):
        text = "\n".join([",".join(told[0]), *(",".join(map(str, row.values())) for row in told)])
    (place / "data" / name).write_text(text, "utf-8")
    return place / "data" / name


def read_all(folder: Path, run: Run, reading: Reading) -> tuple[int, dict[str, str]]:
    """How many samples are decoded, and the reasons of those that are not, of both splits."""
    found = make(run.dataset, data=folder)
    size, whole, bad = 0, 0, dict[str, str]()
    for side in ("train", "val"):
        if len(found.rows(side)) == 0:
            continue
        split = found.split(side, ("group",))
        size += len(split)
        for batch in eval_batches(
            split, reading, batch_size=4, num_workers=0, device=torch.device("cpu")
        ):
            whole += len(batch.indices)
            bad |= dict(batch.bad)
            assert batch.batch is None or batch.batch.size == len(batch.indices)
    assert whole + len(bad) == size
    return whole, bad


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, moved about, doubled or overwritten somewhere."""
    content = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not content:
            break
        here, there = (rng.randrange(len(content)) for _ in range(2))
        length = rng.choice((1, 7, 512, 1024, 4096))
        match rng.randrange(7):
            case 0:
                del content[here:]
            case 1:
                content[here] ^= 1 << rng.randrange(8)
            case 2:  # blocks in another order
                first, second = here // 512 * 512, there // 512 * 512
                one, two = content[first : first + 512], content[second : second + 512]
                content[first : first + 512], content[second : second + 512] = two, one
            case 3:
                content[here:here] = content[there : there + length]
            case 4:
                del content[here : here + length]
            case 5:
                content[here : here + length] = rng.randbytes(length)
            case 6:
                content[here : here + length] = bytes(length)
    return bytes(content)


def survive(name: str, path: Path, place: Path, count: int, seed: int) -> None:
    run = load(f"dataset={name}", *WORDS, f"paths.data='{path.parent}'")
    (place / "run").mkdir()
    how = assemble(run, place / "run").reading  # as a run of the undamaged data has it
    whole = path.read_bytes()
    before = set(place.iterdir())
    good = read_all(path.parent, run, how)[0]
    assert good >= 8
    rng, reasons, refused = random.Random(seed), set[str](), 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        path.write_bytes(mutated(whole, rng))
        for index in path.parent.glob("*.index"):
            index.unlink()
        began = time.monotonic()
        try:
            decoded, bad = read_all(path.parent, run, how)
            reasons |= set(bad.values())
            assert decoded + len(bad) <= 2 * good
        except UserError as error:
            refused += 1
            assert str(path.parent) in str(error), error
        assert time.monotonic() - began < SECONDS, number
        if number % 100 == 0:
            shutil.rmtree(place / "cache")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEGABYTES
    assert set(place.iterdir()) <= {*before, place / "cache"}, "written or run"
    assert not (place / "marker").exists() and not (place.parent / "outside.txt").exists()
    assert refused and all(len(reason) < 100 for reason in reasons)


CASES = [("webdataset", "s.tar", 40), ("table", "t.csv", 25), ("table", "t.jsonl", 15)]


def hostile(name: str, file: str, count: int, seed: int, place: Path) -> None:
    path = shard(place) if file.endswith("tar") else rows(place, file)
    survive(name, path, place, count, seed)


@pytest.mark.parametrize(("name", "file", "share"), CASES)
def test_a_few_mutations(name: str, file: str, share: int, place: Path) -> None:
    hostile(name, file, 3 * share, 1, place)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize(("name", "file", "share"), CASES)
def test_many_mutations(name: str, file: str, share: int, place: Path) -> None:
    hostile(name, file, share * (125 if FULL else 25), 2, place)
