"""The pictures of a dataset's card: lengths, sizes, balance, and a sheet of samples."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmnet.data.augment import resized
from mmnet.data.image import cut, read_image
from mmnet.data.published import Pictures, Published
from mmnet.data.records import Record
from mmnet.interfaces import BadSample
from mmnet.report.plots import BLUE, GREY, new_figure, plain, save


WIDTH = 8.0  # inches
COLUMNS = 6  # of the sheet
SIDE = 160  # pixels of a picture on it
BINS = 60
BARS = 40  # classes that are drawn by name


def draw_histograms(
    folder: Path, name: str, values: Mapping[str, npt.NDArray[Any]], what: str
) -> None:
    """Side by side, of the lower 99.5 %: a few long ones would leave the rest a single bar."""
    figure, axes = new_figure(WIDTH, 3.0, columns=len(values))
    for one, (label, numbers) in zip(np.ravel(axes), values.items(), strict=True):
        high = np.percentile(numbers, 99.5)
        shown = numbers[numbers <= high]
        one.hist(shown, bins=min(BINS, max(1, len(np.unique(shown)))), color=BLUE)
        one.set_xlabel(label)
        one.set_ylabel(what)
    save(figure, folder, name)


def draw_sizes(folder: Path, sizes: npt.NDArray[Any]) -> None:
    """Width and height of each picture. sizes: [N, 2] pixels."""
    figure, axes = new_figure(WIDTH, 4.5)
    axes.scatter(*sizes.T, s=9, alpha=0.3, color=BLUE, linewidths=0)
    axes.set_xlabel("width, pixels")
    axes.set_ylabel("height, pixels")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    save(figure, folder, "pictures.png")


def draw_balance(
    folder: Path, name: str, names: Sequence[str], times: npt.NDArray[np.int64]
) -> None:
    """How often each holds, the most frequent first; of many without their names."""
    order = np.argsort(-times, kind="stable")
    figure, axes = new_figure(WIDTH, 3.5)
    axes.bar(range(len(order)), times[order], color=BLUE, width=0.8 if len(order) <= BARS else 1.0)
    axes.set_ylabel("samples")
    axes.set_xlabel("")
    if len(order) <= BARS:
        labels = [textwrap.shorten(plain(str(names[i])), 24, placeholder="…") for i in order]
        axes.set_xticks(range(len(order)), labels, rotation=90, fontsize=8)
        for label in axes.get_xticklabels():
            label.set_parse_math(False)
    else:
        axes.set_xlabel(f"{len(order):,} of them, the most frequent first")
    if len(times) and times.max() > 50 * max(1, times.min()):
        axes.set_yscale("symlog", linthresh=1)
    save(figure, folder, name)


def draw_sheet(folder: Path, published: Published, records: Sequence[Record]) -> None:
    """samples.png: pictures with the first of their captions, or their class."""
    rows = math.ceil(len(records) / COLUMNS)
    figure, axes = new_figure(WIDTH, 1.9 * rows, columns=COLUMNS, rows=rows)
    for one in np.ravel(axes):
        one.set_axis_off()
    for one, record in zip(np.ravel(axes), records, strict=False):
        picture = small(published, record)
        if picture is not None:
            one.imshow(picture, interpolation="nearest")
        lines = textwrap.wrap(plain(told(published, record)), 24, max_lines=3, placeholder=" …")
        one.set_title(
            "\n".join(lines), fontsize=6, color=GREY, y=-0.03, va="top", pad=0, parse_math=False
        )
    save(figure, folder, "samples.png")


def told(published: Published, record: Record) -> str:
    if record.captions:
        return record.captions[0]
    if record.label is not None and record.label < len(published.names.classes):
        return str(published.names.classes[record.label])
    return record.key


def small(published: Published, record: Record) -> npt.NDArray[np.uint8] | None:
    """uint8 [H, W, 3], its longer side SIDE; None of one that cannot be read."""
    assert isinstance(published, Pictures) and record.image is not None
    try:
        picture = read_image(published.picture(record.image), record.key, at_least=2 * SIDE)
        if record.box is not None:
            picture = cut(picture, record.box, record.key)
    except (OSError, BadSample):
        return None
    height, width = picture.shape[1:]
    scale = SIDE / max(height, width)
    sides = (max(1, round(height * scale)), max(1, round(width * scale)))
    found: npt.NDArray[np.uint8] = resized(picture, sides).permute(1, 2, 0).numpy()
    return found
