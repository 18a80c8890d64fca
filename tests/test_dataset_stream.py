"""dataset=stream: shards read in order from a pipe, the web or a disk, with one exact sequence."""

import functools
import gzip
import http.server
import json
import logging
import random
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmnet.assembly import assemble
from mmnet.compose import load, make
from mmnet.data.loader import Reading, TrainStep, train_steps
from mmnet.data.order import Share
from mmnet.errors import ConfigError, UserError
from mmnet.interfaces import BadSample, Inputs
from mmnet.session import run_training
from tests.jobs import resume, run_job, state_of
from tests.streams import COUNT, shard
from tests.streams import make as make_shards


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder)
    return folder


WORDS = (
    "dataset=stream",
    "dataset.train_shards=train-{0..2}.tar",
    "dataset.val_shards=val-0.tar",
    f"dataset.samples={COUNT}",
    "dataset.shuffle=10",
    "dataset.image_size=16",
    "dataset.label=cls",
    "dataset.num_classes=4",
)
RUN = (
    "model=micro",
    "tracker=none",
    "hardware=cpu",
    "hardware.threads=1",
    "hardware.precision=fp32",
    "trainer.batch_size=8",
    "trainer.steps=12",
    "trainer.modality_grid=8",
)


def quoted(*words: str) -> list[str]:
    """Braces mean something to Hydra, too."""
    return [
        f"{key}='{value}'" if "{" in value or ":" in value else word
        for word in words
        for key, _, value in [word.partition("=")]
    ]


def stream(folder: Path, *words: str) -> Any:
    return make(load(*quoted(*WORDS, *words)).dataset, data=folder)


class Letters:
    blank = "0"

    def __call__(self, raw: str) -> torch.Tensor:
        return torch.tensor([int("".join(sign for sign in raw if sign.isdigit()))])

    def collate(self, tensors: list[torch.Tensor]) -> Inputs:
        return Inputs(torch.stack(tensors), None)


READING = Reading(prepare={"text": Letters()}, targets=("label",))


def steps(split: Any, first: int = 1, last: int = 15, **more: Any) -> Iterator[TrainStep]:
    settings: dict[str, Any] = {
        "batch_size": 8,
        "micro_batch_size": 8,
        "seed": 0,
        "num_workers": 0,
        "device": torch.device("cpu"),
    }
    return train_steps(split, READING, first_step=first, last_step=last, **settings | more)


def read(*args: Any, **more: Any) -> list[list[int]]:
    return [
        [number for batch in step.batches for number in batch.inputs["text"].values[:, 0].tolist()]
        for step in steps(*args, **more)
    ]


def flat(steps: Any) -> list[int]:
    return [number for step in steps for number in step]


# The sequence


def test_an_epoch_is_each_sample_once_in_an_order_of_its_own(shards):
    split = stream(shards).split("train", ("label",))
    drawn = [number for step in read(split) for number in step]
    assert len(split) == COUNT
    assert sorted(drawn[:COUNT]) == sorted(drawn[COUNT:]) == list(range(COUNT))
    assert drawn[:COUNT] != list(range(COUNT))
    assert drawn[:COUNT] != drawn[COUNT:]
    other = read(split, seed=1)
    assert other != read(split) == read(split)


def test_without_a_buffer_they_come_as_they_lie(shards):
    split = stream(shards, "dataset.shuffle=0").split("train", ("label",))
    assert [number for step in read(split) for number in step] == 2 * list(range(COUNT))


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_and_ranks_reads_one_sequence(shards, workers):
    split = stream(shards).split("train", ("label",))
    alone = read(split)
    assert read(split, num_workers=workers) == alone
    assert read(split, num_workers=workers, micro_batch_size=3) == alone
    for world in (2, 4):
        parts = [read(split, share=Share(rank, world)) for rank in range(world)]
        assert [flat(step) for step in zip(*parts, strict=True)] == alone


@pytest.mark.parametrize("first", [2, 5, 8, 13])
def test_a_resumed_run_reads_its_epoch_again_and_says_so(shards, first, caplog):
    split = stream(shards).split("train", ("label",))
    whole = read(split)
    with caplog.at_level(logging.INFO):
        assert read(split, first, num_workers=2) == whole[first - 1 :]
    passed = 8 * (first - 1) % COUNT
    assert f"reading {passed} samples of epoch {8 * (first - 1) // COUNT} again" in caplog.text


@pytest.mark.train
def test_it_trains_evaluates_and_resumes_exactly(shards, tmp_path):
    ends = []
    for stop_after in (None, 5):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        words = quoted(*RUN, *WORDS, "trainer.eval_every=6", f"paths.data={shards}")
        job = run_job(assemble(load(*words), folder), stop_after)
        ends.append(state_of(job if stop_after is None else run_job(resume(job))))
    assert ends[0] == ends[1]


@pytest.mark.train
def test_a_whole_run_with_everything_that_looks_at_val(shards, tmp_path):
    run_training(load(*quoted(*RUN, *WORDS, f"paths.data={shards}")), tmp_path, "")
    told = json.loads((tmp_path / "record.json").read_text())["dataset"]
    assert told["train"]["notes"] == {"shards": 3}
    assert told["val"]["samples"] == 12
    assert (tmp_path / "modalities.csv").is_file()


# Where bytes come from


def test_a_pipe_is_run_only_where_that_is_allowed(shards, tmp_path):
    mark = tmp_path / "ran"
    pipe = f"dataset.train_shards=pipe:touch {mark}; cat {shards}/train-0.tar"
    with pytest.raises(UserError, match=r"would run a command.*allow_pipes=true"):
        stream(shards, pipe).split("train", ())
    sly = f"dataset.train_shards={{pipe,x}}:touch {mark}"
    with pytest.raises(UserError, match=r"would run a command"):
        stream(shards, sly).split("train", ())
    with pytest.raises(ConfigError, match="allow_pipes"):
        assemble(load(*quoted(*RUN, *WORDS, pipe)), tmp_path)
    assert not mark.exists()
    allowed = stream(shards, pipe, "dataset.allow_pipes=true", "dataset.samples=20")
    assert set(flat(read(allowed.split("train", ("label",)), last=5))) == set(range(20))
    assert mark.exists()


def test_a_command_that_fails_is_an_error(shards):
    words = (f"dataset.train_shards=pipe:cat {shards}/train-0.tar; exit 3",)
    split = stream(shards, *words, "dataset.allow_pipes=true", "dataset.samples=20").split(
        "train", ("label",)
    )
    with pytest.raises(UserError, match=r"pipe:cat .*behind sample \d+: .*exit 3"):
        read(split)


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "zip::s3://a/b", "ftp://x/y.tar", "http:x", "github://a@b/c"]
)
def test_other_addresses_are_refused(shards, address):
    with pytest.raises(UserError, match=r"dataset\.train_shards=.*expected a path, or <scheme>"):
        stream(shards, f"dataset.train_shards={address}").split("train", ())


def test_shards_are_read_over_http(shards):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(shards))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        found = stream(shards, f"dataset.train_shards={at}/train-{{0..2}}.tar")
        assert read(found.split("train", ("label",))) == read(
            stream(shards).split("train", ("label",))
        )
        gone = stream(shards, f"dataset.train_shards={at}/none.tar").split("train", ("label",))
        with pytest.raises(UserError, match=r"none\.tar, behind sample 0"):
            read(gone)
        server.shutdown()


# What a sample says


def test_texts_labels_and_pictures_come_of_named_members_only(shards):
    found = stream(shards, "dataset.text=[json.caption,txt]").split("val", ("label", "group"))
    one = found.sample(3, ("image", "text"), None)
    assert (one["text"], one["label"], one["group"]) == ("103 a", 3, 3)
    assert tuple(one["image"].shape) == (3, 16, 16)
    drawn = {found.sample(3, ("text",), random.Random(seed))["text"] for seed in range(20)}
    assert drawn == {"103 a", "103 b"}
    assert found.key(3).endswith("val-0.tar/00103")
    assert stream(shards).split("val", ()).sample(3, ("text",), None)["text"] == "picture 103"


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"txt": b""}, "empty caption"),
        ({"cls": b"four"}, "label is no number"),
        ({"cls": b"4"}, "label is not below dataset.num_classes"),
    ],
)
def test_a_bad_sample_is_counted_and_costs_no_other(tmp_path, spoilt, reason):
    shard(tmp_path / "train-0.tar", range(40), **spoilt)
    words = ("dataset.train_shards=train-0.tar", "dataset.samples=40", "dataset.shuffle=0")
    split = stream(tmp_path, *words).split("train", ("label",))
    met = list(steps(split, last=5, num_workers=1))
    bad = [one for step in met for one in step.bad]
    assert bad == [(f"{tmp_path}/train-0.tar/{n:05d}", reason) for n in (7, 33)]
    assert sum(step.samples for step in met) == 38


def test_broken_pictures_and_json_are_bad_samples(tmp_path):
    shard(tmp_path / "val-0.tar", range(40), jpg=b"no picture", json=b"{")
    for field, reason in (("txt", "not a picture"), ("json.caption", "malformed json")):
        found = stream(tmp_path, f"dataset.text=[{field}]").split("val", ())
        with pytest.raises(BadSample, match=reason):
            found.sample(7, ("image", "text"), None)


def test_nothing_is_unpickled(tmp_path):
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    shard(tmp_path / "train-0.tar", range(40), pyd=bomb, pkl=bomb, pth=bomb)
    words = ("dataset.train_shards=train-0.tar", "dataset.samples=40")
    assert len(read(stream(tmp_path, *words).split("train", ("label",)), last=5)) == 5
    assert not (tmp_path / "ran").exists()


# How many there are


def test_without_a_number_of_samples_it_says_what_to_set(shards, tmp_path):
    words = quoted(*RUN, *WORDS, "dataset.samples=null", f"paths.data={shards}")
    with pytest.raises(ConfigError, match=r"dataset\.samples: .*how many of dataset\.train_shards"):
        assemble(load(*words), tmp_path)


def test_fewer_samples_than_said_are_an_error_and_more_a_warning(shards, caplog):
    split = stream(shards, "dataset.samples=61").split("train", ("label",))
    with pytest.raises(UserError, match=r"samples=61: dataset\.train_shards hold 60 samples"):
        read(split)
    split = stream(shards, "dataset.samples=50").split("train", ("label",))
    drawn = flat(read(split, last=13))
    assert sorted(drawn[:50]) == list(range(50))
    assert caplog.text.count("hold more; they are not read") == 1
    with pytest.raises(UserError, match=r"val_samples=13: dataset\.val_shards hold 12"):
        stream(shards, "dataset.val_samples=13").split("val", ())
    assert len(stream(shards, "dataset.val_samples=5").split("val", ())) == 5


@pytest.mark.parametrize("fault", range(40))
def test_no_damaged_header_loses_samples_without_a_word(shards, tmp_path, fault):
    chance = random.Random(fault)
    content = bytearray((shards / "train-0.tar").read_bytes())
    with tarfile.open(shards / "train-0.tar") as tar:
        headers = [info.offset for info in tar]
    content[chance.choice(headers) + chance.randrange(512)] ^= 1 << chance.randrange(8)
    (tmp_path / "train-0.tar").write_bytes(content)
    words = ("dataset.train_shards=train-0.tar", "dataset.samples=20", "dataset.shuffle=0")
    split = stream(tmp_path, *words).split("train", ("label",))
    try:
        met = list(steps(split, last=2))
    except UserError as error:
        assert re.search(r"train-0\.tar, behind sample \d+|dataset\.samples=20", str(error))
        return
    samples = [number for step in met for batch in step.batches for number in [batch.size]]
    bad = [one for step in met for one in step.bad]
    assert sum(samples) + len(bad) == 16


def test_a_damaged_header_of_a_val_shard_is_found_though_nobody_said_how_many_there_are(
    shards, tmp_path
):
    content = bytearray((shards / "val-0.tar").read_bytes())
    content[content.index(b"00102.jpg")] ^= 1
    (tmp_path / "val-0.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"val-0\.tar, behind sample 2: the archive seems to end"):
        stream(tmp_path).split("val", ())


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8])
def test_a_shard_that_breaks_off_is_named(shards, tmp_path, kept):
    content = (shards / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(content[: int(len(content) * kept) + 100])
    words = ("dataset.train_shards=train-0.tar", "dataset.samples=20")
    split = stream(tmp_path, *words).split("train", ("label",))
    with pytest.raises(UserError, match=r"train-0\.tar|dataset\.samples"):
        read(split)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_shard_is_named(shards, workers):
    split = stream(shards, "dataset.train_shards=train-{1..3}.tar").split("train", ("label",))
    with pytest.raises(UserError, match=r"train-3\.tar, behind sample 0: .*[Nn]o such file"):
        read(split, num_workers=workers)


def test_packed_shards_are_read_as_they_are(shards, tmp_path):
    (tmp_path / "train-0.tar.gz").write_bytes(gzip.compress((shards / "train-0.tar").read_bytes()))
    words = ("dataset.train_shards=train-0.tar.gz", "dataset.samples=20", "dataset.shuffle=0")
    drawn = read(stream(tmp_path, *words).split("train", ("label",)), last=5)
    assert flat(drawn) == 2 * list(range(20))


# What a stream cannot do


@pytest.mark.parametrize("word", ["trainer.bucket_batches=3", "trainer.pack=true"])
def test_it_cannot_be_sorted_or_packed(word):
    with pytest.raises(ConfigError, match=r"of a stream nobody knows what comes"):
        load(*quoted(*WORDS, word))


def test_no_samples_can_be_left_out_for_a_controller(shards, tmp_path):
    words = quoted(*RUN, *WORDS, f"paths.data={shards}", "controller=double_loop")
    with pytest.raises(UserError, match=r"controller\.meta_batch: no samples can be left out"):
        assemble(load(*words), tmp_path)
