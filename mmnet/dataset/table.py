"""A user's own table: a row a sample, with the path of a picture, a caption, a label, a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmnet.data.column_roles import ALIASES
from mmnet.data.tables import KINDS, columns_of
from mmnet.data.tabular import Tabular
from mmnet.errors import UserError, nearest


USUAL = {alias for role in ("image", "caption") for alias in ALIASES[role]}


@dataclass
class Table(Tabular):
    """Rows of CSV, TSV, JSON (a list of objects, or one a line) or Parquet.

    Columns are found by their usual names (image_path, image, file_name, ...; caption, text, ...;
    label, class, category; labels, tags; split) in any case, or named by settings. Several
    captions are a list, or several rows of one picture. Without a column of splits the names of
    the files say them (train.csv, val.csv), or they are drawn.

    file: which of the folder's tables, with * and ?; None: all that have such columns. images:
    the folder that paths are relative to, from the root; None: where the first ones are.

    Raises UserError where a table is malformed, naming file and line, and where a path leads out
    of the folder of the pictures.
    """

    file: str | None
    images: str | None
    image: str | None
    caption: str | None
    label: str | None
    labels: str | None
    value: str | None
    split_column: str | None

    title: ClassVar[str] = "table"
    layouts: ClassVar[list[list[str]]] = [
        ["*.csv"],
        ["*.tsv"],
        ["*.jsonl"],
        ["*.ndjson"],
        ["*.json"],
        ["*.parquet"],
    ]

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        return any(_usable(path, {}) for path in _tables(folder))

    def tables(self) -> list[Path]:
        if self.file is None:
            found = [path for path in _tables(self.folder) if _usable(path, self.asked())]
            return found or _tables(self.folder)
        found = sorted(path for path in self.folder.glob(self.file) if path.is_file())
        if not found:
            near = nearest(self.file, [path.name for path in _tables(self.folder)])
            raise UserError(f"dataset.file={self.file}: {self.folder} has no such file{near}")
        return found

    def asked(self) -> dict[str, str | None]:
        roles = ("image", "caption", "label", "labels", "value")
        return {**{role: getattr(self, role) for role in roles}, "split": self.split_column}

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "images": self.images}

    def pictures_in(self, table: Path) -> str | None:
        if self.images is not None and not (self.folder / self.images).is_dir():
            raise UserError(f"dataset.images={self.images}: no folder of {self.folder}")
        return self.images


def _tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)


def _usable(path: Path, asked: dict[str, str | None]) -> bool:
    """Whether a table has columns of samples, or should have and is broken."""
    try:
        columns = columns_of(path)
    except UserError:
        return path.suffix.lower() != ".json"  # which may be anything
    named = {column for column in asked.values() if column is not None}
    plain = {"".join(c for c in column.lower() if c.isalnum()) for column in columns}
    return bool(named & set(columns)) or bool(USUAL & plain)
