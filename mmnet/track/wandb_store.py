"""A Weights & Biases run as the shipper's store. Its package spools and retries by itself."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb

from mmnet.redact import redact
from mmnet.track import content
from mmnet.track.spool import Point
from mmnet.track.state import room
from mmnet.track.store import Away


class WandbStore:
    """One run, found again by its id."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder, self._settings = folder, settings

    def open(self) -> dict[str, Any]:
        with _calls():
            self._run = wandb.init(
                project=self._settings["project"],
                mode=self._settings["mode"],
                id=self._settings["token"],
                resume="allow",
                name=content.title(self._folder),
                dir=room(self._folder),
                config={**content.params(self._folder), "record": content.record(self._folder)},
                settings=wandb.Settings(
                    console="off", disable_git=True, disable_code=True, silent=True
                ),
            )
            # Its own step counter only goes up; a run that is resumed between an evaluation
            # and a checkpoint needs to go back.
            self._run.define_metric("*", step_metric="step")
        return {
            "run_id": self._settings["token"],
            "uri": f"wandb:{self._settings['project']}",
            "url": self._run.url,
            "folder": str(Path(self._run.dir).parents[1]),
        }

    def send(self, points: list[Point]) -> None:
        when: Callable[[Point], tuple[int, int]] = lambda p: (p.step, p.milliseconds)  # noqa: E731
        with _calls():
            for (step, milliseconds), line in itertools.groupby(points, when):
                values = {p.name: p.value for p in line}
                self._run.log({"step": step, "_timestamp": milliseconds / 1000, **values})

    def upload(self, file: Path) -> None:
        with _calls():
            self._run.save(str(file), base_path=str(self._folder), policy="now")

    def close(self, status: str, milliseconds: int) -> None:
        with _calls():
            for point in content.summary(self._folder):
                if math.isfinite(point.value):
                    self._run.summary[point.name] = point.value
            self._run.finish(exit_code=0 if status == "FINISHED" else 1)


@contextmanager
def _calls() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Away(redact(str(error) or repr(error))) from error
