"""Datasets of the Hugging Face hub as files: Parquet or Arrow, pictures inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmnet.data.tables import BINARY
from mmnet.data.tabular import Tabular
from mmnet.errors import UserError, nearest


@dataclass
class Hf(Tabular):
    """Rows of local Parquet or Arrow files, in the folder or one below (data/, default/train/).

    Pictures are a column of structs (bytes, path), of bytes, or of paths; it is found by its
    type, the others by their names (caption, text, ...; label; labels; split) or by settings.
    Names of classes are taken from what `datasets` wrote into the files; a label of -1 is none.
    Splits are those of the column, else of the files' names (train-00000-of-00001.parquet), else
    drawn. Pictures inside of files are copied once into the cache, where each can be read alone.

    file: which files, below the root, with * and ?; None: all.

    Raises UserError where a file is damaged or lacks a column that a setting names.
    """

    file: str | None
    image: str | None
    caption: str | None
    label: str | None
    labels: str | None
    value: str | None
    split_column: str | None

    title: ClassVar[str] = "hf"
    layouts: ClassVar[list[list[str]]] = [
        [f"{folder}*{kind}"] for folder in ("", "data/", "train/", "*/train/") for kind in BINARY
    ]

    def tables(self) -> list[Path]:
        patterns = [f"{depth}*{kind}" for depth in ("", "*/", "*/*/") for kind in BINARY]
        several = [self.folder.glob(one) for one in ([self.file] if self.file else patterns)]
        found = sorted({path for some in several for path in some if path.is_file()})
        if not found:
            near = nearest(str(self.file), [path.name for path in self.folder.iterdir()])
            raise UserError(f"dataset.file={self.file}: {self.folder} has no such file{near}")
        return [path for path in found if not path.name.startswith(".")]

    def asked(self) -> dict[str, str | None]:
        roles = ("image", "caption", "label", "labels", "value")
        return {**{role: getattr(self, role) for role in roles}, "split": self.split_column}
