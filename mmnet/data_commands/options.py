"""What each command takes beside the words of mmnet.train, and how its words are told apart."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, TypeVar, get_type_hints

from mmnet import overrides
from mmnet.bounds import PositiveFloat, PositiveInt
from mmnet.config import CONF, Run
from mmnet.errors import ConfigError, nearest
from mmnet.redact import shown
from mmnet.values import Misfit, fit


Some = PositiveInt | Literal["all"]  # how many of many are looked at, evenly spread


@dataclass(frozen=True)
class Prepare:
    """Options of `prepare`."""

    out: str  # the folder that shards are written to
    short_side: PositiveInt | None = None  # pixels; larger pictures are shrunk to it. None: none is
    shard_mb: PositiveInt = 256  # about so large is a shard
    workers: PositiveInt | None = None  # processes; None: as many as there are cores
    decode: bool = True  # look into each picture for damage, also where it is not shrunk


@dataclass(frozen=True)
class Verify:
    """Options of `verify`."""

    pictures: Some = 1000  # that are decoded
    facts: str | None = None  # a YAML file instead of mmnet's own


@dataclass(frozen=True)
class Describe:
    """Options of `describe`."""

    out: str  # the folder that the card is written to
    pictures: Some = 1000  # that are measured and compared
    facts: str | None = None


@dataclass(frozen=True)
class Download:
    """Options of `download`."""

    out: str | None = None  # the folder; None: the dataset's name below paths.data
    run: bool = False  # do it, rather than say how
    edition: str | None = None  # None: the first
    mirror: str | None = (
        None  # address below which the same files lie, in place of the official one
    )
    retries: PositiveInt = 5  # of each file
    timeout: PositiveFloat = 60.0  # seconds without a byte
    img2dataset: str = "img2dataset"  # the program for lists of addresses
    facts: str | None = None


@dataclass(frozen=True)
class Probe:
    """Options of `probe`."""

    steps: PositiveInt = 20  # that are timed, of each kind


Options = TypeVar("Options", bound=Prepare | Verify | Describe | Download | Probe)
Made = TypeVar("Made")


def read(
    arguments: Sequence[str], kind: type[Options], made: Callable[[Sequence[str]], Made]
) -> tuple[Made, Options]:
    """What `made` makes of the words of mmnet.train, and the command's own options.

    Raises ConfigError with everything that is wrong with both.
    """
    names: list[str] = [field.name for field in fields(kind)]
    own = [word for word in arguments if word.partition("=")[0] in names]
    rest = [word for word in arguments if word not in own]
    unknown = [word for word in rest if _nothing(word)]
    problems: list[str] = [
        f"{overrides.shown_line(word)} (command line): no such option or setting"
        f"{nearest(word.partition('=')[0], [*names, *_sections()])}"
        for word in unknown
    ]
    options = _options(own, kind, problems)
    try:
        found = made([word for word in rest if word not in unknown])
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if options is None or problems:
        raise ConfigError(problems)
    return found, options


def _sections() -> list[str]:
    return [*(field.name for field in fields(Run)), *(path.name for path in CONF.glob("*/"))]


def _nothing(word: str) -> bool:
    """Whether it sets something by a plain name that a run does not have."""
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier() and name not in {*_sections(), "hydra"}


def _options(own: Sequence[str], kind: type[Options], problems: list[str]) -> Options | None:
    """The options as typed values; what is wrong with them goes to `problems`."""
    asked = overrides.read(own, [CONF], multirun=False)
    problems += asked.problems
    hints = get_type_hints(kind, include_extras=True)
    made: dict[str, Any] = {}
    for word in asked.settings:
        name, value = word.key_or_group, word.value()
        try:
            made[name] = fit(value, hints[name])
        except Misfit as misfit:
            problems.append(f"{name}={shown(value)} (command line): {misfit}")
    given = {word.partition("=")[0] for word in own}
    lacking = [
        field.name for field in fields(kind) if field.default is MISSING and field.name not in given
    ]
    problems += [f"{name}: must be set: {name}=..." for name in lacking]
    return None if problems else kind(**made)
