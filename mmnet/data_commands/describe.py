"""A card of a dataset: README.md, plots and a sheet of real samples, the same each time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmnet.data.published import Published
from mmnet.data_commands import card
from mmnet.data_commands.chosen import Chosen
from mmnet.data_commands.facts import Facts, facts_of, known
from mmnet.data_commands.look import Looked, evenly, look, with_pictures
from mmnet.data_commands.options import Describe
from mmnet.data_commands.shard import rows_of
from mmnet.errors import UserError, reason
from mmnet.folder import put
from mmnet.report.plots import plain


SAMPLES = 24  # on the sheet
QUOTED = 8  # texts in words
LISTED = 20  # classes in the table, from each end
FREQUENT = 5  # captions that many samples share


def describe(dataset: Chosen, asked: Describe) -> Iterator[str]:
    """Write the card; where it is. Raises UserError."""
    published, out = dataset.records(), Path(asked.out)
    own = asked.facts is not None or dataset.name in known()
    facts = facts_of(dataset.name, asked.facts) if own else None
    every = with_pictures(published)
    looked = list(look(published, evenly(every, asked.pictures)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        parts = [
            head(dataset, facts),
            counts(published, facts),
            samples(published, looked, out),
            texts(published, out),
            pictures(looked, len(every), out),
            targets(published, out),
            duplicates(published, looked),
            tail(facts),
        ]
        put(out / "README.md", "\n\n".join("\n".join(part) for part in parts if part) + "\n")
    except OSError as error:
        raise UserError(f"{error.filename or out}: {reason(error)}") from error
    yield f"{out / 'README.md'}: {dataset.name}, {len(published.table):,} samples"


def head(dataset: Chosen, facts: Facts | None) -> list[str]:
    if facts is None:
        return [f"# {dataset.name}"]
    return [
        f"# {facts.title}",
        "",
        f"* Homepage: <{facts.homepage}>",
        f"* Licence: {facts.licence}",
        *([f"* {facts.notes}"] if facts.notes else []),
    ]


def tail(facts: Facts | None) -> list[str]:
    return [] if facts is None else ["## Citation", "", "```bibtex", facts.citation.rstrip(), "```"]


def counts(published: Published, facts: Facts | None) -> list[str]:
    """Samples, pictures and captions of each split, what was left out, and dead links."""
    table = published.table
    captions = pc.fill_null(pc.list_value_length(table.column("captions")), 0).to_numpy()
    places = np.asarray(pc.is_valid(table.column("image")), bool)
    rows = [
        [name or "(no split)", *(f"{int(n):,}" for n in (len(some), *(of.sum() for of in held)))]
        for name, some in rows_of(published).items()
        for held in [(places[some], captions[some])]
    ]
    lines = ["## Counts", "", *markdown(["split", "samples", "with a picture", "captions"], rows)]
    lines += [f"* left out: {what}: {count:,}" for what, count in table.notes.items()]
    if facts is not None and facts.addresses:
        gone = sum(count for what, count in table.notes.items() if "picture" in what)
        if gone:
            share = gone / (gone + len(table))
            lines += [
                "",
                f"Dead or not downloaded: {gone:,} of {gone + len(table):,} ({share:.1%}).",
            ]
    return lines


def samples(published: Published, looked: Sequence[Looked], out: Path) -> list[str]:
    """A sheet of pictures with their captions, and some texts in words."""
    lines = ["## Samples", ""]
    good = np.array([one.row for one in looked if not one.bad], np.int64)
    if len(good):
        chosen = [published.table[int(row)] for row in evenly(good, SAMPLES)]
        card.draw_sheet(out, published, chosen)
        lines += ["![Some samples](plots/samples.png)", ""]
    some = evenly(np.arange(len(published.table)), QUOTED).tolist()
    for record in (published.table[row] for row in some):
        if record.captions:
            text = plain(record.captions[0]).replace("`", "'")
            lines.append(f"* `{text[:200]}{'…' if len(text) > 200 else ''}`")
    return lines


def texts(published: Published, out: Path) -> list[str]:
    """How long they are, in characters and in words."""
    every = pc.list_flatten(published.table.column("captions"))
    if len(every) == 0:
        return []
    characters = pc.utf8_length(every).to_numpy()
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(every)))
    lengths = {"characters": characters, "words": words.to_numpy()}
    card.draw_histograms(out, "texts.png", lengths, "texts")
    rows = [[what, *numbers(values)] for what, values in lengths.items()]
    empty = int((characters == 0).sum())
    return [
        "## Texts",
        "",
        "![Lengths](plots/texts.png)",
        "",
        *markdown(["", "least", "median", "mean", "95 %", "most"], rows),
        *([f"* empty: {empty:,}"] if empty else []),
    ]


def pictures(looked: Sequence[Looked], total: int, out: Path) -> list[str]:
    """How large they are, and which cannot be read."""
    if not looked:
        return []
    good = [one for one in looked if not one.bad]
    lines = ["## Pictures", "", f"Of {len(looked):,} that were opened, of {total:,}:", ""]
    if good:
        sizes = np.array([(one.width, one.height, one.bytes) for one in good])
        card.draw_sizes(out, sizes[:, :2])
        names = ("width, pixels", "height, pixels", "file, bytes")
        rows = [[name, *numbers(column)] for name, column in zip(names, sizes.T, strict=True)]
        lines += ["![Sizes](plots/pictures.png)", ""]
        lines += markdown(["", "least", "median", "mean", "95 %", "most"], rows)
    for what, count in Counter(one.bad for one in looked if one.bad).most_common():
        lines.append(f"* cannot be read: {what}: {count:,}")
    return lines


def targets(published: Published, out: Path) -> list[str]:
    """How often each class and each label holds, and how values are spread."""
    lines: list[str] = []
    table, names = published.table, published.names
    if names.classes:
        known_labels = table.column("label").drop_null().to_numpy()
        lines += balance("Classes", names.classes, known_labels, out)
    if names.labels:
        present = pc.list_flatten(table.column("present")).to_numpy()
        lines += balance("Labels", names.labels, present, out)
        absent = len(pc.list_flatten(table.column("absent")))
        if absent:
            lines += ["", f"Known not to hold: {absent:,}."]
    values = table.column("value").drop_null().to_numpy()
    if len(values):
        what = names.unit or "value"
        card.draw_histograms(out, "values.png", {what: values}, "samples")
        lines += ["## Values", "", "![Values](plots/values.png)", ""]
        lines += markdown(
            ["", "least", "median", "mean", "95 %", "most"], [[what, *numbers(values)]]
        )
    return lines


def balance(what: str, names: Sequence[str], held: npt.NDArray[Any], out: Path) -> list[str]:
    """A table of how often each holds, the most frequent first; of many, both ends."""
    times = np.bincount(held, minlength=len(names))
    file = f"{what.lower()}.png"
    card.draw_balance(out, file, names, times)
    order = np.argsort(-times, kind="stable").tolist()
    rows = [[plain(str(names[i])).replace("|", "/"), f"{int(times[i]):,}"] for i in order]
    if len(rows) > 2 * LISTED:
        rows = [*rows[:LISTED], ["…", "…"], *rows[-LISTED:]]
    never = int((times == 0).sum())
    return [
        f"## {what}",
        "",
        f"![How often each holds](plots/{file})",
        "",
        *markdown([{"Classes": "class", "Labels": "label"}[what], "samples"], rows),
        *([f"* without a sample: {never:,} of {len(names):,}"] if never else []),
        "",
    ]


def duplicates(published: Published, looked: Sequence[Looked]) -> list[str]:
    """Equal captions, equal files, and those that are on both sides of a split."""
    lines = ["## Duplicates", ""]
    table = published.table
    every = pc.list_flatten(table.column("captions"))
    if len(every):
        found = pc.value_counts(every)
        times = found.field("counts").to_numpy()
        again = len(every) - len(found)
        lines.append(
            f"* captions that are there before, to the letter: {again:,} of {len(every):,}"
        )
        for i in np.argsort(-times, kind="stable")[:FREQUENT].tolist():
            if times[i] > 1:
                text = plain(found.field("values")[i].as_py()).replace("`", "'")
                lines.append(f"    * {int(times[i]):,} times `{text[:120]}`")
        sides = [
            pc.list_flatten(_take(table.column("captions"), rows)) for rows in _sides(published)
        ]
        if all(map(len, sides)):
            both = int(pc.sum(pc.is_in(sides[1], value_set=sides[0])).as_py() or 0)
            lines.append(
                f"* captions of val that are in train as well: {both:,} of {len(sides[1]):,}"
            )
    good = [one for one in looked if not one.bad]
    if good:
        again = len(good) - len({one.digest for one in good})
        lines.append(
            f"* pictures with the same bytes as another: {again:,} of {len(good):,} opened"
        )
        train, val = (set(rows.tolist()) for rows in _sides(published))
        known_bytes = {one.digest for one in good if one.row in train}
        both = sum(one.digest in known_bytes for one in good if one.row in val)
        lines.append(f"* pictures of val whose bytes are in train as well: {both:,}")
    return lines if len(lines) > 2 else []


def _sides(published: Published) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers of the records that are trained on and evaluated; none where a split is not."""
    sides = []
    for name in ("train", "val"):
        try:
            sides.append(published.rows(name))
        except UserError:
            sides.append(np.zeros(0, np.int64))
    return sides[0], sides[1]


def _take(column: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> pa.ChunkedArray:
    """Those rows, without putting all of them into one array, which may be too long for it."""
    chosen = np.zeros(len(column), bool)
    chosen[rows] = True
    return column.filter(pa.array(chosen))


def numbers(values: npt.NDArray[Any]) -> list[str]:
    """Least, median, mean, 95th percentile and most."""
    middle, high = np.percentile(values, (50, 95))
    return [
        f"{number:,.0f}" if abs(number) >= 100 or float(number).is_integer() else f"{number:,.3g}"
        for number in (values.min(), middle, values.mean(), high, values.max())
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; what follows the first column is aligned to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]
