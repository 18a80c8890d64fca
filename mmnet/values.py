"""Does a value from a config fit its type? Says what would have, in words.

Understands what settings are made of: bool, int, float, str, None, Literal, list, dict,
tuple, unions of them, and the ranges of mmnet.bounds.
"""

import math
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mmnet.bounds import Range
from mmnet.errors import nearest


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
LARGEST_INT = 10**18  # torch, numpy and JSON readers hold no more than 2^63
MISSING = "???"  # how YAML says that a value must be given


class Misfit(ValueError):
    """A value of the wrong kind; the text says what was expected."""


def fit(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` wants it: 3 becomes 3.0 for a float, a list a tuple.

    Raises Misfit.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin is Annotated:
        return _within(value, annotation)
    if origin in (Union, UnionType):
        return _fit_union(value, annotation)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in args):
            raise Misfit(f"expected {describe(annotation)}{nearest(str(value), map(str, args))}")
        return value
    if origin is list or annotation is list:
        return _fit_list(value, annotation, args)
    if origin is tuple:
        return _fit_tuple(value, annotation, args)
    if origin is dict or annotation is dict:
        return _fit_dict(value, annotation, args)
    return _fit_scalar(value, annotation)


def describe(annotation: Any) -> str:
    """What a value may be: "a whole number of at least 1 or null"."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next(mark.says for mark in args[1:] if isinstance(mark, Range))
    if origin in (Union, UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else str(args[0])
    if origin is tuple and Ellipsis not in args:
        kinds = ", ".join(dict.fromkeys(describe(arg) for arg in args))
        return f"a list of {len(args)} ({kinds})"
    if origin in (list, tuple):
        return f"a list ({describe(args[0])} each)"
    if annotation is list:
        return "a list"
    if origin is dict or annotation is dict:
        return "a section of settings"
    return "null" if annotation in (None, NoneType) else WORDS[annotation]


def _fit_scalar(value: Any, kind: Any) -> Any:
    if kind in (None, NoneType):
        if value is None:
            return None
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 1e4 is a float to YAML, a number of steps to people
        if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) <= LARGEST_INT:
                return value
            raise Misfit("expected a whole number of no more than 18 digits")
    elif kind is float:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT:
            return float(value)
        if isinstance(value, float):
            if math.isfinite(value):
                return value
            raise Misfit("expected a finite number")
    elif kind is str:
        return _fit_text(value)
    raise Misfit(f"expected {describe(kind)}")


def _fit_text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # name=2026 means a name
    if not isinstance(value, str):
        raise Misfit("expected text (quote it if it is meant as text)")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in value):
        raise Misfit("expected text without control characters")
    return value


def _within(value: Any, annotation: Any) -> Any:
    kind, *marks = get_args(annotation)
    try:
        value = fit(value, kind)
    except Misfit:
        if type(value) in (int, float) and not abs(value) <= LARGEST_INT:
            raise  # the right kind, but nan, infinite or too long: that is what to say
        raise Misfit(f"expected {describe(annotation)}") from None
    for mark in marks:
        if isinstance(mark, Range):
            above = value > mark.low if mark.open else value >= mark.low
            if not (above and value < mark.high):
                raise Misfit(f"expected {describe(annotation)}")
    return value


def _fit_union(value: Any, annotation: Any) -> Any:
    misfits = []
    for arg in get_args(annotation):
        try:
            return fit(value, arg)
        except Misfit as misfit:
            misfits.append(str(misfit))
    # A hint such as "did you mean 'bert'?" belongs to one alternative; keep it.
    hints = [text[text.index("; did you mean") :] for text in misfits if "; did you mean" in text]
    raise Misfit(f"expected {describe(annotation)}{''.join(hints[:1])}")


def _fit_list(value: Any, annotation: Any, args: tuple[Any, ...]) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise Misfit(f"expected {describe(annotation)}")
    return [_item(item, args[0], annotation) for item in value] if args else list(value)


def _fit_tuple(value: Any, annotation: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Misfit(f"expected {describe(annotation)}")
    kinds = (args[0],) * len(value) if args[1:] == (Ellipsis,) else args
    if len(kinds) != len(value):
        raise Misfit(f"expected {describe(annotation)}")
    return tuple(_item(item, kind, annotation) for item, kind in zip(value, kinds, strict=True))


def _fit_dict(value: Any, annotation: Any, args: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Misfit(f"expected {describe(annotation)}")
    if not args:
        return dict(value)
    return {fit(key, args[0]): fit(item, args[1]) for key, item in value.items()}


def _item(value: Any, kind: Any, annotation: Any) -> Any:
    try:
        return fit(value, kind)
    except Misfit:
        raise Misfit(f"expected {describe(annotation)}") from None


def quoted(value: Any) -> str:
    """A value on one short line, much as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    if isinstance(value, str) and not value:
        text = "''"
    return text if len(text) <= 60 else f"{text[:57]}..."
