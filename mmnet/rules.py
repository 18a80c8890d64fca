"""What settings must hold together, as far as the config alone can tell.

Each rule names the keys it looks at and is asked only when every one of them is there and
well in itself. It yields the keys to blame and what to do about them.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from mmnet.config import MODALITIES
from mmnet.errors import nearest


Blame = tuple[tuple[str, ...], str]
Rule = Callable[..., Iterator[Blame]]

RULES: list[tuple[tuple[str, ...], Rule]] = []


def rule(*keys: str) -> Callable[[Rule], Rule]:
    """Register a rule on the values of `keys`."""

    def register(function: Rule) -> Rule:
        RULES.append((keys, function))
        return function

    return register


def broken(values: dict[str, Any]) -> Iterator[Blame]:
    """What the sound `values` (dotted key -> value) break."""
    for keys, function in RULES:
        if all(key in values for key in keys):
            yield from function(*(values[key] for key in keys))


def idle_dropout(values: dict[str, Any], needed: set[str]) -> Iterator[Blame]:
    """Dropping modalities where there is nothing to drop; `needed`: those all heads must have."""
    if not values.get("trainer.modality_dropout"):
        return
    encoders = [key for key in values if re.fullmatch(r"encoder\.\w+\._target_", key)]
    if len(encoders) == 1:
        yield ("trainer.modality_dropout",), "a network with one encoder has nothing to drop"
    elif needed == set(MODALITIES):
        yield ("trainer.modality_dropout",), "this head cannot do without any of the modalities"


@rule("paths.output")
def a_folder(output: str) -> Iterator[Blame]:
    if not output.strip():
        yield ("paths.output",), "expected a folder"


@rule("trainer.steps", "trainer.epochs")
def one_length(steps: int | None, epochs: int | None) -> Iterator[Blame]:
    if (steps is None) == (epochs is None):
        yield ("trainer.steps", "trainer.epochs"), "set one of the two and the other to null"


@rule("trainer.batch_size", "hardware.micro_batch_size")
def whole_micro_batches(batch: int, micro: int | None) -> Iterator[Blame]:
    if micro is not None and batch % min(batch, micro):
        near = max(micro, round(batch / micro) * micro)
        yield (
            ("trainer.batch_size", "hardware.micro_batch_size"),
            f"a batch must be a whole number of micro-batches; {near} would be",
        )


@rule("head.num_classes", "dataset.num_classes")
def as_many_classes(answers: int, labels: int) -> Iterator[Blame]:
    if answers != labels:
        yield (
            ("head.num_classes", "dataset.num_classes"),
            "the head must answer with as many classes as the data has",
        )


@rule("encoder.image.image_size", "encoder.image.patch_size")
def whole_patches(size: int, patch: int | None) -> Iterator[Blame]:
    if patch is not None and size % patch:
        near = max(patch, round(size / patch) * patch)
        yield (
            ("encoder.image.image_size", "encoder.image.patch_size"),
            f"an image must be a whole number of patches wide; {near} would be",
        )


def _whole_heads(part: str) -> None:
    dim_key, heads_key = f"{part}.dim", f"{part}.num_heads"

    @rule(dim_key, heads_key)
    def whole_heads(dim: int | None, heads: int | None) -> Iterator[Blame]:
        if dim is not None and heads is not None and dim % heads:
            yield (
                (dim_key, heads_key),
                f"attention splits dim among its heads; {max(1, dim // heads) * heads} would do",
            )


for _part in (*(f"encoder.{modality}" for modality in MODALITIES), "fusion"):
    _whole_heads(_part)


# Learned positions of the published models and of transformers' own defaults.
POSITIONS = {"bert": 512, "clip": 77, "distilbert": 512, "modernbert": 8192, "roberta": 512}


@rule("encoder.text.name", "encoder.text.architecture", "encoder.text.max_length")
def enough_positions(name: str | None, architecture: str | None, length: int) -> Iterator[Blame]:
    if name is not None and os.path.exists(name):  # noqa: PTH110 (Path's raises on long names)
        return  # a local folder says itself how long it reads
    family = name.split("/")[-1] if name is not None else architecture
    match = re.match(r"[a-z]+(?=-|$)", family or "")
    limit = POSITIONS.get(match.group()) if match else None
    if limit is not None and length > limit:
        yield ("encoder.text.max_length",), f"this encoder reads at most {limit} tokens"


def _one_way_to_freeze(modality: str) -> None:
    freeze, rank, decay = (
        f"tuning.{modality}.{name}" for name in ("freeze", "lora_rank", "layer_decay")
    )

    @rule(freeze, rank)
    def adapters_freeze(layers: int | str | None, size: int | None) -> Iterator[Blame]:
        if layers is not None and size is not None:
            yield (freeze, rank), "LoRA freezes the encoder by itself: set freeze=null"

    @rule(freeze, decay)
    def nothing_decays(layers: int | str | None, share: float) -> Iterator[Blame]:
        if layers == "all" and share != 1:
            yield (freeze, decay), "a frozen encoder has no learning rate: set layer_decay=1"


for _modality in MODALITIES:
    _one_way_to_freeze(_modality)


@rule("balance._target_", "hardware.compile")
def balanced_eagerly(balance: str, compiled: bool) -> Iterator[Blame]:
    if compiled and balance != "mmnet.balance.none.Unbalanced":
        yield (
            ("balance._target_", "hardware.compile"),
            "balancing looks into the network as it runs: set hardware.compile=false",
        )


@rule("optimizer._target_", "schedule._target_")
def schedule_free_alone(optimizer: str, schedule: str) -> Iterator[Blame]:
    free = optimizer == "mmnet.optimizer.schedule_free.schedule_free"
    if free and schedule != "mmnet.schedule.constant.constant":
        yield (
            ("optimizer._target_", "schedule._target_"),
            "Schedule-Free replaces the decay of the rate: add schedule=constant",
        )


for _modality in MODALITIES:

    @rule("optimizer._target_", f"tuning.{_modality}.layer_decay")
    def one_rate(optimizer: str, decay: float, modality: str = _modality) -> Iterator[Blame]:
        if optimizer == "mmnet.optimizer.prodigy.prodigy" and decay != 1:
            yield (
                ("optimizer._target_", f"tuning.{modality}.layer_decay"),
                "Prodigy finds one rate for all weights: set layer_decay=1",
            )


@rule("optimizer._target_", "controller.online.every")
def a_step_that_is_known(optimizer: str, every: int | None) -> Iterator[Blame]:
    if optimizer == "mmnet.optimizer.schedule_free.schedule_free" and every is not None:
        yield (
            ("optimizer._target_", "controller.online.every"),
            "Schedule-Free does not keep the step that the online loop asks about: add "
            "optimizer=adamw, or set controller.online.every=null",
        )


@rule("optimizer._target_", "trainer.ema_decay")
def one_average(optimizer: str, decay: float | None) -> Iterator[Blame]:
    if optimizer == "mmnet.optimizer.schedule_free.schedule_free" and decay is not None:
        yield (
            ("optimizer._target_", "trainer.ema_decay"),
            "Schedule-Free keeps an average of its own: set trainer.ema_decay=null",
        )


@rule("optimizer.momentum", "optimizer.nesterov")
def nesterov_looks_ahead(momentum: float, nesterov: bool) -> Iterator[Blame]:
    if nesterov and not momentum:
        yield ("optimizer.momentum", "optimizer.nesterov"), "nesterov needs a momentum above 0"


@rule("schedule.warmup_ratio", "schedule.decay_ratio")
def warm_before_decay(warmup: float, decay: float) -> Iterator[Blame]:
    if warmup + decay > 1:
        yield (
            ("schedule.warmup_ratio", "schedule.decay_ratio"),
            "warm-up and decay together are longer than the run",
        )


@rule("name")
def one_folder(name: str) -> Iterator[Blame]:
    # It becomes a folder under paths.output.
    if not name.strip() or name.startswith(".") or re.search(r"[/\\]", name) or len(name) > 100:
        yield ("name",), "expected 1 to 100 characters without slashes or a dot in front"


def undivided(values: dict[str, Any], compare: list[str]) -> Iterator[Blame]:
    """Whether what is chosen bears a batch that is split into micro-batches.

    compare: the keys of heads whose loss compares the samples of a batch.
    """
    sizes = ("trainer.batch_size", "hardware.micro_batch_size")
    batch, micro = (values.get(key) for key in sizes)
    if batch is None or micro is None or micro >= batch:
        return
    for key in values:
        if re.fullmatch(r"head(\.tasks\.\w+)?\.hard_negatives", key) and values[key]:
            yield (
                (key, *sizes),
                "hard negatives are found among the samples that go through the network at once, "
                "so that fewer would change the training: set hardware.micro_batch_size=null",
            )
    if values.get("head.weighting") in ("pcgrad", "gradnorm") and compare:
        yield (
            ("head.weighting", *sizes),
            f"this weighting needs the gradients of each task by itself, and those of "
            f"{', '.join(compare)} come of a whole batch: set hardware.micro_batch_size=null, or "
            f"head.weighting=uncertainty",
        )


def untuned(values: dict[str, Any]) -> Iterator[Blame]:
    """Whether an encoder that is tuned is there."""
    for modality in MODALITIES:
        asked = [
            key
            for name, off in (("freeze", None), ("lora_rank", None), ("layer_decay", 1))
            if values.get(key := f"tuning.{modality}.{name}", off) != off
        ]
        if asked and f"encoder.{modality}._target_" not in values:
            yield tuple(asked), f"there is no encoder/{modality} in this network"


def monitored(values: dict[str, Any], metrics: list[str]) -> Iterator[Blame]:
    """Whether trainer.monitor is one of what the head measures."""
    if "trainer.monitor" in values:
        valid = [f"val/{name}" for name in ("loss", *metrics)]
        for key, number in values.items():
            head = re.fullmatch(r"head(?:\.tasks\.(\w+))?\.num_classes", key)
            if head and number <= 5:  # all answers are among the best five
                task = f"{head[1]}_" if head[1] else ""
                valid = [name for name in valid if name != f"val/{task}top5"]
        if values["trainer.monitor"] not in valid:
            near = nearest(values["trainer.monitor"], valid)
            yield ("trainer.monitor",), f"expected one of {', '.join(valid)}{near}"
