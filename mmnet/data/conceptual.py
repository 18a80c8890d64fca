"""Conceptual Captions' files (CC3M, CC12M): lines of a caption and an address, in either order."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mmnet.data.downloaded import Downloaded, folders_of
from mmnet.data.files import lines
from mmnet.data.records import Found
from mmnet.errors import UserError


LOOKED_AT = 100  # rows by which the order of the columns is told
SCHEMES = ("http://", "https://", "ftp://")

# As the site and as its storage call them; browsers append the rest of the address.
TRAIN, VALIDATION = "*GCC-training.tsv*", "*GCC-1.1.0-Validation.tsv*"
LABELLED, CC12M = "*GCC-Labels-training.tsv*", "*cc12m.tsv*"
FILES = (TRAIN, VALIDATION, LABELLED, CC12M)

# Folders for the pictures of one file, and for those of any.
OF_TRAIN = ("train", "training", "images/train", "images/training")
OF_VALIDATION = ("val", "validation", "images/val", "images/validation")
SHARED = ("images", ".")


class Row(NamedTuple):
    """One line."""

    caption: str
    url: str
    labels: tuple[str, ...] | None  # None: it has none, or they cannot be told apart


def rows(path: Path) -> Iterator[Row]:
    """The lines of a file without a header: two fields, or five with labels.

    Nothing is quoted: a quotation mark is one. CC3M has the caption first and CC12M the address;
    which is which is told by the first rows. A caption may be empty; an address may not.

    Raises UserError naming the line, and where the order is not clear.
    """
    column = url_column(path)
    for number, line in enumerate(lines(path), 1):
        fields = line.split("\t")
        # One odd address among millions is only one without a picture; at the top it is a header.
        if len(fields) not in (2, 5) or (number == 1 and not _is_url(fields[column])):
            kind = ("<url><TAB><caption>", "<caption><TAB><url>")[column]
            raise UserError(
                f"{path}, line {number}: {line[:80]!r}, expected {kind}, and of the labelled "
                f"file three fields more: labels, their ids, their confidences"
            )
        yield Row(fields[1 - column], fields[column], _labels(fields[2:]))


def url_column(path: Path) -> int:
    """0 or 1. Raises UserError where the first rows do not agree on one."""
    found: Counter[int] = Counter()
    for line in islice(lines(path), LOOKED_AT):
        fields = line.split("\t")[:2]
        found.update(column for column, field in enumerate(fields) if _is_url(field))
    if not found or found[0] == found[1]:
        raise UserError(
            f"{path}: which of the first two columns holds addresses cannot be told by the first "
            f"{LOOKED_AT} rows: {found[0]} addresses in the first, {found[1]} in the second. "
            f"Expected lines <caption><TAB><url> (CC3M) or <url><TAB><caption> (CC12M), no header"
        )
    return found.most_common(1)[0][0]


def _is_url(field: str) -> bool:
    return field.lower().startswith(SCHEMES)


def _labels(fields: list[str]) -> tuple[str, ...] | None:
    if not fields or not fields[0]:
        return None
    labels, ids = (field.split(",") for field in fields[:2])
    # A name with a comma of its own would be two labels that are none.
    return tuple(dict.fromkeys(labels)) if len(labels) == len(ids) else None


def the_file(root: Path, part: str) -> Path | None:
    """The one of that name, if there is one. Raises UserError where there are several."""
    found = sorted(path for path in root.glob(part) if path.is_file())
    if len(found) > 1:
        named = " and ".join(path.name for path in found)
        raise UserError(f"{root} holds {named}, of which one is expected")
    return found[0] if found else None


def folders(root: Path, own: tuple[str, ...]) -> list[Path]:
    return folders_of(root, (*own, *SHARED))


def pictured(
    root: Path, part: str, own: tuple[str, ...], found: Found
) -> Iterator[tuple[str, Row, str]]:
    """The number, the row and the picture's place of those rows of a file that have a picture.

    In folders of its `own` pictures go by MD5 or row, in shared ones by row where this is the
    only file. Raises UserError.
    """
    path = the_file(root, part)
    if path is None:
        return
    alone = not any(the_file(root, other) for other in FILES if other != part)
    local = [
        Downloaded(root, own, ("row", "md5")),
        Downloaded(root, SHARED, ("row", "md5") if alone else ("md5",)),
    ]
    if not own:  # they are another file's, so that numbers are not this one's
        local.append(Downloaded(root, OF_TRAIN, ("md5",)))
    for number, row in enumerate(rows(path)):
        place = next((place for one in local if (place := one.find(number, row.url))), None)
        if place is None:
            found.notes["addresses without a picture"] += 1
        else:
            yield str(number), row, place
