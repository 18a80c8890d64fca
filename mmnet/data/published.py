"""What datasets that are read from files have in common: finding, splitting, sampling.

A format is a class that says in `records` what its files hold. It derives from Pictures (with
texts, mostly) or Texts, and from Splits (where the publisher says what is for training) or
Drawn (where nobody does). See mmnet/dataset/flickr30k.py for one.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mmnet.bounds import NonNegativeInt, PositiveInt, Range, Share
from mmnet.data.augment import Augment, augmented, enough, whole
from mmnet.data.files import inside, layout_of, root_of
from mmnet.data.image import cut, read_image, why
from mmnet.data.passages import passages
from mmnet.data.record_split import RecordSplit
from mmnet.data.records import Found, Record, mixed, table_of
from mmnet.data.scratch import own
from mmnet.errors import UserError, nearest
from mmnet.interfaces import BadSample


# Fields of a record that say what a target is; the others are there of every sample.
HOLDING = {"label": ("label",), "labels": ("present", "absent"), "value": ("value",)}

HalfOpen = Annotated[float, Range(0, 1, open=True, says="a number in (0, 1)")]


@dataclass
class Published:
    """The samples of a folder, as its files describe them.

    root: the folder, which holds every part of one of `layouts`; None: the one such folder at or
    below `data`. Raises UserError when it is not found, or when its files are malformed.
    """

    root: str | None
    on_bad_sample: Literal["skip", "fail"]
    max_bad_fraction: Share
    data: Path

    title: ClassVar[str]  # what it is called in conf/dataset
    # What tells its folder from others: paths below it, * and ? being wild; see data.files.
    layouts: ClassVar[list[list[str]]]
    offers: ClassVar[tuple[str, ...]]
    remedy: ClassVar[str] = ""  # said where a split is empty
    unsaid: ClassVar[float] = 0.0  # of a label that a record neither names nor denies; NaN: unknown

    def __post_init__(self) -> None:
        self.folder = root_of(self.title, self.root, self.data, self.layouts, self.accepts)
        self.layout = layout_of(self.folder, self.layouts)  # the number of the one it has
        self.table = table_of(self.title, self.read, self.sources(), self.settings())
        self.names = self.table.names
        self.check_classes()

    # What a format says

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        """Whether a folder of one of the layouts is one, where names of files say too little."""
        return True

    def records(self, found: Found) -> Iterable[Record]:
        """Everything that the files describe, in their order; notes and names go to `found`.

        Raises UserError for files that are not of the format, naming file and line.
        """
        raise NotImplementedError

    def sources(self) -> list[Path]:
        """The files that `records` reads, and the folders that it lists."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Those of its settings that `records` depends on, by name."""
        return {}

    def picture(self, place: str) -> Path | bytes:
        """The picture that a record's `image` names. Raises OSError or BadSample."""
        if not inside(place):
            raise OSError(f"{place!r} leads out of the dataset's folder")
        return self.folder / place

    # What all do alike

    @property
    def drawn(self) -> bool:
        """Whether the settings divide it, and not its publisher."""
        return False

    def read(self, found: Found) -> Iterable[Record]:
        """The records as they are kept."""
        return self.records(found)

    def split(self, name: str, targets: tuple[str, ...]) -> RecordSplit:
        """The samples of "train" or "val" or of a published split. Raises UserError."""
        rows = self.rows(name)
        if len(rows) == 0:
            notes = ", ".join(f"{what}: {count:,}" for what, count in self.table.notes.items())
            raise UserError(
                f"dataset={self.title}: of the {len(self.table):,} samples of {self.folder} none "
                f"is for {name}{self.remedy}{f' ({notes})' if notes else ''}"
            )
        left_out = dict(self.table.notes)
        for target in targets:
            there = self._told(target)[rows]
            if not there.any():
                raise UserError(
                    f"dataset={self.title}: no sample of {self.folder} that is for {name} has "
                    f"{target}, so that a head can neither learn it there nor be measured by it"
                )
            if not there.all():
                left_out[f"{name}: samples without {target}"] = int((~there).sum())
                rows = rows[there]
        return RecordSplit(self, name, rows, targets, left_out)

    def learnable(self, name: str) -> tuple[str, ...]:
        """Those of `offers` that a split has: its settings and its publisher may say less."""
        rows = self.rows(name)
        return tuple(target for target in self.offers if self._told(target)[rows].any())

    def _told(self, target: str) -> npt.NDArray[np.bool_]:
        """Of which records something is said of a target."""
        held = [
            pc.is_valid(self.table.column(column)).to_numpy() for column in HOLDING.get(target, ())
        ]
        return np.logical_or.reduce(held) if held else np.ones(len(self.table), bool)

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        """The numbers of the records of a split. Raises UserError for a name that is not known."""
        raise NotImplementedError

    def check_classes(self) -> None:
        """Raises UserError unless num_classes is as many as there are."""
        asked, classes = getattr(self, "num_classes", None), self.names.classes
        if asked is not None and classes and asked != len(classes):
            some = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            raise UserError(
                f"dataset.num_classes={asked}, but {self.folder} has {len(classes)}: {some}"
            )


@dataclass
class Splits(Published):
    """Published with its splits.

    train_split, val_split: which of the published splits are trained on and evaluated.
    """

    train_split: list[str]
    val_split: list[str]

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        roles = {"train": self.train_split, "val": self.val_split}
        asked = roles.get(name, [name])
        counts = {
            entry["values"].as_py(): entry["counts"].as_py()
            for entry in pc.value_counts(self.table.column("split"))
        }
        for split in asked:
            if split not in counts:
                key = f"dataset.{name}_split={split}" if name in roles else f"split {split}"
                there = ", ".join(f"{name} ({count:,})" for name, count in counts.items())
                raise UserError(
                    f"{key}: {self.folder} has no such samples{nearest(split, counts)}; "
                    f"it has {there or 'none'}"
                )
        chosen = pc.is_in(self.table.column("split"), pa.array(asked))
        return np.flatnonzero(chosen.to_numpy())


@dataclass
class Drawn(Published):
    """Published without splits: a sample is val by a hash of its group.

    So a sample stays where it is when others are added, and samples of one group stay together.
    """

    split_seed: NonNegativeInt
    val_fraction: HalfOpen

    remedy: ClassVar[str] = "; dataset.val_fraction says how many are for val"

    @property
    def drawn(self) -> bool:
        return True

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        if name not in ("train", "val"):
            raise UserError(
                f"split {name}: {self.title} is published without splits; there are train and val"
            )
        if len(self.table) == 0:
            return np.zeros(0, np.int64)
        held = mixed(self.table.column("hash").to_numpy(), self.split_seed)
        is_val = held < np.uint64(int(self.val_fraction * 2**64))
        return np.flatnonzero(is_val == (name == "val"))


@dataclass
class SplitsIfAny(Splits, Drawn):
    """Published with its splits in some editions: without them in the others, where they are
    drawn."""

    remedy: ClassVar[str] = ""

    @property
    def drawn(self) -> bool:
        return not pc.any(pc.not_equal(self.table.column("split"), "")).as_py()

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        return Drawn.rows(self, name) if self.drawn else Splits.rows(self, name)


@dataclass
class Pictures(Published):
    """Published with pictures.

    image_size: pixels a side; None: pictures keep their shape, for an encoder that takes any.
    """

    image_size: PositiveInt | None
    augment: Augment

    mirrored: ClassVar[bool] = True  # whether a mirrored picture is still what its text says

    def __post_init__(self) -> None:
        if isinstance(self.augment, Mapping):  # as a config has it
            self.augment = Augment(**self.augment)
        if self.augment.random_flip > 0 and not self.mirrored:
            raise UserError(
                f"dataset.augment.random_flip={self.augment.random_flip}: {self.title} is not to "
                f"be mirrored, for its texts tell left from right; expected 0"
            )
        super().__post_init__()

    def view(
        self,
        place: str,
        key: str,
        record: Record,
        rng: random.Random | None,
        text: str | None = None,
    ) -> Tensor:
        """uint8 [3, H, W] as the network is shown it, beside `text`."""
        at_least = None
        if self.image_size is not None and record.box is None:
            at_least = enough(self.image_size, 1.0 if rng is None else self.augment.random_crop)
        try:
            source = self.picture(place)
        except OSError as error:
            raise BadSample(key, why(error)) from error
        picture = read_image(source, key, at_least, lend=True)
        if record.box is not None:
            picture = cut(picture, record.box, key)
        if record.turn:
            picture = torch.rot90(picture, record.turn, (1, 2))
        if rng is None:
            return own(whole(picture, self.image_size), picture)
        return own(augmented(picture, self.image_size, self.augment, rng, text), picture)


@dataclass
class Texts(Published):
    """Published as texts alone.

    passage: characters. A longer text is divided where a paragraph, a sentence or a word ends,
    into samples of at most so many, which stay on one side of a split. None: it stays whole, and
    what is beyond the largest text that is read is not.
    """

    passage: PositiveInt | None

    def settings(self) -> dict[str, Any]:
        return {"passage": self.passage}

    def read(self, found: Found) -> Iterable[Record]:
        return passages(self.records(found), self.passage)
