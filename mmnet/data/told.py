"""What a caption says that augmentation would make untrue."""

import re


# Sides, and turns that a mirror turns round. English, as the captions of the datasets here are.
SIDES = re.compile(
    r"\b(?:left|right)(?:s|most|wards?|hand(?:ed)?|side)?\b"
    r"|\b(?:counter-?|anti-?)?clockwise\b"
    r"|\b(?:dextro|levo)(?:cardia|scoliosis|position|rotation)\b",
    re.IGNORECASE,
)

# Those that a turn of the hue changes: not black, white and grey.
COLOURS = re.compile(
    r"\b(?:red|green|blue|yellow|orange|purple|pink|brown|violet|cyan|magenta|turquoise|teal"
    r"|maroon|beige|tan|gold|crimson|scarlet|indigo|lavender|lilac|khaki|colou?r"
    r"|redd|blond|purpl|brunett|bronz)(?:s|e|es|en|ed|er|ish|y|ful)?\b",
    re.IGNORECASE,
)


def names_a_side(text: str) -> bool:
    """Whether it would be wrong, or might be, of the picture in a mirror."""
    return SIDES.search(text) is not None


def names_a_colour(text: str) -> bool:
    """Whether it would be wrong, or might be, of the picture in other colours."""
    return COLOURS.search(text) is not None
