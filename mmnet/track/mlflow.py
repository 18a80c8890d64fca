"""MLflow as a tracker. The training process never imports mlflow, which takes seconds."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

from mmnet.bounds import NonNegativeFloat, PositiveFloat
from mmnet.errors import UserError
from mmnet.redact import redact
from mmnet.track.base import Line, Status
from mmnet.track.launch import Shipper, environment, program
from mmnet.track.state import read, room
from mmnet.track.uri import check, database, is_server, resolve


# The store's own time limit is 10 s; the rest is for importing mlflow on a busy machine.
_FIND = 90.0


class Mlflow:
    """A run in an MLflow store, kept up to date by a process beside training."""

    def __init__(
        self,
        uri: str,
        artifacts: str,
        experiment: str,
        system_every: PositiveFloat,
        linger: NonNegativeFloat,
    ) -> None:
        self.uri, self.artifacts, self.experiment = uri, artifacts, experiment
        self.system_every, self.linger = system_every, linger
        self._shipper: Shipper | None = None

    def check(self) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise UserError(
                "tracker=mlflow: mlflow is not installed; pip install 'mmnet[train]', "
                "or choose tracker=csv"
            )
        check(self.uri)

    def start(self, folder: Path) -> None:
        before = read(room(folder) / "settings.json")
        uri = resolve(self.uri)
        if before.get("configured") == redact(self.uri) and database(uri):
            uri = before["uri"]  # a relative path counts from where the run began
        settings = {
            "kind": "mlflow",
            "uri": redact(uri),
            "configured": redact(self.uri),
            "artifacts": str(Path(self.artifacts).resolve()),
            "experiment": self.experiment,
            "system_every": self.system_every,
            "linger": self.linger,
        }
        self._folder = folder
        self._full_uri = uri
        self._shipper = Shipper(folder, settings, uri)

    def log(self, line: Line) -> None:
        if self._shipper is not None:
            self._shipper.watch()

    def finish(self, status: Status) -> list[str]:
        if self._shipper is None:
            return []
        lines = self._shipper.finish(status)
        address = read(self._folder / "tracker.json")
        if address.get("uri") != redact(self._full_uri):  # the run could not be made yet
            return lines
        run = address["run_id"]
        shown = redact(self._full_uri)
        if is_server(shown):
            where = f"{shown.rstrip('/')}/#/experiments/{address['experiment_id']}/runs/{run}"
        else:
            where = shlex.join(["mlflow", "ui", "--backend-store-uri", shown])
        return [*lines, f"MLflow run {run} of experiment '{self.experiment}': {where}"]


def folder_of(run_id: str, uri: str) -> Path:
    """The run folder of an MLflow run.

    Raises UserError if the store does not answer, does not know the run, or knows a folder
    that is not there.
    """
    if not re.fullmatch(r"[a-zA-Z0-9][\w-]{0,255}", run_id):
        raise UserError(f"'{run_id}' is neither a run folder nor an MLflow run id")
    check(uri)
    try:
        found = subprocess.run(
            [*program("mmnet.track.find"), run_id],
            capture_output=True,
            timeout=_FIND,
            env=environment(resolve(uri)),
        )
        answer = json.loads(found.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise UserError(f"{redact(uri)}: no answer about run {run_id}") from error
    if "error" in answer:
        raise UserError(answer["error"])
    folder = Path(answer["folder"])
    if not folder.is_dir():
        raise UserError(f"run {run_id} was in {folder}, which is not there (any more)")
    return folder
