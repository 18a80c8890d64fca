"""What a controller did to a run, over what it saw: one picture and one page."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmnet.errors import UserError
from mmnet.folder import put
from mmnet.report.plots import BLUE, GREY, VERMILLION, curves, new_figure, save, smoothed
from mmnet.track.recorder import parse


DECISIONS = "controller.jsonl"
PAGE = "controller.html"
GREEN, PURPLE, ORANGE = "#009E73", "#CC79A7", "#E69F00"
COLOURS = {"image": BLUE, "text": VERMILLION, "fusion": GREEN, "head": PURPLE}
EVENTS = {
    "skipped": "what was seen was not finite: decision skipped",
    "restored": "loss blew up: multipliers of the best loss again, rates halved",
    "fallen_back": "loss blew up again: calibrated rate for the rest of the run",
    "grown": "blocks joined",
    "whole_pictures": "no more patches left out",
}


class Decisions(NamedTuple):
    """controller.jsonl, by column."""

    steps: NDArray[np.float64]  # [N]
    values: dict[str, NDArray[np.float64]]  # "image/rho" -> [N], NaN where a line has none

    @property
    def groups(self) -> list[str]:
        names = [name.rpartition("/")[0] for name in self.values if name.endswith("/rho")]
        return list(dict.fromkeys(names))

    def of(self, group: str, name: str) -> NDArray[np.float64]:
        """[N]"""
        return self.values.get(f"{group}/{name}", np.full(len(self.steps), np.nan))


def read(folder: Path) -> Decisions:
    """Raises UserError for a run that has none."""
    path = folder / DECISIONS
    if not path.is_file():
        raise UserError(
            f"{folder} has no {DECISIONS}: no controller decided anything in this run; one with "
            f"controller=double_loop has"
        )
    lines = [line for raw in path.read_bytes().split(b"\n") if raw and (line := parse(raw))]
    if not lines:
        raise UserError(f"{path}: no decision was made")
    names = dict.fromkeys(
        name
        for line in lines
        for name, value in line.items()
        if name.startswith("controller/") and isinstance(value, int | float)
    )
    return Decisions(
        np.array([line["step"] for line in lines], float),
        {
            name.removeprefix("controller/"): np.array(
                [line.get(name) if line.get(name) is not None else np.nan for line in lines], float
            )
            for name in names
        },
    )


def events(found: Decisions) -> list[tuple[int, str]]:
    """Step and words of everything that is no ordinary decision."""
    told = []
    for name, words in EVENTS.items():
        values = found.values.get(name, np.array([]))
        told += [
            (int(step), words)
            for step, value in zip(found.steps, values, strict=False)
            if value > 0
        ]
    for name, values in found.values.items():
        group, _, what = name.rpartition("/")
        if what != "frozen":
            continue
        before = 0
        for step, value in zip(found.steps, values, strict=True):
            if np.isfinite(value):
                verb = "froze" if value > before else "thawed"
                told.append((int(step), f"{group}: {verb}, {int(value)} blocks are frozen now"))
                before = int(value)
    return sorted(told)


def draw(folder: Path, found: Decisions) -> Path:
    """plots/controller.png"""
    figure, axes = new_figure(10.0, 11.0, columns=2, rows=3)
    (losses, rates), (relative, strength), (balance, gap) = axes
    run = curves(
        folder,
        ("train/loss", "val/loss", *(f"train/lr_{group}" for group in found.groups)),
    )
    if len(run["train/loss"].steps):
        losses.plot(*smoothed(run["train/loss"]), color=BLUE, label="train, smoothed")
    if len(run["val/loss"].steps):
        losses.plot(*run["val/loss"], color=VERMILLION, marker="o", markersize=4, label="val")
    losses.set_ylabel("loss")
    for group in found.groups:
        style: dict[str, Any] = {"color": colour(group), "label": group, "linewidth": 1.4}
        if len(run[f"train/lr_{group}"].steps):
            rates.plot(*run[f"train/lr_{group}"], **style)
        relative.plot(found.steps, 10 ** (found.of(group, "rho") - 2.5), **style)
        strength.plot(found.steps, found.of(group, "strength_multiplier"), **style)
        if np.nanmax(np.abs(found.of(group, "worth")), initial=0) > 0:
            balance.plot(found.steps, found.of(group, "worth"), **style)
    rates.set_ylabel("learning rate")
    relative.set_ylabel("relative update |lr u| / |w|")
    strength.set_ylabel("regularisation, times the settings'")
    balance.set_ylabel("what the meta-batch loses without it")
    if found.groups:
        gap.plot(found.steps, found.of(found.groups[0], "gap"), color=GREY, linewidth=1.4)
    gap.set_ylabel("meta-batch loss - training loss")
    for axis in (rates, relative):
        if axis.lines:
            axis.set_yscale("log")
    for axis in axes.flat:
        for step, _ in events(found):
            axis.axvline(step, color=ORANGE, linewidth=0.8, linestyle=":")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    return save(figure, folder, "controller.png")


def colour(group: str) -> str:
    """Of a group; blocks of an encoder have its colour."""
    return COLOURS.get(group.partition(".")[0], GREY)


def words(found: Decisions, reasons: dict[str, str]) -> list[str]:
    """What the controller did and why, one sentence an item; `reasons`: of each group."""
    told = [f"{len(found.steps)} decisions in {int(found.steps[-1])} steps."]
    for group in found.groups:
        multiplier, rho = found.of(group, "multiplier"), found.of(group, "rho")
        known = np.isfinite(multiplier)
        if not known.any():
            continue
        peak = int(np.nanargmax(multiplier))
        text = (
            f"{group}: the rate was multiplied with {multiplier[known][0]:.2g} at first, "
            f"{multiplier[peak]:.2g} at most (step {int(found.steps[peak])}) and "
            f"{multiplier[known][-1]:.2g} at the end; a step moved it by "
            f"{10 ** (rho[known][-1] - 2.5):.1e} of its norm at the end"
        )
        strength = found.of(group, "strength_multiplier")
        if np.nanmax(np.abs(strength - 1), initial=0) > 0.05:
            text += f"; regularisation ended at {strength[known][-1]:.2g} times the settings'"
        told.append(f"{text}. {reasons.get(group, '')}".strip())
    worths = {g: found.of(g, "worth") for g in found.groups if g in ("image", "text")}
    if len(worths) == 2 and any(np.nanmax(np.abs(w), initial=0) > 0 for w in worths.values()):
        more = float(np.nanmean(worths["text"] > worths["image"]))
        told.append(
            f"Balance: without the text the meta-batch lost more than without the image in "
            f"{more:.0%} of the looks; at the end image {worths['image'][-1]:+.3f}, text "
            f"{worths['text'][-1]:+.3f} of the first loss."
        )
    if found.groups:
        gap = found.of(found.groups[0], "gap")
        if np.nanmax(np.abs(gap), initial=0) > 0:
            told.append(
                f"Generalisation gap: {gap[np.isfinite(gap)][-1]:+.3f} of the first loss at the "
                f"end, {np.nanmax(gap):+.3f} at most."
            )
    happened = events(found)
    told += [f"Step {step}: {what}." for step, what in happened]
    if not happened:
        told.append("No intervention of the guard, and no change of the architecture.")
    return told


def page(folder: Path, picture: Path, sentences: Sequence[str], title: str) -> Path:
    """controller.html: the picture and the words, in one file."""
    image = base64.b64encode(picture.read_bytes()).decode()
    items = "\n".join(f"<li>{html.escape(one)}</li>" for one in sentences)
    put(
        folder / PAGE,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}
img{{max-width:100%}}</style></head>
<body><h1>{html.escape(title)}</h1>
<ul>
{items}
</ul>
<img src="data:image/png;base64,{image}" alt="Losses, learning rates, relative updates,
regularisation, balance and generalisation gap over the steps of the run">
</body></html>
""",
    )
    return folder / PAGE
