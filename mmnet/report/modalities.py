"""The modality grid and the contribution report, as a table and a picture."""

import csv
import io
from pathlib import Path
from typing import Any

from mmnet.folder import put
from mmnet.report.plots import BLUE, GREY, VERMILLION, curves, new_figure, save, smoothed


COLOURS = {"image": BLUE, "text": VERMILLION}
LABELS = {
    "both": "image + text",
    "image": "image only",
    "text": "text only",
    "swapped": "image of another sample",
    "noised": "half noise",
    "nothing": "nothing that tells",
}


def save_table(folder: Path, grid: dict[str, dict[str, float]]) -> None:
    """modalities.csv: a row for each condition, a column for each metric."""
    metrics = list(next(iter(grid.values())))
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["condition", *metrics])
    for condition, values in grid.items():
        rows.writerow([condition, *(f"{values[name]:.6g}" for name in metrics)])
    put(folder / "modalities.csv", text.getvalue())


def draw_modalities(folder: Path, found: dict[str, Any]) -> Path:
    """modalities.png: the main metric under each condition, what each modality adds to it, and
    each encoder's share of the gradient through training.

    `found` is what mmnet.contribution.report returns.
    """
    grid, given = found["grid"], found["contribution"]
    metric = given["metric"]
    figure, (left, middle, right) = new_figure(10.0, 3.4, columns=3)

    values = [grid[name][metric] for name in grid]
    left.barh(range(len(grid)), values, color=[BLUE if name == "both" else GREY for name in grid])
    left.set_yticks(range(len(grid)), [LABELS[name] for name in grid])
    left.invert_yaxis()
    left.set_xlabel(metric)
    for place, value in enumerate(values):
        left.annotate(f" {value:.3g}", (max(value, 0), place), va="center", fontsize=8)
    left.set_xlim(right=max(0, *values) * 1.2 or 1)

    shapley = given["shapley"]
    middle.bar(range(len(shapley)), shapley.values(), color=[COLOURS[name] for name in shapley])
    middle.set_xticks(range(len(shapley)), list(shapley))
    middle.axhline(0, color=GREY, linewidth=0.8)
    middle.set_xlabel("")
    middle.set_ylabel(f"added to {metric}")
    for place, value in enumerate(shapley.values()):
        middle.annotate(f"{value:+.3g}", (place, value), ha="center", va="bottom", fontsize=8)
    if not shapley:
        middle.set_xlabel("this head needs both")

    shares = curves(folder, [f"train/grad_share_{name}" for name in COLOURS])
    for name, colour in COLOURS.items():
        curve = shares[f"train/grad_share_{name}"]
        if len(curve.steps):
            right.plot(*smoothed(curve), color=colour, linewidth=1.8, label=name)
    right.set_ylim(0, 1)
    right.set_ylabel("share of the gradient")
    right.set_xlabel("step")
    if right.lines:
        right.legend(frameon=False)
    return save(figure, folder, "modalities.png")
