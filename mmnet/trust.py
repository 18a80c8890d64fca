"""Which code a config may name with `_target_`, and what that takes."""

import re
from fnmatch import fnmatch
from typing import Any

from mmnet.bounds import PartOf, PartsOf, Section
from mmnet.compatible import DECLARED
from mmnet.config import PACKAGES, PASSED, TRUSTED
from mmnet.errors import UserError
from mmnet.signature import Signature, signature
from mmnet.values import MISSING


def trusted_signature(target: Any, key: str) -> Signature:
    """What a part's `_target_` takes. Raises UserError if it is not a part of that group."""
    group = key.partition(".")[0]
    if not isinstance(target, str) or target == MISSING:
        raise UserError("must be set to the dotted name of a class or function")
    allowed = [p for p in TRUSTED if p.startswith((f"{PACKAGES[group]}.", "experiments."))]
    dotted = re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target, re.ASCII)
    if not dotted or not any(fnmatch(target, pattern) for pattern in allowed):
        raise UserError(f"not among what a config may name here: {', '.join(allowed)}")
    found = signature(target)
    marks = [mark_of(parameter.annotation) for parameter in found.parameters.values()]
    passed = PASSED.get(group, ())
    if passed and not any(name in found.parameters for name in passed):
        raise UserError(f"not a part of this group: it does not take '{passed[0]}'")
    if not found.is_class and group not in ("optimizer", "schedule"):
        raise UserError("not a part of this group: it is a function, not a class")
    # One that is made of parts, or is a setting of a part, need not declare what a whole one does.
    whole = not any(isinstance(mark, PartsOf) for mark in marks) and not re.match(
        r"controller\.", key
    )
    for name in DECLARED.get(group, ()) if whole else ():
        if name not in found.constants:
            raise UserError(f"not a part of this group: its class does not declare '{name}'")
    for name, parameter in found.parameters.items():
        if parameter.required and not parameter.setting and name not in passed:
            raise UserError(f"its parameter '{name}' has a type that no setting can have")
    return found


def mark_of(annotation: Any) -> PartsOf | PartOf | Section | None:
    """How a setting holds parts or settings, if it is one that does."""
    kinds = getattr(annotation, "__metadata__", ())
    return next((kind for kind in kinds if isinstance(kind, PartsOf | PartOf | Section)), None)
