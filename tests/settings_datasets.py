"""Cases of tests/test_settings.py for datasets that are read from files (tests/official).

What a dataset hands out is put into one digest: its keys, its samples with and without
augmentation, its policy for bad ones. The digest is another one for another value of a key.
"""

import random
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mmnet.assembly import mixing
from mmnet.compose import load, make
from mmnet.errors import ConfigError, UserError
from tests.jobs import fingerprint
from tests.official import NAMES, official
from tests.settings import BESIDE, Bench, case


LOOKED_AT = 12  # samples of each split
# Another value of each key that many have; a dataset's module may name others (CHANGES).
COMMON = {
    "image_size": "24",
    "augment.random_crop": "0.1",
    "augment.random_flip": "1",
    "augment.color_jitter": "[0.4,0.4,0.4,0.1]",
    "augment.policy": "rand",
    "split_seed": "1",
    "val_fraction": "0.5",
    "on_bad_sample": "fail",
    "max_bad_fraction": "0.5",
    "passage": "60",
}
# Values that are refused, and what is said.
REFUSED = {
    "root": "/nowhere",
    "num_classes": "997",
    "train_split": "[nosuch]",
    "val_split": "[nosuch]",
}


def settings_of(name: str) -> dict[str, Any]:
    return dict(load(f"dataset={name}", *official(name).WORDS).dataset)


def keys_of(name: str) -> list[str]:
    """Its settings, those within `augment` one by one."""
    found: list[str] = []
    for key, value in settings_of(name).items():
        if key == "augment":
            found += [f"augment.{inner}" for inner in value]
        elif key != "_target_":
            found.append(key)
    return found


def module_of(name: str) -> str:
    return str(settings_of(name)["_target_"]).split(".")[-2]


@cache
def folder_of(name: str, data: Path, drawn: bool = False) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    made = official(name)
    (made.make_drawn if drawn else made.make)(folder, data)
    return folder


def is_drawn(name: str, key: str) -> bool:
    """Whether a key matters in an edition without splits alone."""
    return hasattr(official(name), "make_drawn") and key in ("split_seed", "val_fraction")


def built(name: str, data: Path, *words: str, drawn: bool = False) -> Any:
    """The dataset, small pictures, with these words more."""
    sides = ["dataset.image_size=16"] if "image_size" in settings_of(name) else []
    run = load(f"dataset={name}", *official(name).WORDS, *sides, *words)
    return make(run.dataset, data=folder_of(name, data, drawn))


def digest(dataset: Any) -> str:
    seen: list[Any] = [dataset.on_bad_sample, dataset.max_bad_fraction, list(dataset.names)]
    for side in ("train", "val"):
        split = dataset.split(side, dataset.learnable(side))
        some = range(0, len(split), max(1, len(split) // LOOKED_AT))
        seen.append([split.key(index) for index in range(len(split))])
        for index in some:
            seen.append(split.sample(index, ("image", "text"), None))
            seen += [split.sample(index, ("image", "text"), random.Random(i)) for i in range(3)]
    return fingerprint(seen)


@cache
def usual(name: str, data: Path, drawn: bool) -> str:
    return digest(built(name, data, drawn=drawn))


def matters(name: str, word: str, drawn: bool, bench: Bench) -> None:
    before = usual(name, bench.data, drawn)
    assert digest(built(name, bench.data, drawn=drawn)) == before
    assert digest(built(name, bench.data, word, drawn=drawn)) != before


def refused(name: str, key: str, value: str, bench: Bench) -> None:
    with pytest.raises(UserError, match=value.strip("[]")) as said:
        # The head answers with as many classes, so that it is the data that objects.
        built(name, bench.data, f"dataset.{key}={value}").split(key.partition("_")[0], ())
    assert f"dataset.{key}" in str(said.value)


def minded(name: str, bench: Bench) -> None:
    """Beside a text that names a colour and a side its hue is not turned, nor is it mirrored."""
    changed = ["dataset.augment.color_jitter=[0,0,0,0.5]"]
    if name not in ("nlvr", "openmoji"):  # which are never mirrored
        changed.append("dataset.augment.random_flip=1")
    words = [f"dataset={name}", *words_of(name), "dataset.image_size=16", *changed]
    seen = []
    for value in ("true", "false"):
        run = load(*words, f"dataset.augment.mind_text={value}")
        folder = bench.data / name if name in REAL else folder_of(name, bench.data)
        dataset = make(run.dataset, data=folder)
        records = [dataset.table[int(row)] for row in dataset.rows("train")[:8]]
        seen.append(
            [
                dataset.view(
                    record.image or record.key, "k", record, random.Random(0), "red, on the left"
                )
                for record in records
                if record.image or name == "openmoji"
            ]
        )
    assert any(not torch.equal(one, other) for one, other in zip(*seen, strict=True))


def words_of(name: str) -> tuple[str, ...]:
    """What a run of it needs."""
    found: tuple[str, ...] = BESIDE.get(f"dataset={name}", ())
    return found


def reaches_the_encoder(name: str, bench: Bench) -> None:
    for value in (True, False):
        word = f"dataset.augment.normalize={str(value).lower()}"
        run = load(f"dataset={name}", *words_of(name), word)
        assert run.encoder["image"]["normalize"] is value


def mixed_or_refused(key: str, name: str, bench: Bench) -> None:
    try:
        run = load(f"dataset={name}", *words_of(name), f"dataset.augment.{key}=0.5")
    except ConfigError as error:
        assert f"dataset.augment.{key}" in str(error)
    else:
        found = mixing(run)
        assert found is not None and getattr(found, key) == 0.5


OF_PICTURES: dict[str, Any] = {
    "augment.mind_text": minded,
    "augment.normalize": reaches_the_encoder,
    "augment.mixup": partial(mixed_or_refused, "mixup"),
    "augment.cutmix": partial(mixed_or_refused, "cutmix"),
}

# Those that are read from the sample data itself; their other keys have cases of their own.
REAL = ("coco", "nlvr", "openmoji")


def jittered(word: str, name: str, bench: Bench) -> None:
    """Training sees other colours, whatever the text says."""
    seen = []
    for more in ((), (word,)):
        free = "dataset.augment.mind_text=false"
        run = load(f"dataset={name}", "dataset.image_size=16", free, *more)
        split = make(run.dataset, data=bench.data / name).split("train", ())
        seen.append(fingerprint(dict(split.sample(0, ("image",), random.Random(0)))))
    assert seen[0] != seen[1]


for _name in REAL:
    for _key in ("augment.color_jitter", "augment.policy"):
        _word = f"dataset.{_key}={COMMON[_key]}"
        case(f"dataset.{_name}.{_key}")(partial(jittered, _word, _name))
    for _key, _check in OF_PICTURES.items():
        case(f"dataset.{_name}.{_key}")(partial(_check, _name))

for _name in NAMES:
    _own: dict[str, str] = getattr(official(_name), "CHANGES", {})
    for _key in keys_of(_name):
        _at = f"dataset.{module_of(_name)}.{_key}"
        if _key in _own or _key in COMMON:
            _word = f"dataset.{_key}={_own.get(_key, COMMON.get(_key))}"
            case(_at)(partial(matters, _name, _word, is_drawn(_name, _key)))
        elif _key in OF_PICTURES:
            case(_at)(partial(OF_PICTURES[_key], _name))
        elif _key in REFUSED:
            case(_at)(partial(refused, _name, _key, REFUSED[_key]))


@case("dataset.amazon.label")
def _(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"dataset\.num_classes=5"):  # there are other categories
        built("amazon", bench.data, "dataset.label=category")
