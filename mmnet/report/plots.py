"""The pictures of a run: loss, learning rate, confusion matrix, predictions.

Each goes to plots/ of the run folder as a PNG 800 pixels wide or little more, replaced whole.
Colours are Okabe and Ito's, told apart by the colour-blind; nothing is said by colour alone.
"""

import io
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmnet.track.recorder import read


if TYPE_CHECKING:
    from matplotlib.figure import Figure


BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#555555"
_MARKS = {True: (BLUE, "✓"), False: (VERMILLION, "✗"), None: (GREY, "•")}
_DPI = 100
_WIDTH = 8.0  # inches
_POINTS = 1000  # drawn of a curve; more are averaged
_MOST, _COLUMNS = 16, 4  # predictions on one picture
_MARGIN, _LINE = 0.08, 0.16  # inches around a prediction, and of a line of its text


class Example(NamedTuple):
    """One answer of the network, with what it saw."""

    image: NDArray[np.uint8] | None  # [H, W, 3]
    text: str | None
    truth: str
    answer: str
    right: bool | None  # None: neither right nor wrong


class Curve(NamedTuple):
    """One metric over the steps, finite values only."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def draw_curves(folder: Path) -> list[Path]:
    """loss.png and rate.png from metrics.jsonl; returns what was drawn.

    Read are train/loss, val/loss and train/lr; a picture without values is left out.
    """
    found = curves(folder, ("train/loss", "val/loss", "train/lr"))
    drawn = []
    train, val, rate = found["train/loss"], found["val/loss"], found["train/lr"]
    if len(train.steps) or len(val.steps):
        figure, axes = new_figure(_WIDTH, 4.5)
        if len(train.steps):
            dense, smooth = _thinned(train, _POINTS), smoothed(train)
            axes.plot(*dense, color=BLUE, alpha=0.25, linewidth=0.8)
            axes.plot(*smooth, color=BLUE, linewidth=1.8, label="train, smoothed")
        if len(val.steps):
            axes.plot(*val, color=VERMILLION, marker="o", markersize=5, label="val")
        if _spans_decades(train.values, val.values):
            axes.set_yscale("log")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
        drawn.append(save(figure, folder, "loss.png"))
    if len(rate.steps):
        figure, axes = new_figure(_WIDTH, 3.0)
        axes.plot(*_thinned(rate, _POINTS), color=BLUE, linewidth=1.8)
        axes.set_ylabel("learning rate")
        axes.set_ylim(bottom=0)
        drawn.append(save(figure, folder, "rate.png"))
    return drawn


def curves(folder: Path, names: Sequence[str]) -> dict[str, Curve]:
    """Metrics of a run by name."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for line in read(folder):
        for name in names:
            if (value := line.get(name)) is not None:
                found[name].append((line["step"], value))
    return {name: Curve(*np.array(rows, float).reshape(-1, 2).T) for name, rows in found.items()}


def draw_confusion(
    folder: Path, matrix: Any, classes: Sequence[str], name: str = "confusion"
) -> Path:
    """<name>.png: truth in rows, answers in columns, shaded by the share of the row.

    matrix: [C, C] counts, anything numpy reads.
    """
    counts = np.asarray(matrix, float)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    number = len(classes)
    figure, axes = new_figure(_WIDTH, _WIDTH * 0.9)
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    if number <= 40:
        size = 10 if number <= 12 else 8 if number <= 25 else 6
        names = [_cut(plain(name), 18) for name in classes]
        axes.set_xticks(range(number), names, rotation=90 if number > 6 else 0, fontsize=size)
        axes.set_yticks(range(number), names, fontsize=size)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if number <= 20:
        for row, column in np.ndindex(number, number):
            if counts[row, column]:
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=9 if number <= 12 else 7,
                    color="white" if share[row, column] > 0.6 else "black",
                )
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{right:.1%} of {counts.sum():.0f} right", loc="left", fontsize=11)
    return save(figure, folder, f"{name}.png")


def draw_predictions(folder: Path, examples: Sequence[Example]) -> Path:
    """predictions.png: up to 16 examples with picture, text, truth and answer.

    Right answers stand in blue behind a tick, wrong ones in vermillion behind a cross, what is
    neither in grey.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    examples = examples[:_MOST]
    captions = [_wrapped(example.text) for example in examples]
    side = _WIDTH / _COLUMNS - 2 * _MARGIN
    picture = side if any(example.image is not None for example in examples) else 0.0
    title, caption = 2 * _LINE, max(map(len, captions), default=0) * _LINE
    each = title + picture + caption + 4 * _MARGIN
    height = max(1, math.ceil(len(examples) / _COLUMNS)) * each
    figure = Figure((_WIDTH, height), dpi=_DPI)
    FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / _WIDTH, y / height, text, parse_math=False, **style)

    for index, (example, lines) in enumerate(zip(examples, captions, strict=True)):
        row, column = divmod(index, _COLUMNS)
        left, top = column * _WIDTH / _COLUMNS + _MARGIN, height - row * each - _MARGIN
        colour, sign = _MARKS[example.right]
        says = f"{sign} {_cut(plain(example.answer), 22)}"
        if not example.right:
            says += f"\n    truth: {_cut(plain(example.truth), 16)}"
        write(left, top - title, says, color=colour, fontsize=9, fontweight="bold", va="bottom")
        if example.image is not None:
            box = (left, top - title - _MARGIN - side, side, side)
            axes = figure.add_axes(
                (box[0] / _WIDTH, box[1] / height, box[2] / _WIDTH, box[3] / height), anchor="NW"
            )
            axes.imshow(example.image, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for edge in axes.spines.values():
                edge.set(edgecolor=colour, linewidth=3)
        below = top - title - picture - 2 * _MARGIN
        write(left, below, "\n".join(lines), color=GREY, fontsize=8, va="top")
    return save(figure, folder, "predictions.png")


def plain(text: str) -> str:
    """What can be drawn of a text: no controls, no halves of surrogate pairs."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(sign for sign in text if unicodedata.category(sign)[0] != "C")


def new_figure(
    width: float, height: float, columns: int = 1, rows: int = 1
) -> "tuple[Figure, Any]":
    """A figure in inches and its axes: an array of them where there are several."""
    # Not pyplot: it keeps figures of its own, and takes twice as long to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for one in np.ravel(axes):
        one.set_xlabel("step")
        one.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: "Figure", folder: Path, name: str) -> Path:
    """plots/<name> of the run folder, replaced whole."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a script that no installed font has becomes boxes
        figure.savefig(content, format="png")
    # Replaced whole, since the tracker may be reading it.
    temporary = plots / f".{name}.tmp"
    temporary.write_bytes(content.getvalue())
    return temporary.replace(plots / name)


def _thinned(curve: Curve, most: int) -> Curve:
    """Means of equal numbers of neighbours, so that a long run draws as fast as a short one."""
    each = math.ceil(len(curve.steps) / most)
    if each <= 1:
        return curve
    starts = np.arange(0, len(curve.steps), each)
    sizes = np.diff([*starts, len(curve.steps)])
    return Curve(
        np.add.reduceat(curve.steps, starts) / sizes, np.add.reduceat(curve.values, starts) / sizes
    )


def smoothed(curve: Curve) -> Curve:
    """Running mean over 5 % of the run; at the ends, of the part of it that is there.

    A window that narrowed to one value at the ends would show the noise of the first and last.
    """
    curve = _thinned(curve, _POINTS)
    number = len(curve.values)
    half = max(2, number // 40)
    total = np.concatenate([[0.0], np.cumsum(curve.values)])
    at = np.arange(number)
    first, end = np.maximum(at - half, 0), np.minimum(at + half + 1, number)
    return Curve(curve.steps, (total[end] - total[first]) / (end - first))


def _spans_decades(*series: NDArray[np.float64]) -> bool:
    values = np.concatenate(series)
    return bool(values.min() > 0 and values.max() / values.min() > 30)


def _wrapped(text: str | None) -> list[str]:
    if text is None:
        return []
    return textwrap.wrap(plain(text), 26, max_lines=4, placeholder=" …")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
