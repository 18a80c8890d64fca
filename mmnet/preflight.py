"""What a command line asks for, judged before Hydra acts on it and before anything is written.

Hydra would stop at the first mistake, and make the run folder before the rest is looked at.
"""

import argparse
import re
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmnet import overrides as words
from mmnet import resume
from mmnet.compose import Composed, Source, compose
from mmnet.config import CONF
from mmnet.errors import ConfigError, nearest, reason
from mmnet.redact import leaves, shown


SHELLS = ("bash", "fish", "zsh")  # that Hydra completes for
TRIED = 20  # values of a sweep that are checked beforehand; each job is checked anyway


def preflight(arguments: Sequence[str]) -> list[str]:
    """Check a command line, compose included; returns the one to hand to Hydra.

    Raises ConfigError with everything that is wrong. Leaves nothing behind.
    """
    args = get_args_parser().parse_intermixed_args(list(arguments))
    if args.shell_completion:
        refuse_completion(args.overrides)
    if args.help or args.hydra_help or args.shell_completion or args.info:
        return list(arguments)
    source = source_of(args)
    multirun = args.multirun or any("hydra.mode=MULTIRUN" in word for word in args.overrides)
    folders = [*source.folders, *search_path(args.overrides)]
    asked = words.read(args.overrides, folders, multirun)
    asked.problems += refused_options(args)
    composed, hydra = compose(asked, source._replace(more=tuple(folders[1:])))
    problems = [*hydra_problems(hydra), *sweep_problems(asked, source)]
    goes_on = composed.run.resume is not None
    if goes_on and multirun:
        problems.append("resume: goes on with one run; leave out -m")
    if goes_on and args.cfg:
        problems.append(f"--cfg: a resumed run keeps its config: {composed.run.resume}/config.yaml")
    if not (goes_on or args.cfg):
        problems += folder_problems(composed, hydra, "sweep" if multirun else "run")
    if problems:
        raise ConfigError(problems)
    if not goes_on:
        return list(arguments)
    flags = [word for word in arguments if word not in args.overrides]
    folder = Path(str(composed.run.resume))
    return [*flags, *resume.words_for_hydra(args.overrides, asked, folder)]


def source_of(args: argparse.Namespace) -> Source:
    """Where Hydra will look for configs. Raises ConfigError for folders that are not there."""
    conf = CONF if args.config_path is None else Path(__file__).parent / args.config_path
    more = [] if args.config_dir is None else [Path(args.config_dir).absolute()]
    folders = [("config-path", args.config_path, conf)]
    folders += [("config-dir", args.config_dir, path) for path in more]
    problems = [
        f"--{option} {typed}: {problem}"
        for option, typed, folder in folders
        if (problem := unreadable(folder))
    ]
    if problems:
        raise ConfigError(problems)
    name = args.config_name or "train"
    if args.config_name and "/" not in name and not search_path(args.overrides):
        bare = name.removesuffix(".yaml")
        known = [f.stem for folder in (conf, *more) for f in folder.glob("*.yaml")]
        if bare not in known:
            where = " or ".join(map(str, (conf, *more)))
            raise ConfigError(
                [f"--config-name {name}: there is no {bare}.yaml in {where}{nearest(bare, known)}"]
            )
    return Source(conf, tuple(more), name)


def unreadable(folder: Path) -> str:
    """Why nothing can be read there; empty if it can."""
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:
        others = [other.name for other in folder.parent.glob("*/")]
        return f"there is no folder {folder}{nearest(folder.name, others, f'{folder.parent}/')}"
    except OSError as error:
        return f"{folder}: {reason(error)}"
    return ""


def search_path(overrides: Sequence[str]) -> list[Path]:
    """Folders that `hydra.searchpath=[...]` adds."""
    found = []
    for word in overrides:
        if re.match(r"\+*hydra\.searchpath=", word):
            found += re.findall(r"(?:file://)?([^\[\],'\"]+)", word.partition("=")[2])
    return [Path(folder).absolute() for folder in found if "://" not in folder]


def refused_options(args: argparse.Namespace) -> list[str]:
    """Options of Hydra that make no sense here, or not together."""
    problems = []
    if args.experimental_rerun is not None:
        problems.append("--experimental-rerun: not supported; resume=<run folder> goes on with it")
    if args.resolve and not args.cfg:
        problems.append("--resolve: only together with --cfg or --help")
    if args.run + args.multirun + (args.cfg is not None) > 1:
        problems.append("only one of --run, --multirun and --cfg at a time")
    return problems


def refuse_completion(asked: Sequence[str]) -> None:
    """Raises ConfigError unless one shell is named: Hydra would end in a traceback."""
    known = [f"{verb}={shell}" for verb in ("install", "uninstall", "query") for shell in SHELLS]
    if len(asked) != 1 or asked[0] not in known:
        got = words.shown_line(" ".join(["--shell-completion", *asked]))
        raise ConfigError([f"{got}: expected install=, uninstall= or query= {' or '.join(SHELLS)}"])


def hydra_problems(hydra: dict[str, Any]) -> list[str]:
    """Settings of Hydra that a run may not have."""
    problems = []
    names = ", ".join(hydra["job"]["env_set"])
    if names:
        problems.append(
            f"hydra.job.env_set, env_copy ({names}): a config may not change the environment: "
            f"set the variables where you start the run"
        )
    if hydra["job"]["chdir"]:
        problems.append("hydra.job.chdir: relative paths start where the run is started")
    for key, value in leaves(hydra, "hydra"):
        if key.endswith("._target_") and not str(value).startswith(("hydra.", "hydra_plugins.")):
            problems.append(f"{key}={shown(value)}: only Hydra's own and its plug-ins run here")
        if key.endswith(".()"):
            problems.append(f"{key}={shown(value)}: a log may not be made by calling this")
    return problems


def folder_problems(composed: Composed, hydra: dict[str, Any], kind: str) -> list[str]:
    """Refuse a folder that holds something already, and one that cannot be made."""
    tree = OmegaConf.create(
        {**composed.config, "hydra": {key: hydra[key] for key in ("run", "sweep")}}
    )
    try:
        folder = Path(str(OmegaConf.select(tree, f"hydra.{kind}.dir")))
    except OmegaConfBaseException:
        return []  # it needs what Hydra knows only later; looked at again when it is there
    what = f"hydra.{kind}.dir={shown(str(folder))}"
    output = composed.run.paths.output
    if "${paths.output}" in str(hydra[kind]["dir"]):
        what = f"paths.output={shown(output)}"  # what one sets; the rest follows from it
    if not str(folder).isprintable():
        return [f"{what}: expected a name without control characters"]
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            return [f"{what}: {folder} is not an empty folder, and nothing is overwritten here"]
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except (OSError, ValueError) as error:
        return [f"{what}: {words.one_line(error)}"]
    if not there.is_dir():
        return [f"{what}: {there} is a file"]
    try:  # permissions do not tell of file systems that take no folders
        Path(tempfile.mkdtemp(prefix=".mmnet-", dir=there)).rmdir()
    except OSError as error:
        return [f"{what}: nothing can be written into {there}: {error.strerror}"]
    return []


def sweep_problems(asked: words.Words, source: Source) -> list[str]:
    """Problems of the values after the first of each sweep over a setting."""
    problems: list[str] = []
    for word, values in asked.sweeps.items():
        place = next((o for o in asked.settings if o.input_line == word), None)
        if place is None:
            continue  # a choice of files, each looked for already
        for value in values[1:TRIED]:
            try:
                compose(with_value(asked, place, value), source)
            except ConfigError as error:
                problems += error.problems
    return list(dict.fromkeys(problems))


def with_value(asked: words.Words, place: Override, value: Any) -> words.Words:
    """The same command line with another value of one setting."""
    changed = deepcopy(place)
    changed._value = value
    settings = [changed if override is place else override for override in asked.settings]
    return words.Words(files=asked.files, settings=settings)
