"""The hub of published weights: whether it can be reached is found out first, and soon."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants


SECONDS = 5.0


@contextmanager
def asked(name: str) -> Iterator[None]:
    """Where the library may ask the hub for `name`; without a network it looks into its cache only.

    It would otherwise ask six times for each file, with ever longer waits: 50 seconds.
    """
    before = constants.HF_HUB_OFFLINE
    if not before and not Path(name).is_dir():
        constants.HF_HUB_OFFLINE = not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def reachable(endpoint: str) -> bool:
    """Whether something answers there. What is behind a proxy only asking can tell."""
    if getproxies().keys() & {"http", "https", "all"}:
        return True
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), SECONDS).close()
    except OSError:
        return False
    return True
