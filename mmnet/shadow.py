"""The same run without its controller, beside it: whether the controller helped, and its cost."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mmnet.compose import load
from mmnet.config import Run
from mmnet.job import Job
from mmnet.track.base import Tracker
from mmnet.track.none import Nowhere


log = logging.getLogger(__name__)

FOLDER = "shadow"  # in the run folder
CarryOut = Callable[[Run, Path, str, Tracker], float]


def beside(job: Job, config: str, carry_out: CarryOut) -> dict[str, float]:
    """Train with the same seed, the default schedule and no controller; compare.

    config: the text of config.yaml. The shadow's run folder is <run folder>/shadow; where a killed
    one is, it goes on. Returns "shadow/<metric>" of the shadow's last evaluation,
    "shadow/gain_<metric>", which is above 0 where the controller helped, and "shadow/cost", the
    ratio of the times spent in steps.

    Raises what a run raises.
    """
    run, folder = job.run, job.folder / FOLDER
    usual = load()
    loaded = yaml.safe_load(config) | {"controller": usual.controller, "schedule": usual.schedule}
    again = (folder / "checkpoints").is_dir()
    plain = replace(
        run,
        controller=usual.controller,
        schedule=usual.schedule,
        resume=str(folder) if again else None,
    )
    log.info("the same run without its controller: %s", folder)
    folder.mkdir(exist_ok=True)
    carry_out(plain, folder, yaml.safe_dump(loaded, sort_keys=False), Nowhere())
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    return compared(job, summary)


def compared(job: Job, summary: dict[str, Any]) -> dict[str, float]:
    """The run against the summary of its shadow; says so."""
    head: Any = job.model.head
    found = {}
    for name in dict.fromkeys(("val/loss", job.run.trainer.monitor)):
        with_it, without = job.counters.final[name], summary["final"][name]
        better = head.higher_is_better.get(name.removeprefix("val/"), False)
        bare = name.removeprefix("val/")
        found[f"shadow/{bare}"] = without
        found[f"shadow/gain_{bare}"] = gain = (with_it - without) * (1 if better else -1)
        log.info(
            "controller: %s %.4f with it, %.4f without: %s of %.4f",
            name,
            with_it,
            without,
            "gain" if gain >= 0 else "harm",
            abs(gain),
        )
    found["shadow/cost"] = job.counters.seconds / max(1e-9, summary["seconds_in_steps"])
    log.info("controller: %.3f times the time in steps", found["shadow/cost"])
    return found
