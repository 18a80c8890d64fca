"""Which samples are kept for evaluation, where no split of them is published."""

import hashlib
from collections.abc import Iterable


def held_out(names: Iterable[str], fraction: float) -> set[str]:
    """`fraction` of the distinct names, at least one and never all: those whose hash is lowest.

    It depends on the names alone, neither on their order nor on how often each is there. Of a
    single name none is held out.
    """
    by_hash = sorted(set(names), key=lambda name: (hashed(name), name))
    return set(by_hash[: min(max(1, round(fraction * len(by_hash))), len(by_hash) - 1)])


def hashed(name: str) -> int:
    """The same number for ever, evenly spread over [0, 2^64)."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")
