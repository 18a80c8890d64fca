"""The dataset that a command line chooses, whatever network the rest of it would train."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mmnet import overrides as words
from mmnet.changes import apply
from mmnet.check import Problem, check_part
from mmnet.compose import Source, load_files, make, make_loader, origins_of, tell
from mmnet.config import CONF, Part
from mmnet.errors import ConfigError, UserError
from mmnet.redact import shown
from mmnet.references import TooMuch, measure, resolve


if TYPE_CHECKING:  # brings in torch
    from mmnet.data.published import Published

SECTIONS = ("dataset", "paths")  # that must be right; the others need not be


@dataclass(frozen=True)
class Chosen:
    """A checked dataset."""

    part: Part
    data: Path  # paths.data

    @property
    def name(self) -> str:
        """What it is called: "coco"."""
        return str(self.part["_target_"]).split(".")[-2]

    def open(self) -> Any:
        """The dataset itself. Raises UserError."""
        try:
            return make(self.part, data=self.data)
        except OSError as error:  # a folder that may not be looked into
            raise UserError(f"dataset: {error}") from error

    def records(self) -> "Published":
        """The dataset, if it is one of records in files. Raises UserError."""
        from mmnet.data.published import Published

        found = self.open()
        if not isinstance(found, Published):
            raise UserError(
                f"dataset={self.name} is not read from files record by record, so that there is "
                f"nothing to do here"
            )
        return found


def choose(overrides: Sequence[str]) -> Chosen:
    """The dataset that these words choose.

    Every word must be one that mmnet.train takes, with the same checks of those that concern the
    dataset. Raises ConfigError with everything that is wrong.
    """
    asked, source = words.read(overrides, [CONF], multirun=False), Source()
    problems = list(asked.problems)
    config, files = load_files(make_loader(source), source, asked.files, problems)
    config.pop("hydra")
    applied = apply(asked.settings, config)
    problems += applied.problems
    origin = origins_of(asked, source, files)
    try:
        found, beyond = measure(config)
    except TooMuch as much:
        raise ConfigError([*problems, tell(much.problem, config, {}, origin)]) from None
    values = resolve(OmegaConf.create(config), beyond, found, [])
    part, wrong = check_part(values.get("dataset", {}), "dataset")
    found = [problem for problem in found if problem.keys[0].partition(".")[0] in SECTIONS]
    found += wrong
    data = values.get("paths", {}).get("data")
    if not isinstance(data, str) or not data:
        found.append(Problem(("paths.data",), "expected a folder"))
    problems += [tell(problem, config, values, origin) for problem in found]
    if not problems:
        problems = [f"{shown(word)} (command line): no file sets this" for word in applied.added]
    if problems or part is None:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Chosen(part, Path(str(data)))
