"""The synsets of ImageNet by their WordNet ids, as the lists say that timm brings along."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from mmnet.data.files import lines
from mmnet.data.text import told_apart
from mmnet.errors import UserError


WNID = re.compile(r"n\d{8}")


def synsets(name: str) -> list[str]:
    """The WordNet ids of one of timm's lists, such as "imagenet_synsets", in its order."""
    return [line.strip() for line in lines(_info(f"{name}.txt")) if line.strip()]


def lemmas() -> dict[str, str]:
    """The names of every synset by its WordNet id: "tench, Tinca tinca"."""
    pairs = (line.partition("\t") for line in lines(_info("imagenet_synset_to_lemma.txt")))
    return {wnid: names.strip() for wnid, _, names in pairs}


def distinct(wnids: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """A name for each synset: the first of its own, with the id where others have that, too."""
    return told_apart({wnid: first(names.get(wnid, wnid)) for wnid in wnids})


def first(names: str) -> str:
    """The first of several names: "tench"."""
    return names.partition(",")[0].strip()


def _info(name: str) -> Path:
    # Found, not imported: that would take seconds.
    spec = find_spec("timm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "_info" / name
        if path.is_file():
            return path
    raise UserError(f"the installed timm lacks the list data/_info/{name}: pip install -U timm")
