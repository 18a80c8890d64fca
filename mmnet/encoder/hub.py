"""Before weights or vocabularies are fetched: is there a hub to fetch them from?"""

import logging
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants


log = logging.getLogger(__name__)


def look_for_it() -> None:
    """Go by the cache alone where the hub's name means nothing here.

    Its library would try for a minute, and then say the same. Behind a proxy a name need not
    mean anything.
    """
    if constants.HF_HUB_OFFLINE or getproxies():
        return
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
        log.warning("%s cannot be reached: only what it gave earlier is used", host)
