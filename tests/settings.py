"""What tests/test_settings.py works with: every key of conf/, small runs, the cases by key."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mmnet.assembly import assemble
from mmnet.compose import load
from mmnet.config import CONF, Run
from mmnet.data.loader import train_steps
from mmnet.errors import UserError
from mmnet.interfaces import Batch
from mmnet.job import Job
from tests.jobs import SMALL, fingerprint, metrics, run_job
from tests.official import NAMES, official


Words = tuple[str, ...]

# What an option cannot do without.
BESIDE = {
    "optimizer=schedule_free": ("schedule=constant",),
    "head=contrastive": ("fusion=separate",),
    "fusion=separate": ("head=contrastive",),
    "dataset=stream": ("head=contrastive", "fusion=separate"),
    **{f"dataset={name}": official(name).WORDS for name in NAMES},
}

# A run of three steps, evaluated once, at its end: a twentieth of a second.
THREE_STEPS = (
    *SMALL,
    "dataset.val_samples=8",
    "trainer.batch_size=8",
    "trainer.steps=3",
    "trainer.eval_every=100",
)


@cache
def keys() -> dict[str, str]:
    """Every key that some file of conf/ sets, with the options it was met with.

    A part's keys stand behind the name of its module: optimizer.adamw.lr, encoder.image.timm.dim.
    """
    found: dict[str, str] = {}
    for words in choices():
        composed, options = load(*words), " ".join(words) or "train"
        for field in fields(Run):
            value = getattr(composed, field.name)
            if is_dataclass(value):
                for key in leaves(value, field.name):
                    found.setdefault(key, options)
            elif not isinstance(value, dict):
                found.setdefault(field.name, options)
        for place, part in composed.parts():
            module = part["_target_"].split(".")[-2]
            for name in inner(part):
                found.setdefault(f"{place}.{module}.{name}", options)
    return found


def inner(part: dict[str, Any]) -> Iterator[str]:
    """The keys of a part, those of the parts that are its settings included."""
    for name, value in part.items():
        if isinstance(value, dict) and ("_target_" in value or name == "augment"):
            yield from (f"{name}.{one}" for one in inner(value))
        elif name != "_target_":
            yield name


def leaves(section: Any, name: str) -> Iterator[str]:
    """The dotted keys of a section, those of the sections within it included."""
    for inner in fields(section):
        value, key = getattr(section, inner.name), f"{name}.{inner.name}"
        yield from leaves(value, key) if is_dataclass(value) else [key]


def choices() -> list[Words]:
    """A command line for every file of conf/, beside what it cannot do without."""
    options = [
        f"{path.parent.relative_to(CONF).as_posix()}={path.stem}"
        for path in sorted(CONF.rglob("*/*.yaml"))
    ]
    return [(), *((option, *BESIDE.get(option, ())) for option in options)]


composed = cache(load)


class Bench:
    """Makes and trains small networks, each kind once."""

    def __init__(self, folder: Path, data: Callable[[], Path]) -> None:
        self.folder, self._data = folder, data
        self._trained: dict[Words, Job] = {}
        self._number = itertools.count()

    @property
    def data(self) -> Path:
        """The sample data; where it is missing, only the tests that ask for it are skipped."""
        return self._data()

    def new_folder(self) -> Path:
        return self.folder / f"run-{next(self._number)}"

    def job(self, *words: str) -> Job:
        """Built, not trained."""
        drawn = not any(word.startswith("dataset=") for word in words)
        base = [word for word in THREE_STEPS if drawn or "dataset." not in word]
        folder = self.new_folder()
        folder.mkdir()
        return assemble(composed(*base, *words), folder)

    def trained(self, *words: str) -> Job:
        """After its three steps, or as many as `words` say. Not to be changed."""
        if words not in self._trained:
            self._trained[words] = run_job(self.job(*words))
        return self._trained[words]

    def refusal(self, *words: str) -> str:
        """What the program says instead of training so."""
        with pytest.raises(UserError) as error:
            run_job(self.job(*words))
        return str(error.value)

    @property
    def bert(self) -> Words:
        """A text encoder of transformers, small, with a published vocabulary."""
        vocabulary = self.data / "bert_vocab/bert-base-uncased/vocab.txt"
        return (
            "encoder/text=bert_micro",
            f"encoder.text.tokenizer='{vocabulary}'",
            "encoder.text.dim=16",
            "encoder.text.depth=1",
            "encoder.text.dropout=0",
        )

    @property
    def coco(self) -> Words:
        return ("dataset=coco", f"paths.data='{self.data}'", "dataset.image_size=32")


Check = Callable[[Bench], None]
CASES: dict[str, tuple[Check, Any]] = {}


def case(key: str, marks: Any = ()) -> Callable[[Check], Check]:
    """Register the test of one key."""

    def register(check: Check) -> Check:
        assert key not in CASES, key
        CASES[key] = (check, marks)
        return check

    return register


# What is looked at


def weights(job: Job) -> str:
    return fingerprint(job.model.state_dict())


def shape(job: Job, name: str) -> tuple[int, ...]:
    return tuple(job.model.state_dict()[name].shape)


def rates(job: Job) -> list[float]:
    """The learning rate of every step, as a share of optimizer.lr."""
    return [rate / job.run.optimizer["lr"] for rate in metrics(job, "train/lr")]


def first_batch(job: Job) -> Batch:
    steps = train_steps(
        job.train,
        job.reading,
        batch_size=job.run.trainer.batch_size,
        micro_batch_size=job.run.micro_batch_size,
        seed=job.run.seed,
        first_step=1,
        last_step=1,
        num_workers=0,
        device=job.machine.device,
    )
    return next(steps).batches[0]


def checkpoints(job: Job) -> list[int]:
    return sorted(int(p.name[5:]) for p in (job.folder / "checkpoints").glob("step_*"))
