"""What holds for every dataset that is read from files, each in the publisher's layout."""

import random
from pathlib import Path
from typing import Any

import pytest

from mmnet.compose import load, make
from mmnet.errors import ConfigError, UserError
from mmnet.session import run_training
from tests.jobs import fingerprint
from tests.official import NAMES, official


SMALL = (
    "model=micro",
    "tracker=none",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "trainer.batch_size=8",
    "trainer.steps=3",
    "trainer.modality_grid=0",
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Any:
    """Folders of made datasets by name, each made once."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "as published"
            folders[name].mkdir()
            official(name).make(folders[name], data)
        return folders[name]

    return folder_of


def words(name: str, *more: str) -> list[str]:
    """Of a small run of a dataset."""
    model = [word for word in official(name).WORDS if word.startswith("model=")]
    rest = [word for word in official(name).WORDS if not word.startswith("model=")]
    small = [word for word in SMALL if not (model and word.startswith("model="))]
    sides = [f"dataset.image_size={SIDE}"] if "image_size" in settings(name) else []
    return [f"dataset={name}", *small, *model, *rest, *sides, *more]


SIDE = 32


def settings(name: str) -> dict[str, Any]:
    run = load(f"dataset={name}", *official(name).WORDS)
    return {key: value for key, value in run.dataset.items() if key != "_target_"}


def dataset(name: str, folder: Path, *more: str) -> Any:
    run = load(*words(name, f"paths.data='{folder}'", *more))
    return make(run.dataset, data=folder)


@pytest.mark.train
@pytest.mark.parametrize("name", NAMES)
def test_it_trains(name: str, made: Any, tmp_path: Path) -> None:
    run = load(*words(name, f"paths.data='{made(name)}'"))
    run_training(run, tmp_path, "")
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_found_by_its_files_from_above_and_by_name(name: str, made: Any) -> None:
    folder = made(name)
    digests = {
        dataset(name, data, *more).split("train", ()).digest
        for data, more in [
            (folder, ()),
            (folder.parent, ()),
            (folder / "elsewhere", (f"dataset.root='{folder}'",)),
        ]
    }
    assert len(digests) == 1
    with pytest.raises(UserError, match="no such folder"):
        dataset(name, folder / "nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_is_in_both_splits_and_both_have_some(name: str, made: Any) -> None:
    found = dataset(name, made(name))
    train, val = (found.split(split, ()) for split in ("train", "val"))
    keys = [{split.key(i) for i in range(len(split))} for split in (train, val)]
    assert not keys[0] & keys[1]
    assert len(keys[0]) == len(train) >= len(val) == len(keys[1]) > 0


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_sees_the_same_and_training_something_else_each_time(
    name: str, made: Any
) -> None:
    found = dataset(name, made(name))
    split = found.split("train", found.learnable("train"))
    modalities = ("image", "text")
    for index in range(0, len(split), max(1, len(split) // 5)):
        once, again = (split.sample(index, modalities, None) for _ in range(2))
        assert fingerprint(once) == fingerprint(again)
        drawn = [
            fingerprint(split.sample(index, modalities, random.Random(seed))) for seed in (1, 1)
        ]
        assert drawn[0] == drawn[1]


def test_a_head_that_learns_from_what_a_dataset_lacks_is_one_problem() -> None:
    with pytest.raises(ConfigError) as error:
        load("dataset=sbu")
    assert len(error.value.problems) == 1
    assert "learns from label, and the dataset offers group, match" in str(error.value)
