"""A dataset as webdataset shards: in parallel, and going on where it was stopped.

A shard holds a fixed range of the samples, settled before any is written (plan.json), so that
it does not matter who writes which shard, and when. What came of each stands in a file of its
own in .prepare/; dataset.json, written last, makes the folder a dataset.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mmnet.data.published import Published, Splits
from mmnet.data.shard_format import CARD, card_of, shard_name, write_card
from mmnet.data_commands.chosen import Chosen
from mmnet.data_commands.look import evenly
from mmnet.data_commands.options import Prepare
from mmnet.data_commands.parallel import carry_out
from mmnet.data_commands.shard import Done, How, Shard, done_path, prepared, rows_of
from mmnet.errors import UserError, reason
from mmnet.folder import hold, put
from mmnet.interfaces import BadSample


VERSION = 1  # of what is written; to be raised when the same samples become other bytes
LOOKED_AT = 200  # samples by which the size of all is guessed
BLOCK = 512  # bytes, of a tar
BAD, SUMS, PLAN = "bad.jsonl", "SHA256SUMS", "plan.json"


class Plan(msgspec.Struct, kw_only=True):
    """What is to be written, settled before the first shard."""

    version: int = VERSION
    title: str
    digest: str  # of the table
    splits: dict[str, Any]  # what decides which samples are trained on
    short_side: int | None
    decode: bool
    shard_mb: int
    shards: list[Shard]


def prepare(dataset: Chosen, asked: Prepare) -> Iterator[str]:
    """Write the shards that are not there yet; what was done, in words.

    Raises UserError when too many samples cannot be read, or the folder holds something else.
    """
    published, out = dataset.records(), Path(asked.out)
    how = How(asked.short_side, asked.decode, published.on_bad_sample == "fail")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with hold(out):
            plan = settled(published, asked, how, out)
            total = sum(shard.stop - shard.start for shard in plan.shards)
            yield f"{dataset.name}: {total:,} samples, {len(plan.shards):,} shards in {out}"
            todo = [shard for shard in plan.shards if done(out, shard) is None]
            if not todo and (out / CARD).exists():
                yield f"nothing to do: {summed(plan, out)}"
                return
            if len(todo) < len(plan.shards):
                yield f"{len(plan.shards) - len(todo):,} of them are there already"
            (out / CARD).unlink(missing_ok=True)  # until the last of them is there
            carry_out(dataset, how, out, todo, asked.workers)
            finish(published, plan, out)
            yield summed(plan, out)
            yield f"then: python -m mmnet.train dataset=webdataset dataset.root={out}"
    except OSError as error:
        raise UserError(f"{error.filename or out}: {reason(error)}") from error


def done(out: Path, shard: Shard) -> Done | None:
    """What came of a shard that is there, whole; None of others."""
    try:
        found = msgspec.json.decode(done_path(out, shard.name).read_bytes(), type=Done)
        return found if (out / shard.name).stat().st_size == found.bytes else None
    except (OSError, msgspec.MsgspecError):
        return None


def settled(published: Published, asked: Prepare, how: How, out: Path) -> Plan:
    """The plan of the folder, or a new one. Raises UserError if it is one of something else."""
    path = out / PLAN
    new = Plan(
        title=published.title,
        digest=published.table.digest,
        splits=divided(published),
        short_side=asked.short_side,
        decode=asked.decode,
        shard_mb=asked.shard_mb,
        shards=[],
    )
    if path.exists():
        try:
            old = msgspec.json.decode(path.read_bytes(), type=Plan)
        except msgspec.MsgspecError as error:
            raise UserError(f"{path}: {error}") from error
        for name in ("version", "title", "digest", "splits", "short_side", "decode", "shard_mb"):
            before, now = (msgspec.json.encode(getattr(one, name)).decode() for one in (old, new))
            if before != now:
                raise UserError(
                    f"{out} holds shards that were made with {name}={before[:80]}, and this would "
                    f"be {name}={now[:80]}: name another folder, or remove this one"
                )
        return old
    if others := sorted(one.name for one in out.iterdir() if not one.name.startswith(".")):
        raise UserError(f"{out} holds {others[0]}, and nothing is overwritten: name another folder")
    each = samples_of_a_shard(published, how, asked.shard_mb)
    first = 0
    numbers: Counter[str] = Counter()  # by the first name, which two splits may have in common
    for split, rows in rows_of(published).items():
        for start in range(0, len(rows), each):
            name = shard_name(split, numbers[shard_name(split, 0)])
            numbers[shard_name(split, 0)] += 1
            stop = min(start + each, len(rows))
            new.shards.append(Shard(name, split, start, stop, first + start))
        first += len(rows)
    if not new.shards:
        raise UserError(f"{published.folder} has no samples")
    put(path, msgspec.json.encode(new).decode())
    return new


def divided(published: Published) -> dict[str, Any]:
    """The settings by which the samples are divided."""
    names = ("train_split", "val_split", "split_seed", "val_fraction")
    return {name: getattr(published, name) for name in names if hasattr(published, name)}


def roles(published: Published) -> dict[str, list[str]]:
    """The splits that are trained on and evaluated, as they are called in the shards."""
    if isinstance(published, Splits) and not published.drawn:
        return {"train": list(published.train_split), "val": list(published.val_split)}
    return {"train": ["train"], "val": ["val"]}


def samples_of_a_shard(published: Published, how: How, shard_mb: int) -> int:
    """How many make up about `shard_mb`, guessed by some, evenly spread."""
    sizes = []
    every = np.concatenate([*rows_of(published).values(), np.zeros(0, np.int64)])
    for row in evenly(every, LOOKED_AT):
        try:
            sample = prepared(published, int(row), how)
        except BadSample:
            continue
        text = sum(map(len, sample.record.captions)) + 100
        parts = [text] if sample.picture is None else [text, len(sample.picture)]
        sizes.append(sum(BLOCK - (-part // BLOCK) * BLOCK for part in parts))
    mean = sum(sizes) / len(sizes) if sizes else BLOCK
    return max(1, round(shard_mb * 1e6 / mean))


def finish(published: Published, plan: Plan, out: Path) -> None:
    """What is written of all shards together. Raises UserError if too much is bad."""
    found = {shard.name: done(out, shard) for shard in plan.shards}
    each = {shard: one for shard in plan.shards if (one := found[shard.name]) is not None}
    assert len(each) == len(plan.shards), "a shard is gone again"
    put(
        out / BAD,
        "".join(
            json.dumps({"split": shard.split, "key": key, "reason": reason}) + "\n"
            for shard, one in each.items()
            for key, reason in one.bad
        ),
    )
    put(out / SUMS, "".join(f"{one.sha256}  {shard.name}\n" for shard, one in each.items()))
    check_fraction(published, each, out)
    notes = dict(published.table.notes)
    reasons = Counter(reason for one in each.values() for _, reason in one.bad)
    notes |= {f"left out when prepared: {what}": count for what, count in sorted(reasons.items())}
    write_card(
        out,
        card_of(
            published.title,
            published.table.digest,
            published.names,
            published.offers,
            published.unsaid,
            roles(published),
            notes,
            {shard.name: one.samples for shard, one in each.items()},
        ),
    )


def check_fraction(published: Published, each: dict[Shard, Done], out: Path) -> None:
    """Raises UserError if more of a split is bad than dataset.max_bad_fraction allows."""
    for split in dict.fromkeys(shard.split for shard in each):
        bad = [one for shard, done in each.items() if shard.split == split for one in done.bad]
        size = sum(shard.stop - shard.start for shard in each if shard.split == split)
        if len(bad) > published.max_bad_fraction * size:
            causes = Counter(reason for _, reason in bad)
            told = ", ".join(f"{count} x {what}" for what, count in causes.most_common())
            raise UserError(
                f"{len(bad):,} of the {size:,} samples of {split or 'the dataset'} cannot be read "
                f"({told}), more than dataset.max_bad_fraction={published.max_bad_fraction:g} "
                f"allows; {out / BAD} names them, the first {bad[0][0]}. Raised, the shards that "
                f"are there are used"
            )


def summed(plan: Plan, out: Path) -> str:
    """What all shards hold; samples in are samples out and those that were left out."""
    each = [one for shard in plan.shards if (one := done(out, shard)) is not None]
    samples, bad = sum(one.samples for one in each), sum(len(one.bad) for one in each)
    size = sum(one.bytes for one in each)
    left = f", {bad:,} left out ({BAD} says which and why)" if bad else ", none left out"
    return f"{samples:,} samples in {len(each):,} shards of {size / 1e6:,.1f} MB together{left}"
