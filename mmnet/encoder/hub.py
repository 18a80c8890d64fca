"""The hub of published weights: whether it can be reached is found out first, and soon."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # it is, by its __all__

from mmnet.errors import first_line


SECONDS = 5.0


@contextmanager
def asked(name: str) -> Iterator[None]:
    """Where the library may ask the hub for `name`; without a network it looks into its cache only.

    It would otherwise ask six times for each file, with ever longer waits: 50 seconds. Raises
    OSError for a failure on the way that the library lets through as something else.
    """
    before = constants.HF_HUB_OFFLINE
    if not before and not Path(name).is_dir():
        constants.HF_HUB_OFFLINE = not reachable(constants.ENDPOINT)
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if isinstance(error, OSError):  # the hub's own answers, which callers know how to tell
            raise
        raise OSError(f"{constants.ENDPOINT} cannot be asked: {first_line(error)}") from error
    finally:
        constants.HF_HUB_OFFLINE = before


def reachable(endpoint: str) -> bool:
    """Whether something answers there, or the proxy on the way, behind which only asking tells."""
    parts = urlsplit(endpoint)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    try:
        if proxy and not proxy_bypass(parts.hostname or ""):
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 1080)
        socket.create_connection((parts.hostname or "", port), SECONDS).close()
    except (OSError, ValueError):  # ValueError: a port that is none
        return False
    return True
