"""Open vocabularies to a number of classes: the names that are there most often."""

from collections import Counter

from mmnet.errors import UserError


def most_frequent(counts: Counter[str], num_classes: int, what: str) -> list[str]:
    """The `num_classes` names of the highest counts, the highest first, equal ones by their name.

    Raises UserError where there are fewer, unless there are none at all.
    """
    if counts and len(counts) < num_classes:
        raise UserError(f"dataset.num_classes={num_classes}, but there are {len(counts)} {what}")
    return sorted(counts, key=lambda name: (-counts[name], name))[:num_classes]
