"""A run's objects, built from its config in the one order that lets each check come early."""

from pathlib import Path
from typing import Any

from hydra.utils import get_object

from mmnet.average import follow
from mmnet.compose import make
from mmnet.config import Run
from mmnet.data.bad import BadSamples
from mmnet.errors import ConfigError, UserError
from mmnet.hardware import choose
from mmnet.job import Counters, Job, seed_everything
from mmnet.model import build


def assemble(run: Run, folder: Path) -> Job:
    """Build everything a run needs, checks first. Raises UserError and ConfigError."""
    machine = choose(run.hardware)
    check_parts(run)
    dataset = make(run.dataset, data=Path(run.paths.data))
    train_split, val_split = dataset.split("train"), dataset.split("val")
    check_data(run, dataset.classes)

    seed_everything(run.seed)
    model = build(run).to(machine.device)
    optimizer = make(run.optimizer, model=model)
    return Job(
        run=run,
        folder=folder,
        machine=machine,
        model=model,
        prepare=model.prepare(),
        optimizer=optimizer,
        schedule=make(run.schedule),
        controller=make(run.controller),
        scaler=machine.scaler(),
        average=follow(model, optimizer, run.trainer.ema_decay),
        train=train_split,
        val=val_split,
        classes=dataset.classes,
        bad=BadSamples(
            dataset.on_bad_sample,
            dataset.max_bad_fraction,
            {"train": len(train_split), "val": len(val_split)},
        ),
        total=total_steps(run, len(train_split)),
        counters=Counters(),
    )


def job_facts(job: Job) -> dict[str, Any]:
    """What the run met, as far as the built objects know."""
    return {
        "dataset": {
            name: {"samples": len(split), "digest": split.digest, "notes": split.notes}
            for name, split in (("train", job.train), ("val", job.val))
        },
        "classes": job.classes,
        "hardware": {"device": str(job.machine.device), "precision": job.machine.precision},
        "parameters": sum(p.numel() for p in job.model.parameters()),
    }


def check_parts(run: Run) -> None:
    """Ask every part about names and files that only it can judge, before any is built.

    Raises ConfigError with all the answers.
    """
    problems = []
    for path, part in run.parts():
        if path == "tracker":
            continue  # checked as an object: it is cheap to make
        check = getattr(get_object(part["_target_"]), "check", None)
        if check is not None:
            try:
                check(**{key: value for key, value in part.items() if key != "_target_"})
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def check_data(run: Run, classes: list[str]) -> None:
    """Hold the head against what the data turned out to hold. Raises ConfigError."""
    if "num_classes" in run.head and run.head["num_classes"] != len(classes):
        raise ConfigError(
            [
                f"head.num_classes={run.head['num_classes']}: the data has {len(classes)} "
                f"({', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''})"
            ]
        )


def total_steps(run: Run, samples: int) -> int:
    """Optimizer steps of the whole run; the last epoch is finished, not cut."""
    if run.trainer.steps is not None:
        return run.trainer.steps
    assert run.trainer.epochs is not None
    return -(-run.trainer.epochs * samples // run.trainer.batch_size)
