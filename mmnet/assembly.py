"""A run's objects, built from its config in the one order that lets each check come early."""

import statistics
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from mmnet.average import follow
from mmnet.compose import make, make_whole
from mmnet.config import Part, Run
from mmnet.controller.groups import mark
from mmnet.data.bad import BadSamples
from mmnet.data.loader import Reading
from mmnet.data.mixing import Mixing
from mmnet.data.packed import Packed
from mmnet.errors import ConfigError, UserError
from mmnet.hardware import choose
from mmnet.interfaces import Names, Split
from mmnet.job import Counters, Job, seed_everything
from mmnet.meta_batch import MetaBatch, carve, read
from mmnet.model import build, heads
from mmnet.outer import Balance, Controller, Plan


def assemble(run: Run, folder: Path) -> Job:
    """Build everything a run needs, checks first. Raises UserError and ConfigError."""
    machine = choose(run.hardware)
    check_parts(run)
    targets = targets_of(run.head)
    try:
        dataset = make_whole(run.dataset, data=Path(run.paths.data))
        train_split, val_split = (dataset.split(name, targets) for name in ("train", "val"))
    except OSError as error:  # a folder that may not be looked into
        raise UserError(f"dataset: {error}") from error
    check_data(run, dataset.names)

    balance, controller = make(run.balance), make_whole(run.controller)
    compares = any(get_object(one["_target_"]).whole_batch for _, one in heads(run.head))
    whole = run.trainer.batch_size if compares else 0

    seed_everything(run.seed)
    model: Any = build(run, **facts_of_data(train_split, dataset.names, targets)).to(machine.device)
    prepare = model.prepare()
    if run.trainer.pack:
        length = (run.encoder["text"] or {})["max_length"]
        train_split, val_split = (
            Packed(split, prepare["text"], length) for split in (train_split, val_split)
        )
    kept, train_split = carve(train_split, wanted(balance, controller), run.seed, whole)
    if controller.by is not None:
        mark(model, controller.by)
    optimizer = make(run.optimizer, model=model)
    reading = Reading(
        prepare=prepare,
        targets=targets,
        hide=model.head.hide if "tokens" in targets else None,
        mix=mixing(run),
        pin_memory=machine.pin_memory,
    )
    total = total_steps(run, len(train_split))
    meta = None
    if kept is not None:
        # A loss that compares the samples of a batch is another one in a smaller batch.
        look = whole or max(1, run.trainer.batch_size // 4)
        looked_at = read(kept, reading, min(len(kept), look), machine)
        meta = MetaBatch(model, looked_at, machine)
    passes = total * run.trainer.batch_size / len(train_split)
    plan = Plan(model, optimizer, total, passes, meta)
    balance.begin(plan)
    controller.begin(plan)
    return Job(
        run=run,
        folder=folder,
        machine=machine,
        model=model,
        reading=reading,
        optimizer=optimizer,
        schedule=make(run.schedule),
        balance=balance,
        controller=controller,
        scaler=machine.scaler(),
        average=follow(model, optimizer, run.trainer.ema_decay),
        train=train_split,
        val=val_split,
        names=dataset.names,
        bad=BadSamples(
            dataset.on_bad_sample,
            dataset.max_bad_fraction,
            {"train": len(train_split), "val": len(val_split)},
        ),
        total=total,
        counters=Counters(),
    )


def mixing(run: Run) -> Mixing | None:
    """How pictures of a batch are mixed in training; only where mmnet.rules lets it be asked."""
    augment = run.dataset.get("augment")
    if augment is None or not (augment["mixup"] or augment["cutmix"]):
        return None
    return Mixing(augment["mixup"], augment["cutmix"], run.head.get("num_classes"), run.seed)


def job_facts(job: Job) -> dict[str, Any]:
    """What the run met, as far as the built objects know."""
    return {
        "dataset": {
            name: {"samples": len(split), "digest": split.digest, "notes": split.notes}
            for name, split in (("train", job.train), ("val", job.val))
        },
        "names": job.names._asdict(),
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
            except (UserError, OSError) as error:
                problems.append(str(error) if isinstance(error, UserError) else f"{path}: {error}")
    if problems:
        raise ConfigError(problems)


def wanted(*parts: Balance | Controller) -> int | None:
    """The largest meta-batch that a part asks for; None: as many as is usual."""
    sizes = [part.meta_batch for part in parts]
    return None if None in sizes else max(size for size in sizes if size is not None)


def check_data(run: Run, names: Names) -> None:
    """Hold the head against what the data turned out to hold. Raises ConfigError."""
    classes = names.classes
    problems = [
        f"{key}.num_classes={head['num_classes']}: the data has {len(classes)} "
        f"({', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''})"
        for key, head in heads(run.head)
        if head.get("num_classes", len(classes)) != len(classes)
    ]
    if problems:
        raise ConfigError(problems)


def targets_of(head: Part) -> tuple[str, ...]:
    """What a head learns from, each target once."""
    found = [target for _, one in heads(head) for target in get_object(one["_target_"]).targets]
    return tuple(dict.fromkeys(found))


def facts_of_data(split: Split, names: Names, targets: tuple[str, ...]) -> dict[str, Any]:
    """What a head may need to know of the training data: see mmnet.model.facts.

    Mean and standard deviation are those of at most 2,000 samples, evenly spread.
    """
    facts: dict[str, Any] = {"num_labels": len(names.labels)}
    if "value" in targets:
        some = range(0, len(split), max(1, len(split) // 2000))
        values = [split.sample(index, (), None)["value"] for index in some]
        facts["value_mean"] = statistics.fmean(values)
        facts["value_std"] = statistics.pstdev(values) or 1.0
    return facts


def total_steps(run: Run, samples: int) -> int:
    """Optimizer steps of the whole run; the last epoch is finished, not cut."""
    if run.trainer.steps is not None:
        return run.trainer.steps
    assert run.trainer.epochs is not None
    return -(-run.trainer.epochs * samples // run.trainer.batch_size)
