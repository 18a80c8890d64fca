"""Cases of tests/test_settings.py for the order of samples, dataset=mix and dataset=stream."""

import tempfile
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mmnet.compose import load, make
from mmnet.data.order import SampleRandom
from mmnet.errors import ConfigError, UserError
from tests.jobs import fingerprint
from tests.settings import Bench, case
from tests.settings_datasets import COMMON, OF_PICTURES
from tests.settings_parts import matters
from tests.streams import COUNT
from tests.streams import make as make_shards


TEXT_ALONE = ("model=text_only", "head=masked_lm", "encoder.text.max_length=256")
MIX = (
    "dataset=mix",
    *(
        f"dataset.parts.{part}.{word}"
        for part in ("first", "second")
        for word in ("train_samples=40", "val_samples=8")
    ),
)

for _key, _base, _word in (
    ("trainer.bucket_batches", ("dataset.train_samples=64",), "trainer.bucket_batches=3"),
    ("trainer.pack", TEXT_ALONE, "trainer.pack=true"),
    ("dataset.mix.parts", MIX, "dataset.parts.second.seed=1"),
    ("dataset.mix.weights", MIX, "dataset.weights.first=7"),
    ("dataset.mix.image_size", MIX, "dataset.image_size=24"),
):
    case(_key)(partial(matters, _base, _word))


@case("dataset.mix.num_classes")
def _(bench: Bench) -> None:
    assert "dataset.num_classes=3: the parts have 4" in bench.refusal(*MIX, "dataset.num_classes=3")


STREAM = (
    "dataset=stream",
    "dataset.train_shards=[train-0.tar,train-1.tar,train-2.tar]",
    "dataset.val_shards=val-0.tar",
    f"dataset.samples={COUNT}",
    "dataset.label=cls",
    "dataset.num_classes=4",
    "dataset.image_size=16",
)


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="stream-"))
    make_shards(made)
    return made


def digest(*words: str) -> str:
    """Of what a stream hands out, as training and evaluation see it."""
    dataset = make(load(*STREAM, *words).dataset, data=folder())
    split: Any = dataset.split("train", ("label", "group"))
    rng = SampleRandom(0)
    train = [
        (raw.key, split.decode(raw, ("image", "text"), rng.at(raw.epoch, raw.number)))
        for raw in islice(split.stream(0, 0), 2 * len(split))
    ]
    val = dataset.split("val", ("label", "group"))
    seen = [(val.key(i), val.sample(i, ("image", "text"), None)) for i in range(len(val))]
    policy = [dataset.on_bad_sample, dataset.max_bad_fraction, list(dataset.names)]
    return fingerprint([train, seen, policy])


def streams_otherwise(words: tuple[str, ...], bench: Bench) -> None:
    assert digest() == digest()
    assert digest(*words) != digest()


for _key, _value in (
    ("train_shards", "train-0.tar dataset.samples=20"),
    ("val_shards", "train-0.tar"),
    ("samples", "50"),
    ("val_samples", "5"),
    ("shuffle", "3"),
    ("image", "[png]"),
    ("text", "[json.caption]"),
    ("num_classes", "5"),
    *(
        (key, value)
        for key, value in COMMON.items()
        if key.startswith("augment.") or key in ("image_size", "on_bad_sample", "max_bad_fraction")
    ),
):
    _words = tuple(f"dataset.{_key}={_value}".split())
    case(f"dataset.stream.{_key}")(partial(streams_otherwise, _words))


@case("dataset.stream.label")
def _(bench: Bench) -> None:
    dataset = make(load(*STREAM, "dataset.label=null").dataset, data=folder())
    with pytest.raises(UserError, match=r"dataset\.label: names no member"):
        dataset.split("train", ("label",))


@case("dataset.stream.allow_pipes")
def _(bench: Bench) -> None:
    pipe = f"dataset.train_shards='pipe:cat {folder()}/train-?.tar'"
    assert "would run a command" in str(refusal(pipe))
    assert refusal(pipe, "dataset.allow_pipes=true") is None


def refusal(*words: str) -> UserError | ConfigError | None:
    try:
        make(load(*STREAM, *words).dataset, data=folder()).split("train", ("label",))
    except (UserError, ConfigError) as error:
        return error
    return None


for _key, _check in OF_PICTURES.items():
    if _key != "augment.mind_text":
        case(f"dataset.stream.{_key}")(partial(_check, "stream"))


@case("dataset.stream.augment.mind_text")
def _(bench: Bench) -> None:
    seen = []
    for value in ("true", "false"):
        turned = ("dataset.augment.color_jitter=[0,0,0,0.5]", f"dataset.augment.mind_text={value}")
        dataset = make(load(*STREAM, *turned).dataset, data=folder())
        split: Any = dataset.split("train", ("label", "group"))
        raw = next(iter(split.stream(0, 0)))
        named = raw._replace(parts={**raw.parts, "txt": b"a red one"})
        seen.append(split.decode(named, ("image", "text"), SampleRandom(0).at(0, 0)))
    assert fingerprint(seen[0]) != fingerprint(seen[1])
