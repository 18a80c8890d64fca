"""Secrets: values of the environment that must reach neither a run folder nor a screen."""

import os
import re
from collections.abc import Mapping
from typing import Any

from mmnet.check import Problem
from mmnet.values import quoted


NAME = re.compile(r"TOKEN|SECRET|KEY|PASSWORD|CREDENTIAL", re.IGNORECASE)
SHORTEST = 6  # shorter values ("true", "1234") would be found in innocent text
SETTING = re.compile(r"(^|_)(token|secret|password|credentials?|api_?key)$", re.IGNORECASE)
USER_IN_URI = re.compile(r"(?<=://)[^\s/]+(?=@)")
REDACTED = "***"


def secrets() -> dict[str, str]:
    """value -> name, of the environment variables whose names promise a secret."""
    return {
        value: name
        for name, value in os.environ.items()
        if NAME.search(name) and len(value) >= SHORTEST
    }


def leaks(config: Mapping[str, Any]) -> list[Problem]:
    """Settings outside the tracker that resolve to a secret: they would be saved and sent."""
    return [
        Problem(
            (key,),
            f"this holds the value of the environment variable {name}, by its name a "
            f"secret; only settings of the tracker may hold one",
        )
        for key, value in leaves(config)
        if isinstance(value, str) and not key.startswith("tracker.")
        for secret, name in secrets().items()
        if secret == value or (secret in value and not secret.startswith("/"))
    ]


def leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values of everything inside `value`."""
    if not isinstance(value, Mapping | list | tuple):
        return [(key, value)]
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [leaf for k, v in items for leaf in leaves(v, f"{key}.{k}" if key else str(k))]


def redact(value: Any, key: str = "") -> Any:
    """A copy without secrets: of the environment, in URIs, and under names such as `token`.

    References (`${oc.env:TOKEN}`) are kept: they name a secret, they do not hold it.
    """
    if isinstance(value, dict):
        return {k: redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v, key) for v in value]
    if not isinstance(value, str):
        return value
    if SETTING.search(key) and "${" not in value:
        return REDACTED
    for secret in sorted(secrets(), key=len, reverse=True):  # one may begin like another
        value = value.replace(secret, REDACTED)
    return value if "${" in value else USER_IN_URI.sub(REDACTED, value)


def shown(value: Any, key: str = "") -> str:
    """A value as it may be printed: much as YAML writes it, short, and without secrets."""
    return quoted(redact(value, key))
