"""Types with limits, for settings: read by the config check, invisible to the code that uses them.

A constructor says `dropout: Fraction`; mypy and the program see a float, the check sees
that 1.5 is outside [0, 1).
"""

from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """Allowed values: low <= x < high (strict at `low` too where `open` is set)."""

    low: float
    high: float = float("inf")
    open: bool = False
    says: str = ""


class PartsOf(NamedTuple):
    """A setting that holds parts of a group, each under a name of its own."""

    group: str


class PartOf(NamedTuple):
    """A setting that is itself a part: a class by its `_target_`, with settings of its own."""

    group: str


class Section(NamedTuple):
    """A setting that holds settings of its own, by the fields of a dataclass."""

    fields: tuple[tuple[str, Any], ...]  # name and type, in order


ControllerPart = Annotated[Any, PartOf("controller")]
Datasets = Annotated[dict[str, Any], PartsOf("dataset")]
Heads = Annotated[dict[str, Any], PartsOf("head")]
PositiveInt = Annotated[int, Range(1, says="a whole number of at least 1")]
NonNegativeInt = Annotated[int, Range(0, says="a whole number of at least 0")]
PositiveFloat = Annotated[float, Range(0, open=True, says="a number above 0")]
NonNegativeFloat = Annotated[float, Range(0, says="a number of at least 0")]
Fraction = Annotated[float, Range(0, 1, says="a number in [0, 1)")]
Ratio = Annotated[float, Range(0, 1 + 1e-12, open=True, says="a number in (0, 1]")]
Share = Annotated[float, Range(0, 1 + 1e-12, says="a number in [0, 1]")]
