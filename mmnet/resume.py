"""Going on with a run: its folder, its stored config, and what may be set anew.

How a run is carried out may change from start to start (machine, tracker, paths, when to
stop); what is trained may not: that would be another run under the same name.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmnet.changes import apply
from mmnet.errors import UserError, nearest
from mmnet.overrides import Words, one_line
from mmnet.provenance import Layer, Origins
from mmnet.redact import REDACTED, leaves, shown


SECTIONS = ("hardware", "tracker", "paths")  # may be set anew as a whole
SETTINGS = (
    "trainer.steps",
    "trainer.epochs",
    "trainer.eval_every",
    "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
    "trainer.patience",
    "trainer.max_nonfinite",
    "dataset.root",
)
ANOTHER_RUN = "would make another run of the resumed one: start a new run"


def find(resume: str, output: str, uri: str | None) -> Path:
    """The run folder that `resume` names: a folder, or the id of a run in an MLflow store.

    Looks among the runs below `output` first, then asks the store at `uri`. Raises UserError.
    """
    folder = Path(resume)
    if folder.is_file():
        raise UserError(f"a file: want a run folder{_within(folder)}")
    if not folder.is_dir():
        if not re.fullmatch(r"[0-9a-f]{32}", resume):
            raise UserError(f"there is no such folder{_near(folder, output)}")
        folder = _folder_of(resume, output, uri)
    folder = folder.resolve()
    if not (folder / "config.yaml").is_file():
        hint = _within(folder) or _below(folder) or _near(folder, output)
        raise UserError(f"not a run folder: it holds no config.yaml{hint}")
    if not _checkpoints(folder):
        raise UserError("there is no checkpoint to go on from: start a new run")
    return folder


def stored(folder: Path, newest: int) -> dict[str, Any]:
    """The config that a run was started with, unresolved.

    Raises UserError if it cannot be read or is of a higher format than `newest`.
    """
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"its config.yaml cannot be read: {one_line(error)}") from error
    version = config.pop("format", None) if isinstance(config, dict) else None
    if not isinstance(version, int):
        raise UserError("its config.yaml does not say its format: not written by mmnet")
    if version > newest:
        raise UserError(
            f"its config.yaml was written by a newer mmnet (format {version}, this one reads "
            f"up to {newest}): upgrade mmnet"
        )
    return dict(config)


def merge(
    base: dict[str, Any], composed: dict[str, Any], asked: Words
) -> tuple[dict[str, Any], list[str]]:
    """The stored config with what may be set anew, and what else was asked for."""
    refused = []
    for word in asked.files:
        group = re.split(r"[=@]", word.lstrip("+~"))[0]
        if group in SECTIONS:
            base[group] = composed[group]
        elif word not in asked.hydra:
            refused.append(f"{shown(word)} (command line): {ANOTHER_RUN}")
        elif re.match(r"\+*hydra\.(run|sweep)\.", word):
            refused.append(f"{shown(word)} (command line): a resumed run goes on in its own folder")
    allowed = [override for override in asked.settings if may_change(override.key_or_group)]
    known = [key for key, _ in leaves(base)]
    for override in asked.settings:
        key = override.key_or_group
        if override not in allowed and key != "resume":
            there = any(name == key or name.startswith(f"{key}.") for name in known)
            why = ANOTHER_RUN if there else f"no such setting{nearest(key, known)}"
            refused.append(f"{shown(override.input_line)} (command line): {why}")
    refused += apply([forced(override) for override in allowed], base).problems
    for key, value in leaves(base):
        if isinstance(value, str) and REDACTED in value:
            refused.append(f"{key}: a secret, and so not stored with the run: set it again")
    return base, refused


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value here."""
    return key in SETTINGS or key.partition(".")[0] in SECTIONS


def words_for_hydra(words: Sequence[str], asked: Words, folder: Path) -> list[str]:
    """The command line of a resumed run as Hydra can take it.

    Hydra composes from the files, not from the stored config, and so may not know a key that
    is set anew: those are forced upon it.
    """
    rest = [word for word in words if word not in {o.input_line for o in asked.settings}]
    settings = [
        f"++{str(override.input_line).lstrip('+')}"
        for override in asked.settings
        if override.key_or_group != "resume"
    ]
    place = QuotedString(str(folder), Quote.single).with_quotes()
    return [*rest, *settings, f"resume={place}", f"hydra.run.dir={place}"]


def origins(folder: Path, asked: Words, composed: Callable[[str], str]) -> Callable[[str], str]:
    """Who set a key of a resumed run."""
    chosen = {re.split(r"[=@]", word)[0] for word in asked.files}
    before = Origins(
        [override for override in asked.settings if may_change(override.key_or_group)],
        lambda: [Layer(folder / "config.yaml", ())],
    )

    def origin(key: str) -> str:
        return composed(key) if key.partition(".")[0] in chosen else before(key)

    return origin


def forced(override: Override) -> Override:
    """The same without asking whether the key is there."""
    return Override(
        type=override.type if override.is_delete() else type(override.type).FORCE_ADD,
        key_or_group=override.key_or_group,
        value_type=override.value_type,
        _value=override._value,
        input_line=override.input_line,
    )


def _folder_of(run_id: str, output: str, uri: str | None) -> Path:
    for pattern in ("*/*/tracker.json", "*/*/*/tracker.json"):  # a run, a job of a sweep
        for file in Path(output).glob(pattern):
            if f'"{run_id}"' in file.read_text(encoding="utf-8", errors="replace"):
                return file.parent
    if uri is None:
        raise UserError(f"no run below {output} has this id, and no MLflow store is configured")
    from mmnet.track.mlflow import folder_of  # asks the store, in a process of its own

    return folder_of(run_id, uri)


def _checkpoints(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob("step_*/manifest.json"))


def _within(path: Path) -> str:
    """The run folder that this lies in, if any."""
    found = [parent for parent in path.parents if _checkpoints(parent)]
    return f"; did you mean '{found[0]}'?" if found else ""


def _below(folder: Path) -> str:
    """Of the runs in here that can be resumed, the one that was saved last, if any."""
    found: dict[Path, float] = {}
    for depth in ("*", "*/*", "*/*/*"):  # an experiment's folder, all of them, with sweeps
        for config in folder.glob(f"{depth}/config.yaml"):
            if saved := _checkpoints(config.parent):
                found[config.parent] = max(path.stat().st_mtime for path in saved)
    if not found:
        return ""
    newest = max(found, key=lambda run: (found[run], run))
    if len(found) == 1:
        return f"; did you mean '{newest}'?"
    return f"; of the {len(found)} runs in it the newest is '{newest}'"


def _near(folder: Path, output: str) -> str:
    """The run folder of the most similar name, if any."""
    runs = {str(path.parent) for path in Path(output).glob("*/*/config.yaml")}
    runs |= {str(path.parent) for path in folder.parent.glob("*/config.yaml")}
    return nearest(str(folder), runs)
