"""An MLflow run as the shipper's store. Imports mlflow, so never import this when training."""

import contextlib
import getpass
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient

from mmnet.errors import UserError
from mmnet.redact import redact
from mmnet.track import content
from mmnet.track.spool import Point
from mmnet.track.state import read
from mmnet.track.store import Away, Refused, deliver
from mmnet.track.uri import database, is_server


FOLDER_TAG = "mmnet.run_folder"
_MARK_TAG = "mmnet.folder_id"
_PER_BATCH = 100  # params or tags; a server refuses more
# Errors that may come from one value; INTERNAL_ERROR is a number that a database cannot hold.
_SUSPECT = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INTERNAL_ERROR"}

# Else the UI takes the runs for evaluations of a language model, and shows its pages for those.
KIND = {"mlflow.experimentKind": "custom_model_development"}


class MlflowStore:
    """One run: found by the address in tracker.json, else by its token, else made."""

    def __init__(self, folder: Path, settings: dict[str, Any], uri: str) -> None:
        self._folder, self._settings, self._uri = folder, settings, uri
        self._run = ""

    def open(self) -> dict[str, Any]:
        with self._calls():
            with first_use(self._uri), self._beside_artifacts():
                self._client = MlflowClient(self._uri)
                self._run = self._known() or self._made(self._experiment())
            run = self._client.get_run(self._run)
            self._client.update_run(self._run, status="RUNNING")
        self._tag(content.tags(self._folder) | self._source())
        self._params(run.data.params)
        self._datasets()
        return {
            "run_id": self._run,
            "experiment_id": run.info.experiment_id,
            "uri": redact(self._uri),
        }

    def send(self, points: list[Point]) -> None:
        metrics = [Metric(p.name, p.value, p.milliseconds, p.step) for p in points]
        with self._calls():
            self._client.log_batch(self._run, metrics=metrics)

    def upload(self, file: Path) -> None:
        under = file.relative_to(self._folder).parent.as_posix()
        with self._calls():
            self._client.log_artifact(self._run, str(file), None if under == "." else under)

    def close(self, status: str, milliseconds: int) -> None:
        deliver(self.send, content.summary(self._folder))
        self._tag(content.nonfinite(self._folder))
        with self._calls():
            self._client.set_terminated(self._run, status, milliseconds)

    def _experiment(self) -> str:
        name = self._settings["experiment"]
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None
            if not is_server(self._uri):
                artifacts = Path(self._settings["artifacts"])
                artifacts.mkdir(parents=True, exist_ok=True)
                location = artifacts.as_uri()
            try:
                return str(
                    self._client.create_experiment(name, artifact_location=location, tags=KIND)
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise Away(f"experiment '{name}' was deleted; restore it or choose another name")
        return str(found.experiment_id)

    def _beside_artifacts(self) -> contextlib.AbstractContextManager[Any]:
        """MLflow gives a new database an experiment Default too, with its files in ./mlruns."""
        if is_server(self._uri):
            return contextlib.nullcontext()
        place = Path(self._settings["artifacts"]).parent
        place.mkdir(parents=True, exist_ok=True)
        return contextlib.chdir(place)  # else in the run folder, where this process was started

    def _known(self) -> str | None:
        address = read(self._folder / "tracker.json")
        if address.get("uri") != redact(self._uri):
            return None
        try:
            run = self._client.get_run(address["run_id"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if run.info.lifecycle_stage != "active":
            raise Away(f"run {run.info.run_id} was deleted; restore it to go on with it")
        return str(run.info.run_id)

    def _made(self, experiment: str) -> str:
        # A server may have made the run although its answer did not come through.
        token = self._settings["token"]
        found = self._client.search_runs([experiment], f"tags.`{_MARK_TAG}` = '{token}'")
        if found:
            return str(found[0].info.run_id)
        facts = content.record(self._folder)
        run = self._client.create_run(
            experiment,
            start_time=round(facts["started"] * 1000),
            tags={_MARK_TAG: token},
            run_name=content.title(self._folder),
        )
        return str(run.info.run_id)

    def _source(self) -> dict[str, str]:
        """What the columns of MLflow's own pages read."""
        found = {"mlflow.source.name": "mmnet.train", "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
            found["mlflow.user"] = getpass.getuser()
        if git := content.record(self._folder)["git"]:
            found["mlflow.source.git.commit"] = git["commit"]
            found["mlflow.source.git.branch"] = git["branch"]
        return found

    def _tag(self, tags: dict[str, str]) -> None:
        def send(some: list[RunTag]) -> None:
            with self._calls():
                self._client.log_batch(self._run, tags=some)

        wanted = [RunTag(name, value) for name, value in tags.items()]
        for start in range(0, len(wanted), _PER_BATCH):
            deliver(send, wanted[start : start + _PER_BATCH])

    def _params(self, before: dict[str, str]) -> None:
        """MLflow never changes a param: what a resumed run changes becomes a tag."""

        def send(some: list[Param]) -> None:
            with self._calls():
                self._client.log_batch(self._run, params=some)

        now = content.params(self._folder)
        new = [Param(name, value) for name, value in now.items() if name not in before]
        for start in range(0, len(new), _PER_BATCH):
            deliver(send, new[start : start + _PER_BATCH])
        resumed = self._settings["starts"] - 1
        self._tag(
            {
                f"resumed.{resumed}.{name}": value
                for name, value in now.items()
                if before.get(name, value) != value
            }
        )

    def _datasets(self) -> None:
        inputs = [
            DatasetInput(
                Dataset(
                    name=split.name,
                    digest=split.digest,
                    source_type="local",
                    source=json.dumps({"uri": split.source}),
                    profile=json.dumps(split.counts),
                ),
                tags=[InputTag("mlflow.data.context", split.split)],
            )
            for split in content.datasets(self._folder)
        ]
        if inputs:
            with contextlib.suppress(Refused), self._calls():
                self._client.log_inputs(self._run, inputs)

    @contextlib.contextmanager
    def _calls(self) -> Iterator[None]:
        """Turns what goes wrong into Away or Refused."""
        try:
            yield
        except (Away, Refused):
            raise
        except Exception as error:
            if unanswered(error, self._uri):
                raise Away(f"no answer from {redact(self._uri)}") from error
            raise (Refused if self._theirs(error) else Away)(brief(error)) from error

    def _theirs(self, error: Exception) -> bool:
        """Whether the values are at fault: the store takes something else right now."""
        if isinstance(error, MlflowException) and error.error_code not in _SUSPECT:
            return False
        if not self._run:
            return False
        try:
            self._client.set_tag(self._run, _MARK_TAG, self._settings["token"])
        except Exception:
            return False
        return True


def first_use(uri: str) -> contextlib.AbstractContextManager[Any]:
    """Held while the tables of a new sqlite file are made: MLflow's migrations do not wait.

    Seven of eight processes that opened a fresh file at once failed.
    """
    file = database(uri)
    if file is None:
        return contextlib.nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock", timeout=120)


def unanswered(error: Exception, uri: str) -> bool:
    """Whether a server could not be reached, which MLflow reports as an error of its own."""
    return (
        is_server(uri)
        and isinstance(error, MlflowException)
        and not isinstance(error, RestException)
        and error.error_code == "INTERNAL_ERROR"
    )


def brief(error: Exception) -> str:
    return str(redact(str(error) or repr(error))).splitlines()[0][:300]


def find_folder(run_id: str, uri: str) -> str:
    """The tag that says where the run's folder is. Raises UserError."""
    file = database(uri)
    if file is not None and not file.exists():
        raise UserError(f"no MLflow database at {file}, so no run {run_id}")
    try:
        with first_use(uri):
            tags = MlflowClient(uri).get_run(run_id).data.tags
    except Exception as error:
        if isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"no run {run_id} in {redact(uri)}") from error
        if unanswered(error, uri):
            raise UserError(f"no answer from {redact(uri)} about run {run_id}") from error
        raise UserError(f"{redact(uri)}: {brief(error)}") from error
    if FOLDER_TAG not in tags:
        raise UserError(f"run {run_id} in {redact(uri)} was not made by mmnet")
    return str(tags[FOLDER_TAG])
