"""Do the chosen parts make sense together? Asked of what their classes declare, none imported."""

from collections.abc import Iterator
from typing import Any


Constants = dict[str, Any]  # class attributes of a part, as its source spells them out
Blame = tuple[tuple[str, ...], str]

# What the class of a part must declare, so that it can be judged before it is imported.
DECLARED = {
    "fusion": ("joins", "pools", "modalities"),
    "head": ("targets", "needs", "modalities", "whole_batch", "higher_is_better"),
    "dataset": ("offers",),
    "balance": ("labels",),
    "controller": ("optimizers", "schedules"),
}


def heads_of(parts: dict[str, Constants]) -> dict[str, Constants]:
    """Every head by its key; of one that is made of heads, those."""
    return {
        key: found
        for key, found in parts.items()
        if key.partition(".")[0] == "head" and "targets" in found
    }


def offered(parts: dict[str, Constants]) -> list[str] | None:
    """What the dataset offers, or all of those that it is made of; None where it is not there."""
    found = [
        dataset["offers"]
        for key, dataset in parts.items()
        if key.partition(".")[0] == "dataset" and "offers" in dataset
    ]
    if not found:
        return None
    return [target for target in found[0] if all(target in one for one in found)]


def metrics_of(parts: dict[str, Constants]) -> list[str]:
    """Names of what the head measures; those of a task begin with its name."""
    return sorted(
        name if key == "head" else f"{key.rpartition('.')[2]}_{name}"
        for key, head in heads_of(parts).items()
        for name in head["higher_is_better"]
    )


def comparing(parts: dict[str, Constants]) -> list[str]:
    """The keys of heads whose loss compares the samples of a batch."""
    return [key for key, head in heads_of(parts).items() if head["whole_batch"]]


def learnt(parts: dict[str, Constants]) -> set[str]:
    """What the heads learn from."""
    return {target for head in heads_of(parts).values() for target in head["targets"]}


def needed_by_all(parts: dict[str, Constants]) -> set[str]:
    """Modalities that none of the heads can do without."""
    needed = [set(head["modalities"]) for head in heads_of(parts).values()]
    return set.intersection(*needed) if needed else set()


def unsteered(parts: dict[str, Constants]) -> Iterator[Blame]:
    """A controller's optimizer or schedule that it does not go with."""
    for group in ("optimizer", "schedule"):
        known = parts.get("controller", {}).get(f"{group}s")
        target = parts.get(group, {}).get("_target_")
        if known and target and target not in known:
            names = " or ".join(one.rpartition(".")[2] for one in known)
            yield (
                ("controller._target_", f"{group}._target_"),
                f"this controller goes with {group}={names}",
            )


def unbalanced(parts: dict[str, Constants], heads: dict[str, Constants]) -> Iterator[Blame]:
    """A way of balancing encoders that needs labels, where there are none, or one encoder."""
    if not parts.get("balance", {}).get("labels"):
        return
    others = [key for key, head in heads.items() if tuple(head["targets"]) != ("label",)]
    if others or len(heads) > 1:
        yield (
            ("balance._target_", f"{(others or [*heads])[0]}._target_"),
            "this balance compares how well each encoder alone tells the class: it needs "
            "head=classification, or balance=none",
        )
    encoders = [key for key in parts if key.startswith("encoder.")]
    if len(encoders) == 1:
        yield ("balance._target_", encoders[0]), "one encoder has nothing to be balanced with"


def misfits(parts: dict[str, Constants], whole: bool) -> Iterator[Blame]:
    """What keeps the parts from working together, and the keys to blame.

    parts: what each part's class declares, by its key. whole: none is missing for a problem
    of its own; otherwise only what is there is judged.
    """
    heads = heads_of(parts)
    encoders = [key.partition(".")[2] for key in parts if key.startswith("encoder.")]
    fusion, offers = parts.get("fusion"), offered(parts)
    for key, head in heads.items():
        if offers is not None:
            lacking = [t for t in head["targets"] if t not in ("tokens", *offers)]
            if lacking:
                yield (
                    (f"{key}._target_", "dataset._target_"),
                    f"this head learns from {', '.join(lacking)}, and the dataset offers "
                    f"{', '.join(offers)}",
                )
        lost = [name for name in head["modalities"] if name not in encoders]
        if whole and lost:
            choose = " and ".join(f"encoder/{name}=..." for name in lost)
            yield (f"{key}._target_",), f"this head cannot do without {choose}"
        if fusion is not None and head["needs"] == "joint" and not fusion["joins"]:
            yield (
                (f"{key}._target_", "fusion._target_"),
                "this head answers from one vector a sample, and this fusion keeps the "
                "modalities apart: choose another fusion",
            )
    yield from unsteered(parts)
    yield from unbalanced(parts, heads)
    if fusion is None:
        return
    if heads and fusion["joins"] and all(head["needs"] == "pooled" for head in heads.values()):
        yield (
            (f"{next(iter(heads))}._target_", "fusion._target_"),
            "this head reads each modality by itself, so that nothing would train this fusion: "
            "choose fusion=separate",
        )
    tokens_alone = heads and all(head["needs"] == "tokens" for head in heads.values())
    if whole and tokens_alone and not fusion["joins"] and len(encoders) > 1:
        yield (
            (f"{next(iter(heads))}._target_", "fusion._target_"),
            "this head reads the text, and this fusion keeps the image apart, so that nothing "
            "would train encoder/image: leave it out (~encoder/image) or choose another fusion",
        )
    if whole and len(encoders) < fusion["modalities"]:
        yield (
            ("fusion._target_",),
            f"this fusion joins {fusion['modalities']} modalities, and there is only "
            f"encoder/{encoders[0]}: choose fusion=concat or one more encoder",
        )
