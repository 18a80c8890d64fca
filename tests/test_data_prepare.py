"""Shards that are written once: whole whatever happens, and the same samples when read back."""

import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset
from PIL import Image

from mmnet.compose import load, make
from mmnet.data.image import read_image
from mmnet.data.shard_format import read_card
from mmnet.data_commands import options
from mmnet.data_commands.chosen import choose
from mmnet.data_commands.prepare import prepare
from mmnet.errors import UserError
from mmnet.session import run_training
from tests.command import ROOT
from tests.data_commands import verified
from tests.jobs import fingerprint
from tests.official import NAMES, official


COCO = ("dataset=coco",)
PLAIN = ("tracker=none", "hardware=cpu", "hardware.precision=fp32", "hardware.threads=1")


def made(out: Path, *words: str) -> list[str]:
    chosen, asked = options.read([*words, f"out='{out}'"], options.Prepare, choose)
    return list(prepare(chosen, asked))


def digests(out: Path) -> dict[str, str]:
    """Of the shards and of what is said of them."""
    files = [*out.glob("*.tar"), out / "bad.jsonl", out / "SHA256SUMS", out / "dataset.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def dataset(name: str, folder: Path, *words: str) -> Any:
    chosen, _ = options.read(
        [f"dataset={name}", f"paths.data='{folder}'", *words], options.Verify, choose
    )
    return make(chosen.part, data=folder)


def told(split: Any) -> dict[str, Any]:
    """What each sample of a split is, by its key: as evaluation and as training sees it."""
    views = {}
    for index in range(len(split)):
        seen = [split.sample(index, ("image", "text"), None)]
        seen += [split.sample(index, ("image", "text"), random.Random(seed)) for seed in (1, 2)]
        views[split.key(index)] = fingerprint(seen)
    return views


@pytest.fixture(scope="module")
def coco(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real pictures, prepared."""
    out = tmp_path_factory.mktemp("coco") / "shards"
    made(out, *COCO, f"paths.data={data / 'coco'}", "shard_mb=3", "workers=1")
    return out


@pytest.fixture
def sbu(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "sbu"
    folder.mkdir()
    official("sbu").make(folder, data)
    return folder


SBU = ("dataset=sbu", "dataset.val_fraction=0.2", "shard_mb=1", "workers=1")


def test_cocos_shards_are_cocos_samples(coco: Path, data: Path) -> None:
    targets = ("label", "labels", "value", "group", "match")
    for size in ("dataset.image_size=32", "dataset.image_size=null"):
        before, after = (
            dataset(name, folder, size)
            for name, folder in (("coco", data / "coco"), ("webdataset", coco))
        )
        for side, count in (("train", 80), ("val", 79)):
            one, other = (found.split(side, targets) for found in (before, after))
            assert len(one) == len(other) >= count
            assert told(one) == told(other)
        assert [list(names) for names in before.names] == [list(names) for names in after.names]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "webdataset"])
def test_the_shards_of_every_dataset_are_its_samples(name: str, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "as published"
    folder.mkdir()
    official(name).make(folder, data)
    words = [word for word in official(name).WORDS if word.startswith("dataset.")]
    before = dataset(name, folder, *words)
    made(tmp_path / "out", f"dataset={name}", f"paths.data='{folder}'", *words, "workers=1")
    same = [] if hasattr(before, "image_size") else ["dataset.needs=[text]"]
    if hasattr(before, "image_size"):
        keep = "augment.random_crop", "augment.random_flip"
        values = (before.augment.random_crop, before.augment.random_flip)
        same += [f"dataset.{key}={value}" for key, value in zip(keep, values, strict=True)]
        same += [f"dataset.image_size={before.image_size or 'null'}"]
    after = dataset("webdataset", tmp_path / "out", *same)
    for side in ("train", "val"):
        targets = before.learnable(side)
        one, other = (found.split(side, targets) for found in (before, after))
        assert len(one) == len(other) > 0
        assert told(one) == told(other)


# webdataset leaves the files it has read to Python to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_bytes_of_pictures_are_those_of_the_files(coco: Path, data: Path) -> None:
    files = {path.read_bytes() for path in (data / "coco/val2017").glob("*.jpg")}
    shards = sorted(str(path) for path in coco.glob("val-*.tar"))
    found = list(webdataset.WebDataset(shards, shardshuffle=False))  # as others read them
    assert len(found) == 79 and len(shards) > 1
    assert {sample["jpg"] for sample in found} <= files
    assert all(json.loads(sample["json"])["captions"] for sample in found)
    gc.collect()


def test_the_same_samples_are_the_same_bytes_however_they_are_written(
    coco: Path, data: Path, tmp_path: Path
) -> None:
    made(tmp_path / "out", *COCO, f"paths.data={data / 'coco'}", "shard_mb=3", "workers=2")
    assert digests(tmp_path / "out") == digests(coco)


def test_a_second_time_there_is_nothing_to_do(coco: Path, data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in coco.rglob("*") if path.name != ".lock"}
    lines = made(coco, *COCO, f"paths.data={data / 'coco'}", "shard_mb=3", "workers=1")
    assert lines[-1].startswith("nothing to do: 159 samples in 10 shards")
    after = {path: path.stat().st_mtime_ns for path in coco.rglob("*") if path.name != ".lock"}
    assert before == after


def test_what_is_lost_is_written_again(coco: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(coco, out)
    (out / "train-000002.tar").unlink()
    (out / "val-000001.tar").write_bytes(b"cut off")
    lines = made(out, *COCO, f"paths.data={data / 'coco'}", "shard_mb=3", "workers=1")
    assert "8 of them are there already" in lines[1]
    assert digests(out) == digests(coco)


@pytest.mark.parametrize(
    "word", ["short_side=64", "shard_mb=4", "decode=false", "dataset.val_split=[train]"]
)
def test_a_folder_of_other_shards_is_left_alone(
    coco: Path, data: Path, word: str, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError,
        match=rf"made with {word.partition('=')[0].split('.')[-1][:3]}|"
        r"made with splits",
    ):
        made(coco, *COCO, f"paths.data={data / 'coco'}", "shard_mb=3", word)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds mine.txt, and nothing is overwritten"):
        made(tmp_path, *COCO, f"paths.data={data / 'coco'}")


def test_nothing_is_lost_without_being_counted(sbu: Path, tmp_path: Path) -> None:
    pictures = sorted((sbu / "dataset").iterdir())
    pictures[3].write_bytes(b"no picture")
    pictures[9].write_bytes(pictures[9].read_bytes()[:300])
    out, words = tmp_path / "out", (*SBU, f"paths.data={sbu}")
    with pytest.raises(UserError, match=r"more than dataset.max_bad_fraction=0.01 allows"):
        made(out, *words)
    assert not (out / "dataset.json").exists()  # nobody trains on it by mistake
    lines = made(out, *words, "dataset.max_bad_fraction=0.2")
    assert "58 samples in 2 shards" in lines[-2] and "2 left out" in lines[-2]
    bad = [json.loads(line) for line in (out / "bad.jsonl").read_text().splitlines()]
    assert len(bad) == 2 and {"split", "key", "reason"} == bad[0].keys()
    assert {Path(one["key"]).stem for one in bad} == {pictures[3].stem, pictures[9].stem}
    card = read_card(out)
    assert card is not None and sum(card.shards.values()) + len(bad) == 60
    assert sum(n for what, n in card.notes.items() if what.startswith("left out when prep")) == 2
    assert dataset("webdataset", out).split("train", ()).notes == card.notes


def test_the_first_bad_sample_may_be_fatal(sbu: Path, tmp_path: Path) -> None:
    next((sbu / "dataset").iterdir()).write_bytes(b"no picture")
    words = (*SBU, f"paths.data={sbu}", "dataset.on_bad_sample=fail")
    with pytest.raises(UserError, match="cannot be read: not a picture"):
        made(tmp_path / "out", *words)
    assert not list((tmp_path / "out").glob(".*tar*"))  # no half of a shard stays behind
    made(tmp_path / "other", *words, "decode=false")  # as it is, unread


def test_large_pictures_are_shrunk_and_small_ones_are_left(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(out, *COCO, f"paths.data={data / 'coco'}", "short_side=400", "workers=1")
    before, after = (
        dataset(name, folder, "dataset.image_size=null")
        for name, folder in (("coco", data / "coco"), ("webdataset", out))
    )
    untouched, differences = 0, list[float]()
    for row in range(len(before.table)):
        source = before.picture(before.table[row].image).read_bytes()
        key = before.table[row].key
        [found] = [i for i in range(len(after.table)) if after.table.key(i) == key]
        content = after.picture(after.table[found].image)
        old, new = read_image(source, key), read_image(content, key)
        if min(old.shape[1:]) <= 400:
            assert content == source
            untouched += 1
            continue
        assert min(new.shape[1:]) == 400 and content[:3] == b"\xff\xd8\xff"
        ratio = old.shape[1] / old.shape[2]
        assert new.shape[1] / new.shape[2] == pytest.approx(ratio, rel=0.005)
        size = list(new.shape[1:])
        by_pillow = Image.fromarray(old.permute(1, 2, 0).numpy()).resize(
            (size[1], size[0]), Image.Resampling.BILINEAR
        )
        difference = new.float() - torch.frombuffer(
            bytearray(by_pillow.tobytes()), dtype=torch.uint8
        ).reshape(*size, 3).permute(2, 0, 1)
        differences.append(float(difference.abs().mean()))
    assert 0 < untouched < len(before.table)
    # What JPEG costs: of colours it keeps a quarter.
    assert max(differences) < 6 and sum(differences) / len(differences) < 2.5


def test_prepared_data_is_verified_byte_by_byte(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(coco, out)

    words = ("dataset=webdataset", f"dataset.root={out}", "pictures=5")
    lines, wrong = verified(*words)
    assert wrong is None and sum(line.endswith("ok") for line in lines) == 11
    shard = out / "train-000001.tar"
    content = bytearray(shard.read_bytes())
    content[-20_000] ^= 1
    stat = shard.stat()
    shard.write_bytes(content)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    lines, wrong = verified(*words)
    assert wrong is not None and "train-000001.tar" in str(wrong) and wrong.exit_code == 1


@pytest.mark.train
def test_it_trains_on_shards(coco: Path, tmp_path: Path) -> None:
    words = ("model=micro", "trainer.steps=2", "trainer.batch_size=8", "trainer.modality_grid=0")
    classes = ("dataset.num_classes=12", "dataset.image_size=32")
    run = load("dataset=webdataset", f"dataset.root={coco}", *PLAIN, *words, *classes)
    run_training(run, tmp_path, "")
    assert (tmp_path / "model.safetensors").is_file()


# Killed


def begin(out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mmnet.data", "prepare", *words, f"out={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=out.parent, env=environment, text=True, stderr=subprocess.PIPE
    )


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def shards_written(out: Path) -> int:
    return len(list(out.glob(".prepare/*.json")))


def until_shards(process: subprocess.Popen[str], out: Path, count: int) -> None:
    stop = time.monotonic() + 60
    while shards_written(out) < count and process.poll() is None and time.monotonic() < stop:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def many(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """Words for 53 shards, and the folder of one that nobody disturbed."""
    words = (*COCO, f"paths.data={data / 'coco'}", "shard_mb=1", "short_side=200")
    out = tmp_path_factory.mktemp("many") / "whole"
    made(out, *words, "workers=1")
    yield words, out


@pytest.mark.train
@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2), (signal.SIGTERM, 2)],
)
def test_killed_at_any_moment_it_goes_on(
    many: tuple[Any, Path], number: int, workers: int, tmp_path: Path
) -> None:
    words, whole = many
    out = tmp_path / "out"
    for count in (1, 2):
        process = begin(out, *words, f"workers={workers}")
        until_shards(process, out, count)
        time.sleep(random.random() * 0.05)
        working = children(process.pid)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert "Traceback" not in said
        if number == signal.SIGINT:
            assert "with the same words goes on" in said and process.returncode == 130
        stop = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in working):
            assert time.monotonic() < stop, "a worker goes on without the command"
            time.sleep(0.05)
        assert not (out / "dataset.json").exists()
    lines = made(out, *words, "workers=1")
    assert digests(out) == digests(whole)
    assert "are there already" in lines[1]


@pytest.mark.train
def test_a_worker_that_dies_is_told(many: tuple[Any, Path], tmp_path: Path) -> None:
    words, _ = many
    process = begin(tmp_path / "out", *words, "workers=2")
    until_shards(process, tmp_path / "out", 1)
    for pid in children(process.pid):
        if "multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0 and "died" in said and "Traceback" not in said


@pytest.mark.train
def test_two_at_once_do_not_write_the_same_folder(many: tuple[Any, Path], tmp_path: Path) -> None:
    words, _ = many
    out = tmp_path / "out"
    first = begin(out, *words, "workers=1")
    until_shards(first, out, 1)
    with pytest.raises(UserError, match="in use by process"):
        made(out, *words)
    first.kill()
    first.communicate()
