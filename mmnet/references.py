"""References in a config (`${dataset.image_size}`): how much they expand to, and their values.

A few lines of `a1: ${a0}${a0}...` can ask for more text than there is memory, and OmegaConf
would set out to build it. So what a config expands to is counted first.
"""

import os
import re
from collections.abc import Container, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmnet.check import UNKNOWN, Problem
from mmnet.errors import nearest
from mmnet.values import MISSING


LARGEST = 1_000_000  # characters of a resolved config
COST = 100  # characters that resolving one reference counts for, since it takes time as well
LONGEST_CHAIN = 50
RESOLVERS = ("oc.env", "oc.decode", "oc.select")  # the same whenever a run is resumed

Path = tuple[Any, ...]


class TooMuch(Exception):
    """The config expands to more than can be held; has the problem."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.problem = Problem((dotted(path),), text)


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def measure(config: Any) -> tuple[list[Problem], set[Path]]:
    """Count what an unresolved config (plain containers) expands to.

    Returns references that are wrong in themselves and all places that they spoil, which
    are not to be resolved. Raises TooMuch.
    """
    measuring = _Measure(config)
    measuring.cost((), ())
    return measuring.problems, measuring.spoilt


class _Measure:
    def __init__(self, config: Any) -> None:
        self.config = config
        self.known: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self.spoilt: set[Path] = set()

    def cost(self, path: Path, chain: tuple[Path, ...]) -> int:
        """Characters that the value at `path` expands to, references followed."""
        if path in self.known:
            return self.known[path]
        if path in chain:
            loop = chain[chain.index(path) :]
            self.refuse(path, f"refers to itself: {' -> '.join(map(dotted, (*loop, path)))}")
            self.spoilt.update(loop)
            return 0
        if len(chain) > LONGEST_CHAIN:
            raise TooMuch(path, f"more than {LONGEST_CHAIN} references or levels deep")
        value = self.at(path)
        total = 1
        if isinstance(value, str):
            total += len(value)
            for reference in references(value):
                total += COST + self.cost_of_reference(reference, path, (*chain, path))
        elif isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                total += len(str(key)) + self.cost((*path, key), (*chain, path))
        if total > LARGEST:
            raise TooMuch(path, f"expands to more than {LARGEST:,} characters")
        self.known[path] = total
        return total

    def cost_of_reference(self, text: str, path: Path, chain: tuple[Path, ...]) -> int:
        resolver, colon, argument = text.partition(":")
        if not colon:
            if "$" not in text:
                return self.cost_of_key(text, path, chain)
            self.refuse(path, "a reference whose name is a reference is not supported")
            return 0
        resolver = resolver.strip()
        if resolver not in RESOLVERS:
            near = nearest(resolver, RESOLVERS)
            self.refuse(path, f"may use {', '.join(RESOLVERS)}, not '{resolver}'{near}")
        elif resolver == "oc.env":
            return len(os.environ.get(argument.split(",")[0].strip(), ""))
        elif resolver == "oc.select":
            return self.cost_of_key(argument.split(",")[0].strip(), path, chain)
        return 0

    def cost_of_key(self, key: str, path: Path, chain: tuple[Path, ...]) -> int:
        dots = len(key) - len(key.lstrip("."))
        target: Path = path[: len(path) - dots] if dots else ()
        for word in re.findall(r"[^.\[\]]+", key):
            here = self.at(target)
            if isinstance(here, str):  # a reference on the way: what it names holds the rest
                break
            inside = range(len(here)) if isinstance(here, list) else here
            match = [k for k in inside if str(k) == word.strip()] if inside else []
            if not match:
                return 0  # not there: OmegaConf will say so
            target = (*target, match[0])
        total = self.cost(target, chain)
        if target in self.spoilt:
            self.spoilt.add(path)
        return total

    def refuse(self, path: Path, text: str) -> None:
        self.problems.append(Problem((dotted(path),), text))
        self.spoilt.add(path)

    def at(self, path: Path) -> Any:
        value = self.config
        for key in path:
            value = value[key]
        return value


def references(text: str) -> Iterator[str]:
    """What stands between `${` and its `}`, for every reference in `text`, inner ones too."""
    opened: list[int] = []
    for match in re.finditer(r"\$\{|\}", text):
        if match.group() == "${":
            opened.append(match.end())
        elif opened:
            yield text[opened.pop() : match.start()]
    yield from (text[start:] for start in opened)  # never closed: OmegaConf will say so


def resolve(
    config: DictConfig, beyond: Container[Path], problems: list[Problem], known: Sequence[str]
) -> dict[str, Any]:
    """The config in plain containers, references replaced by their values.

    What cannot be resolved becomes UNKNOWN, and a problem unless it is among those `beyond`
    resolving that `measure` told; `known` are keys to suggest.
    """

    def value_of(node: Any, key: Any, path: Path) -> Any:
        if path in beyond:
            return UNKNOWN
        if OmegaConf.is_missing(node, key):
            return MISSING
        try:
            value = node[key]
            if OmegaConf.is_interpolation(node, key) and OmegaConf.is_config(value):
                return OmegaConf.to_container(value, resolve=True)
        except (OmegaConfBaseException, RecursionError) as error:
            problems.append(Problem((dotted(path),), _why(error, known)))
            return UNKNOWN
        if isinstance(value, DictConfig):
            return {k: value_of(value, k, (*path, k)) for k in value}
        if isinstance(value, ListConfig):
            return [value_of(value, k, (*path, k)) for k in range(len(value))]
        return value

    return {str(key): value_of(config, key, (key,)) for key in config}


def _why(error: Exception, known: Sequence[str]) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else "nested too deeply"
    lost = re.search(r"Interpolation key '([^']+)' not found", text)
    if lost:
        return f"there is no '{lost[1]}' to refer to{nearest(lost[1], known)}"
    env = re.search(r"Environment variable '([^']+)' not found", text)
    if env:
        return f"the environment variable {env[1]} is not set"
    return text
