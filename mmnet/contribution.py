"""What each modality gives: the metrics with one missing, swapped or noised, and what follows.

The grid evaluates the trained network on the val split under these conditions:

both     as it is
image    without the text          (where the head can answer without it)
text     without the image         (likewise)
swapped  each text with another sample's image
noised   half of every pixel and of every character is noise
nothing  image and text of two other samples, so that nothing tells of the target

Of these the Shapley value of each modality, over the two of them: what it adds to the metric,
mean of adding it first (to nothing) and last (to the other one). The two sum to both - nothing.
"""

import logging
from typing import Any, NamedTuple

import numpy as np

from mmnet.data.conditions import Noised, Swapped, Without
from mmnet.errors import UserError
from mmnet.evaluation import evaluate_split
from mmnet.interfaces import Split
from mmnet.job import Job
from mmnet.report.plots import curves
from mmnet.stop import Stop


log = logging.getLogger(__name__)

IGNORED_BELOW = 0.05  # of all that was gained over nothing: a modality that adds less is ignored

Grid = dict[str, dict[str, float]]  # condition -> metric -> value


class Contribution(NamedTuple):
    """What each modality gives to one metric."""

    metric: str
    gained: float  # by both over nothing, turned so that more is better
    shapley: dict[str, float]  # by modality, the same way; empty where it is not defined
    ignored: list[str]  # modalities that add next to nothing


def grid(job: Job, samples: int) -> Grid:
    """Evaluate the first `samples` of the val split under each condition that makes sense.

    A condition that not all of these samples can be read under, since some have but one
    modality, is left out: it would compare other samples.
    """
    found: Grid = {}
    unreadable: list[str] | None = None
    for name, split in conditions(job.val, tuple(job.reading.prepare), needed(job)).items():
        try:
            seen = evaluate_split(job, split, Stop(), num_workers=0, limit=samples)
        except UserError:  # not one sample
            continue
        bad = sorted(key for key, _ in seen.bad)
        unreadable = bad if unreadable is None else unreadable  # of "both", which comes first
        if bad == unreadable:
            found[name] = seen.values
    return found


def needed(job: Job) -> tuple[str, ...]:
    """Modalities that the head cannot do without."""
    head: Any = job.model.head
    return tuple(head.modalities)


def conditions(
    split: Split, modalities: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Split]:
    """The split under each condition, by name; `needed` modalities are never taken away."""
    if len(modalities) < 2:
        return {}
    found: dict[str, Split] = {"both": split}
    for name, other in (("image", "text"), ("text", "image")):
        if other not in needed:
            found[name] = Without(split, other)
    if len(split) > 1:
        found["swapped"] = Swapped(split, ("image",))
    found["noised"] = Noised(split)
    if "text" not in needed and len(split) > 2:
        found["nothing"] = Swapped(split, ("image", "text"))
    return found


def contribution(grid: Grid, metric: str, higher_is_better: bool) -> Contribution:
    """Shapley values of image and text for one metric of the grid.

    Where one of the two cannot be taken away, the other's value is what its absence costs.
    """
    sign = 1 if higher_is_better else -1
    worth = {name: sign * values[metric] for name, values in grid.items()}
    if {"image", "text", "nothing"} <= worth.keys():
        gained = worth["both"] - worth["nothing"]
        shapley = {
            one: (worth[one] - worth["nothing"] + worth["both"] - worth[other]) / 2
            for one, other in (("image", "text"), ("text", "image"))
        }
    else:
        gained = worth["both"] - worth.get("swapped", worth["both"])
        shapley = {
            one: worth["both"] - worth[other]
            for one, other in (("image", "text"), ("text", "image"))
            if other in worth
        }
    # Nothing learnt, nothing ignored.
    ignored = [one for one, value in shapley.items() if value < IGNORED_BELOW * gained]
    ignored = ignored if gained > 0 else []
    return Contribution(metric, gained, shapley, ignored)


def gradient_share(job: Job) -> dict[str, list[tuple[int, float]]]:
    """Each encoder's share of the encoders' gradient norm, by (step, share)."""
    names = {f"train/grad_share_{name}": name for name in job.reading.prepare}
    found = curves(job.folder, tuple(names))
    return {
        names[key]: list(zip(curve.steps.astype(int).tolist(), curve.values.tolist(), strict=True))
        for key, curve in found.items()
        if len(curve.steps)
    }


def report(job: Job, samples: int) -> dict[str, Any]:
    """The grid, the contributions and the gradient shares, ready for summary.json.

    Warns of a modality that is ignored. Empty for a network with one encoder.
    """
    found = grid(job, samples)
    if not found:
        return {}
    head: Any = job.model.head
    metric = job.run.trainer.monitor.removeprefix("val/")
    if metric == "loss":
        metric = next(iter(head.higher_is_better))
    given = contribution(found, metric, head.higher_is_better[metric])
    shares = {
        name: float(np.mean([share for _, share in rows]))
        for name, rows in gradient_share(job).items()
    }
    for name in given.ignored:
        log.warning(
            "the network ignores its %s: of %.4f that it gained in %s, the %s adds %.4f. "
            "trainer.modality_dropout=0.2 may help",
            name,
            given.gained,
            metric,
            name,
            given.shapley[name],
        )
    return {"grid": found, "contribution": {**given._asdict(), "gradient_share": shares}}
