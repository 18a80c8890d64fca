"""What tests/test_settings.py works with: every key of conf/, small runs, the cases by key."""

import itertools
from collections.abc import Callable
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


Words = tuple[str, ...]

# What an option cannot do without.
BESIDE = {"optimizer=schedule_free": ("schedule=constant",)}

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
                for inner in fields(value):
                    found.setdefault(f"{field.name}.{inner.name}", options)
            elif not isinstance(value, dict):
                found.setdefault(field.name, options)
        for place, part in composed.parts():
            module = part["_target_"].split(".")[-2]
            for name in part.keys() - {"_target_"}:
                found.setdefault(f"{place}.{module}.{name}", options)
    return found


def choices() -> list[Words]:
    """Few command lines that take every file of conf/: one of each group at a time."""
    groups: dict[str, list[str]] = {}
    alone: list[Words] = [()]
    for path in sorted(CONF.rglob("*/*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        option = f"{group}={path.stem}"
        if option in BESIDE or group in ("model", "experiment"):
            alone.append((option, *BESIDE.get(option, ())))
        else:
            groups.setdefault(group, []).append(option)
    together = itertools.zip_longest(*groups.values())
    return alone + [tuple(option for option in row if option) for row in together]


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
        base = [w for w in THREE_STEPS if "dataset=coco" not in words or "dataset." not in w]
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
