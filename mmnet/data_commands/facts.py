"""What a publisher says of a dataset: mmnet/dataset/facts/<name>.yaml."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from mmnet.errors import UserError, nearest


FOLDER = Path(__file__).resolve().parents[1] / "dataset" / "facts"


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file as it is published."""

    name: str  # below the dataset's folder
    url: str | None = None  # None: only by hand
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    edition: str = ""  # "": of all editions
    unpack: str | None = None  # the folder it is unpacked into, below the dataset's; None: it stays
    source: str = ""  # who says so

    @property
    def checksum(self) -> tuple[str, str] | None:
        """Its kind and its digits, the stronger one where there are two."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else None


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many there are of something, of an edition as published and whole."""

    number: int
    source: str
    of: Literal["samples", "pictures", "captions", "documents", "classes"] = "samples"
    split: str = ""  # "": of all
    edition: str = ""


class Addresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of addresses, from which img2dataset downloads."""

    list: str  # one of the files, or what is unpacked from it
    format: str  # as img2dataset calls it
    url: str  # the column of the address
    caption: str
    header: str | None = None  # the line to put in front, where the file has none
    edition: str = ""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One dataset."""

    title: str
    homepage: str
    licence: str
    citation: str  # BibTeX
    access: Literal["open", "account", "addresses", "none"]  # see data_commands.download
    files: tuple[File, ...] = ()
    counts: tuple[Count, ...] = ()
    addresses: tuple[Addresses, ...] = ()
    commands: tuple[str, ...] = ()  # official ones beside what `files` says
    by_hand: str = ""  # what only the user can do
    notes: str = ""

    @property
    def editions(self) -> list[str]:
        """Their names, that which is taken first in front."""
        named = [one.edition for one in self.files]
        named += [one.edition for one in self.addresses]
        named += [one.edition for one in self.counts]
        return list(dict.fromkeys(name for name in named if name))

    def of(self, edition: str | None) -> "Facts":
        """Those of one edition, by default the first. Raises UserError for a name unknown."""
        if not self.editions and edition is None:
            return self
        chosen = self.editions[0] if edition is None else edition
        if chosen not in self.editions:
            there = ", ".join(self.editions) or "only one"
            raise UserError(
                f"edition={chosen}: no such edition of {self.title}"
                f"{nearest(chosen, self.editions)}; there is {there}"
            )
        return msgspec.structs.replace(
            self,
            files=tuple(one for one in self.files if one.edition in ("", chosen)),
            counts=tuple(one for one in self.counts if one.edition in ("", chosen)),
            addresses=tuple(one for one in self.addresses if one.edition in ("", chosen)),
        )


def facts_of(name: str, own: str | None = None) -> Facts:
    """Those of a dataset, or of the user's `own` file. Raises UserError."""
    path = FOLDER / f"{name}.yaml" if own is None else Path(own)
    if own is None and not path.exists():
        raise UserError(
            f"dataset={name}: nothing is written down of it in mmnet/dataset/facts"
            f"{nearest(name, known())}; facts=<file> names a YAML file like those"
        )
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Facts)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error


def known() -> Iterable[str]:
    """The datasets of which something is written down."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
