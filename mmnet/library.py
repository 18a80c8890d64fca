"""mmnet as a library: the same words as on the command line, objects in return."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from mmnet import checkpoint, resume
from mmnet import overrides as words
from mmnet.check import check_part
from mmnet.compose import (
    FORMAT,
    Source,
    composed,
    load_files,
    make,
    make_loader,
    settle,
)
from mmnet.config import CONF, MODALITIES, PARTS, PASSED, Run
from mmnet.data.batch import read
from mmnet.errors import ConfigError, UserError, first_line, nearest
from mmnet.folder import clear
from mmnet.interfaces import Answers, Names, Sample
from mmnet.model import Multimodal, without_data
from mmnet.model import build as build_network
from mmnet.references import resolve
from mmnet.trust import trusted_signature


class Trained:
    """A finished run: its network in evaluation mode, and what it was trained on."""

    def __init__(self, folder: Path, run: Run, network: Multimodal, names: Names) -> None:
        self.folder, self.run, self.network, self.names = folder, run, network, names

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json of the run folder."""
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return found

    def answer(self, samples: Sequence[Sample]) -> Answers:
        """The head's answers to raw samples: {"image": an RGB PIL image, "text": "..."}, or one of
        the two. Raises UserError for a sample with nothing that the network reads.
        """
        inputs = read(self.network.prepare(), samples)
        with torch.inference_mode():
            answers: Answers = self.network(inputs)
        return answers

    def to_onnx(self, path: str | Path) -> list[str]:
        """Write the network as ONNX, for any number of samples; the names of its inputs.

        Pictures and texts go in as the encoders' `prepare` makes them. Raises what
        torch.onnx.export raises for a network that it cannot follow.
        """
        from mmnet.export import to_onnx  # brings in ONNX

        some: Sample = {"image": Image.new("RGB", (64, 64)), "text": "a"}
        example = read(self.network.prepare(), [some, some])
        return to_onnx(self.network, example, Path(path)).inputs


def fit(*overrides: str) -> Trained:
    """Train as `python -m mmnet.train <overrides>` would, in this process.

    Raises ConfigError for what is wrong with the words and UserError for what goes wrong.
    """
    from mmnet.session import run_training

    asked = composed(*overrides)
    run = asked.run
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    folder = Path(run.resume or Path(run.paths.output) / run.name / now).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    said = logging.FileHandler(folder / "train.log")
    said.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("mmnet")
    level = logger.level
    logger.addHandler(said)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        run_training(run, folder, asked.text)
    except UserError:
        if run.resume is None:
            clear(folder)
        raise
    finally:
        logger.removeHandler(said)
        logger.setLevel(level)
        said.close()
    return load(folder)


def load(folder: str | Path) -> Trained:
    """The trained network of a run folder, on the CPU, in evaluation mode.

    Its weights are model.safetensors, or, of a run that has not ended, its best checkpoint's,
    or its newest's where none is the best yet.
    Raises UserError when the folder is not a run or its weights do not fit.
    """
    folder = Path(folder)
    try:
        config = resume.stored(folder, FORMAT)
    except UserError as error:
        raise UserError(f"{folder}: not the folder of a run: {error}") from error
    try:
        names = Names(**json.loads((folder / "record.json").read_text("utf-8"))["names"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: its record.json cannot be read") from error
    nobody: words.Words = words.read([], [CONF], multirun=False)
    run = settle({**config, "resume": None}, nobody, lambda key: f"{folder}/config.yaml").run
    network = build_network(unpretrained(run), num_labels=len(names.labels))
    try:
        if (folder / "model.safetensors").exists():
            weights = load_file(folder / "model.safetensors")
        else:
            best = folder / "checkpoints" / "best"
            found = (
                checkpoint.load(best.resolve())
                if best.exists()
                else checkpoint.load_newest(best.parent)
            )
            weights = found.averaged or found.weights
        network.load_state_dict(weights)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder}: its weights cannot be read: {first_line(error)}") from error
    return Trained(folder, run, network.eval(), names)


def build(*overrides: str) -> Multimodal:
    """The network that these words describe, with fresh (or its parts' pretrained) weights.

    Numbers that only data can tell are neutral, see mmnet.model.without_data.
    """
    return without_data(composed(*overrides).run)


def part(choice: str, /, **settings: Any) -> Any:
    """One part, by group and file: `part("fusion=early", dims={"image": 96, "text": 96}, depth=2)`.

    `settings` replace those of the file; facts that a run's program passes (`dims` to a fusion,
    `dim` to a head, ...) are given here by hand. Raises ConfigError.
    """
    group, _, name = choice.partition("=")
    key = group.replace("/", ".")
    known = [*PARTS, *(f"encoder/{modality}" for modality in MODALITIES)]
    if group not in known or not name:
        near = nearest(group, known)
        raise ConfigError([f"{choice}: expected <group>=<file>, such as fusion=early{near}"])
    values = composed_values([choice])
    for word in key.split("."):
        values = values[word]
    facts = PASSED.get(key.partition(".")[0], ())
    handed = {fact: settings.pop(fact) for fact in facts if fact in settings}
    found, problems = check_part({**values, **settings}, key)
    if found is None or problems:
        raise ConfigError([f"{', '.join(keys)}: {text}" for keys, text in problems])
    for fact, parameter in trusted_signature(found["_target_"], key).parameters.items():
        if fact in facts and parameter.required and fact not in handed:
            raise ConfigError([f"{choice}: needs {fact}=..., see {found['_target_']}"])
    return make(found, **handed)


def composed_values(files: Sequence[str]) -> dict[str, Any]:
    """The values of a config that chooses `files`, whether they make up a run or not."""
    asked = words.read(files, [CONF], multirun=False)
    problems: list[str] = list(asked.problems)
    config, _ = load_files(make_loader(Source()), Source(), asked.files, problems)
    if problems:
        raise ConfigError(problems)
    config.pop("hydra")
    return resolve(OmegaConf.create(config), (), [], [])


def unpretrained(run: Run) -> Run:
    """The same without published weights, which would be fetched only to be replaced."""
    encoders = {
        modality: part and {**part, **{k: None for k in ("pretrained",) if k in part}}
        for modality, part in run.encoder.items()
    }
    return replace(run, encoder=encoders)
