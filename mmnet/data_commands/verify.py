"""A dataset held against what its publisher says of it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmnet.columns import aligned
from mmnet.data.published import Published
from mmnet.data_commands.chosen import Chosen
from mmnet.data_commands.digest import digest
from mmnet.data_commands.facts import Count, Facts, File, facts_of, known
from mmnet.data_commands.look import counted, evenly, look, with_pictures
from mmnet.data_commands.options import Verify
from mmnet.errors import UserError


OK, DIFFERS, MISSING, SUBSET = "ok", "differs", "missing", "subset"
SUMS = "SHA256SUMS"  # of what `prepare` wrote, as sha256sum reads it
SHOWN = 5  # bad pictures that are named


class Row(NamedTuple):
    """One line of the table."""

    what: str
    published: str
    here: str
    state: str
    wrong: bool = False


def verify(dataset: Chosen, asked: Verify) -> Iterator[str]:
    """The table, line by line, and what explains it. Raises UserError if something is wrong."""
    published = dataset.records()
    yield f"{dataset.name} in {published.folder}"
    rows: list[Row] = []
    if asked.facts is not None or dataset.name in known():
        facts = facts_of(dataset.name, asked.facts)
        edition, counts = nearest_edition(facts, published)
        rows += [one for file in facts.files if (one := of_file(file, edition, published, dataset))]
        rows += counts
    else:
        yield "nothing is written down of what is published; facts=<file> names a YAML file of it"
    rows += list(of_shards(published.folder))
    pictures, named = of_pictures(published, asked.pictures)
    rows += pictures
    if rows:
        head = ("", "published", "here", "")
        yield from aligned([head, *(row[:4] for row in rows)], right=(1, 2))
    for what, count in published.table.notes.items():
        yield f"left out: {what}: {count:,}"
    yield from named
    if any(row.state.startswith(SUBSET) for row in rows):
        yield "subset: what is here is part of what is published"
    wrong = [row.what for row in rows if row.wrong]
    if wrong:
        error = UserError(f"{published.folder}: not as it should be: {', '.join(wrong)}")
        error.exit_code = 1
        raise error


def of_file(file: File, edition: str, published: Published, dataset: Chosen) -> Row | None:
    """An official file as it is here; None where there is nothing to say of it."""
    if file.bytes is None and file.checksum is None:
        return None
    folders = (published.folder, dataset.data, published.folder.parent)
    path = next((one for folder in folders if (one := folder / file.name).is_file()), None)
    if path is None and file.edition not in ("", edition):
        return None
    told = [] if file.bytes is None else [f"{file.bytes:,} bytes"]
    told += [f"{file.checksum[0]} {file.checksum[1][:8]}"] if file.checksum else []
    asks = ", ".join(told)
    if path is None:
        return Row(file.name, asks, "", MISSING)
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return Row(file.name, asks, f"{size:,} bytes", DIFFERS, wrong=True)
    if file.checksum is None:
        return Row(file.name, asks, f"{size:,} bytes", OK)
    kind, digits = file.checksum
    got = digest(path, kind)
    same = got == digits
    here = ", ".join([*([f"{size:,} bytes"] if file.bytes else []), f"{kind} {got[:8]}"])
    return Row(file.name, asks, here, OK if same else DIFFERS, wrong=not same)


def nearest_edition(facts: Facts, published: Published) -> tuple[str, list[Row]]:
    """The edition that what is here looks most like, and its counts."""
    tables = {
        name: [of_count(one, published) for one in facts.of(name or None).counts]
        for name in facts.editions or [""]
    }

    def likeness(name: str) -> tuple[int, int]:
        rows = tables[name]
        return sum(row.state == OK for row in rows), -sum(row.wrong for row in rows)

    best = max(tables, key=likeness)  # of equals the first
    return best, tables[best]


def of_count(count: Count, published: Published) -> Row:
    """How many there are, and how many there should be."""
    here = counted(published, count.of, count.split)
    what = " ".join(part for part in (count.edition, count.split, count.of) if part)
    if here == count.number:
        state = OK
    elif here > count.number:
        state = DIFFERS
    else:
        state = f"{SUBSET} ({here / count.number:.2%})" if here else MISSING
    return Row(what, f"{count.number:,}", f"{here:,}", state, wrong=state == DIFFERS)


def of_shards(folder: Path) -> Iterator[Row]:
    """What `prepare` wrote, byte by byte."""
    sums = folder / SUMS
    if not sums.is_file():
        return
    for line in sums.read_text("utf-8").splitlines():
        digits, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            yield Row(name, f"sha256 {digits[:8]}", "", MISSING, wrong=True)
            continue
        got = digest(path, "sha256")
        state = OK if got == digits else DIFFERS
        yield Row(name, f"sha256 {digits[:8]}", f"sha256 {got[:8]}", state, wrong=got != digits)


def of_pictures(published: Published, most: int | str) -> tuple[list[Row], list[str]]:
    """Whether they can be decoded; and which cannot."""
    every = with_pictures(published)
    rows = evenly(every, most)
    if len(rows) == 0:
        return [], []
    bad = [one for one in look(published, rows) if one.bad]
    reasons = Counter(one.bad for one in bad)
    named = [f"cannot be decoded: {count:,} x {what}" for what, count in reasons.most_common()]
    named += [f"  {one.key}: {one.bad}" for one in bad[:SHOWN]]
    too_many = len(bad) > published.max_bad_fraction * len(rows)
    state = OK if not bad else DIFFERS
    if bad and not too_many:
        state = f"{DIFFERS}, within dataset.max_bad_fraction"
    what = "pictures decoded" if len(rows) == len(every) else f"pictures decoded, of {len(every):,}"
    here = f"{len(rows) - len(bad):,}"
    return [Row(what, f"{len(rows):,}", here, state, wrong=too_many)], named
