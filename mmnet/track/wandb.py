"""Weights & Biases as a tracker, where its package is installed."""

import importlib.util
from pathlib import Path
from typing import Literal

from mmnet.bounds import NonNegativeFloat
from mmnet.errors import UserError
from mmnet.track.base import Line, Status
from mmnet.track.launch import Shipper
from mmnet.track.state import read


class Wandb:
    """A W&B run, kept up to date by a process beside training; offline it is a folder."""

    def __init__(
        self, project: str, mode: Literal["online", "offline"], linger: NonNegativeFloat
    ) -> None:
        self.project, self.mode, self.linger = project, mode, linger
        self._shipper: Shipper | None = None

    def check(self) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(
                "tracker=wandb: wandb is not installed; pip install 'mmnet[wandb]', "
                "or choose tracker=mlflow"
            )

    def start(self, folder: Path) -> None:
        settings = {
            "kind": "wandb",
            "project": self.project,
            "mode": self.mode,
            "linger": self.linger,
        }
        self._folder = folder
        self._shipper = Shipper(folder, settings, "")

    def log(self, line: Line) -> None:
        if self._shipper is not None:
            self._shipper.watch()

    def finish(self, status: Status) -> list[str]:
        if self._shipper is None:
            return []
        lines = self._shipper.finish(status)
        address = read(self._folder / "tracker.json")
        if not address:
            return lines
        if self.mode == "offline":
            # One folder for each start of the run; W&B puts them together.
            return [*lines, f"W&B run {address['run_id']}: wandb sync {address['folder']}/*-run-*"]
        return [*lines, f"W&B run {address['run_id']}: {address['url']}"]
