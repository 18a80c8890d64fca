"""From names of files to a run: compose, check, and call what a part names.

Hydra composes without types; then everything is held against mmnet.config at once, so that
all problems come in one list, each with the file or word that set the value.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.utils import setup_globals
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from hydra.utils import execution_whitelist, instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmnet import overrides as words
from mmnet import resume
from mmnet.changes import apply
from mmnet.check import Problem, check
from mmnet.config import CONF, TRUSTED, Part, Run
from mmnet.errors import ConfigError, UserError, nearest
from mmnet.provenance import Origins, chooser, layers
from mmnet.redact import leaks, leaves, redact, shown
from mmnet.references import TooMuch, measure, resolve
from mmnet.time_limit import at_most
from mmnet.values import MISSING


FORMAT = 1  # of config.yaml; a higher one is refused
HEADER = (
    "# What this run was asked to do; python -m mmnet.train resume=<this folder> goes on with it.\n"
)


class Source(NamedTuple):
    """Where configs are: the main folder, more folders behind it, and the first file."""

    conf: Path = CONF
    more: tuple[Path, ...] = ()
    name: str = "train"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.conf, *self.more)


class Composed(NamedTuple):
    """A checked run, and its config before references were resolved."""

    run: Run
    config: dict[str, Any]

    @property
    def text(self) -> str:
        """Of config.yaml: it names the environment rather than repeats it."""
        kept = {"format": FORMAT, **redact(self.config), "resume": None}
        return HEADER + OmegaConf.to_yaml(OmegaConf.create(kept))


def load(*overrides: str) -> Run:
    """Compose a run as the command line would: `load("model=late_fusion", "optimizer.lr=1e-4")`.

    Raises ConfigError, which lists everything that is wrong.
    """
    return composed(*overrides).run


def composed(*overrides: str) -> Composed:
    """The same with its unresolved config."""
    return compose(words.read(overrides, [CONF], multirun=False), Source())[0]


def make(part: Part, *args: Any, **known: Any) -> Any:
    """Call what a part names with its settings, plus what only the running program knows.

    Raises what the part raises, and InstantiationException when it is not a trusted one.
    """
    with execution_whitelist(TRUSTED):
        return instantiate(part, *args, _convert_="all", _recursive_=False, **known)


def make_whole(part: Part, **known: Any) -> Any:
    """The same of a part some of whose settings are parts, or hold parts by name.

    Each of them is handed what is known.
    """
    inner: dict[str, Any] = {}
    for name, value in part.items():
        if is_part(value):
            inner[name] = make_whole(value, **known)
        elif isinstance(value, dict) and value and all(map(is_part, value.values())):
            inner[name] = {one: make_whole(of, **known) for one, of in value.items()}
    own = {name: value for name, value in part.items() if name not in inner}
    return make(own, **inner, **known)


def is_part(value: Any) -> bool:
    """Whether a setting is a part itself."""
    return isinstance(value, dict) and "_target_" in value


def compose(asked: words.Words, source: Source) -> tuple[Composed, dict[str, Any]]:
    """Compose and check what a command line asks for. Returns the run, and Hydra's own settings.

    Raises ConfigError.
    """
    problems = list(asked.problems)
    loader = make_loader(source)
    try:
        config, files = load_files(loader, source, asked.files, problems)
        hydra = config.pop("hydra")
        applied = apply(asked.settings, config)
        problems += applied.problems
        composed = settle(config, asked, origins_of(asked, source, files), problems)
    except RecursionError:
        raise ConfigError([*problems, "the config is nested too deeply"]) from None
    if applied.added and composed.run.resume is None:
        raise ConfigError(
            [f"{shown(word)} (command line): no file sets this; add a +" for word in applied.added]
        )
    return composed, hydra


def settle(
    config: dict[str, Any],
    asked: words.Words,
    origin: Callable[[str], str],
    problems: Sequence[str] = (),
) -> Composed:
    """Check an unresolved config (plain containers), that of the run to resume if it names one.

    Raises ConfigError with `problems` and whatever else is wrong.
    """
    told = list(problems)
    if config.get("resume") not in (None, MISSING):
        config, origin = resumed(config, asked, origin, told)
    try:
        found, beyond = measure(config)
    except TooMuch as much:
        raise ConfigError([*told, tell(much.problem, config, {}, origin)]) from None
    known = [key for key, _ in leaves(config)]
    values = resolve(OmegaConf.create(config), beyond, found, known)
    checked = check(values)
    found = [*unexplained(found, checked.problems), *leaks(values), *checked.problems]
    told += [tell(problem, config, values, origin) for problem in found]
    if checked.run is None or told:
        raise ConfigError(list(dict.fromkeys(told)))
    return Composed(checked.run, config)


def unexplained(lost: list[Problem], problems: Sequence[Problem]) -> list[Problem]:
    """Without settings of a head that are missing since the dataset is of no use to it."""
    unfit = any({"head._target_", "dataset._target_"} == set(one.keys) for one in problems)
    told = "there is no 'dataset."
    return [
        one
        for one in lost
        if not (unfit and one.keys[0].startswith("head.") and one.text.startswith(told))
    ]


def resumed(
    composed: dict[str, Any], asked: words.Words, origin: Callable[[str], str], told: list[str]
) -> tuple[dict[str, Any], Callable[[str], str]]:
    """The stored config of the run to resume, with what may be set anew. Raises ConfigError."""
    name = str(composed["resume"])
    if not name.strip():
        raise ConfigError([*told, "resume: expected a run folder or the id of an MLflow run"])
    try:
        measure(composed)
        tree = OmegaConf.create(composed)
        name, output = str(tree.resume), str(tree.paths.output)
        uri = OmegaConf.select(tree, "tracker.uri")
        folder = resume.find(name, output, None if uri is None else str(uri))
        base, refused = resume.merge(resume.stored(folder, FORMAT), composed, asked)
    except (TooMuch, UserError, OmegaConfBaseException, OSError, ValueError) as error:
        raise ConfigError([*told, f"resume={shown(name)}: {words.one_line(error)}"]) from None
    told += refused
    return {**base, "resume": str(folder)}, resume.origins(folder, asked, origin)


def tell(
    problem: Problem,
    config: Mapping[str, Any],
    values: Mapping[str, Any],
    origin: Callable[[str], str],
) -> str:
    """One line: what is set to what, where that was done, and what is wrong with it."""
    subjects = []
    for key in problem.keys:
        raw, value = at(config, key), at(values, key)
        subject = key if isinstance(raw, dict) or raw is ABSENT else f"{key}={shown(raw)}"
        where = origin(key) if raw is not ABSENT else ""
        if isinstance(raw, str) and "${" in raw and isinstance(value, str | int | float):
            referred = raw.strip("${}")
            subject = f"{key}={shown(value)}"
            where = f"{raw}, {origin(referred) or where}"
        subjects.append(f"{subject} ({where})" if where else subject)
    return words.shown_line(f"{' and '.join(subjects)}: {problem.text}")


ABSENT = object()


def at(config: Any, key: str) -> Any:
    """The value under a dotted key, or ABSENT."""
    for word in key.split("."):
        if isinstance(config, list) and word.isdigit() and int(word) < len(config):
            config = config[int(word)]
        elif isinstance(config, Mapping):
            config = next((v for k, v in config.items() if str(k) == word), ABSENT)
        else:
            return ABSENT
    return config


def origins_of(asked: words.Words, source: Source, files: list[str]) -> Origins:
    """Who set what in a config composed from `source` by choosing `files`."""
    return Origins(
        asked.settings,
        lambda: layers(make_loader(source), source.name, files, source.folders),
    )


def make_loader(source: Source) -> ConfigLoader:
    """Hydra's loader, set up as @hydra.main does it, without touching Hydra's global state."""
    setup_globals()
    search = create_config_search_path(str(source.conf))
    for folder in source.more:
        search.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(search)


def load_files(
    loader: ConfigLoader, source: Source, files: Sequence[str], problems: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """The config that a choice of files makes, unresolved, Hydra's node included.

    Where a YAML file chooses another that is not there, that is a problem, and some file is
    taken in its place, so that the rest can be looked at. Returns the choices made as well.
    Raises ConfigError when nothing can be composed.
    """
    files = list(files)
    lost: list[tuple[str, str, Sequence[str]]] = []
    try:
        for _ in range(10):
            try:
                with at_most(seconds=2):  # merging files follows references, endless ones too
                    composed = loader.load_configuration(source.name, files, RunMode.RUN)
                break
            except MissingConfigException as error:
                group, _, name = (error.missing_cfg_file or "").rpartition("/")
                if not group or not error.options:
                    raise
                lost.append((group, name, error.options))
                files.append(f"{group}={error.options[0]}")
            except TimeoutError as error:
                why = "does a file set something inside a reference of another?"
                raise ConfigError([*problems, f"composing: {error}; {why}"]) from None
        found = layers(loader, source.name, files, source.folders) if lost else []
        plain: Any = OmegaConf.to_container(composed, resolve=False)
    except ConfigError:
        raise
    except Exception as error:  # Hydra, OmegaConf and PyYAML raise what they like
        cause = f" {words.one_line(error.__cause__)}" if error.__cause__ else ""
        raise ConfigError([*problems, words.one_line(error) + cause]) from None
    for group, name, options in lost:
        where = chooser(found, group, name)
        problems.append(
            f"{group}={name} ({where}): no such file{nearest(name, options)}; "
            f"there are {', '.join(options)}"
        )
    return plain, files
