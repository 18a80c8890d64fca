"""Scraps of HTML to the text that a browser would show."""

import html
import re


# With what they hold; then tags and comments, the last of which may be cut off. What only looks
# like a tag ("I <3 it", "a < b") is text.
HELD = re.compile(r"<(style|script)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
BREAK = re.compile(r"<(?:br|p|li|div|tr|h[1-6])\b[^>]*>", re.IGNORECASE)
TAG = re.compile(r"<!--.*?(?:-->|\Z)|</?[a-z][^<>]*(?:>|\Z|(?=<))", re.DOTALL | re.IGNORECASE)


def shown(scrap: str) -> str:
    """Its text: no tags, no styles, entities resolved, single-spaced; it may be empty."""
    if "<" in scrap:
        scrap = TAG.sub("", BREAK.sub(" ", HELD.sub(" ", scrap)))
    return " ".join((html.unescape(scrap) if "&" in scrap else scrap).split())
