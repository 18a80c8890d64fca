"""Shards that are read in order: from a pipe, an object store, the web; nothing is mapped."""

import hashlib
import json
import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from webdataset.filters import shuffle as shuffled

from mmnet.bounds import NonNegativeInt, PositiveInt, Share
from mmnet.data.augment import Augment, augmented, enough, whole
from mmnet.data.image import read_image
from mmnet.data.sequential import Grouped, addresses, samples_of
from mmnet.data.stream import Raw
from mmnet.data.text import clean_caption
from mmnet.errors import UserError
from mmnet.interfaces import BadSample, Names, Sample


log = logging.getLogger(__name__)


@dataclass
class Stream:
    """Tar shards in webdataset's layout, from wherever bytes come in order.

    train_shards, val_shards: paths below `data`, addresses (http, s3, gs, ...; see
    data.sequential), or, with allow_pipes, pipe:<command>; {000..007} stands for eight of them.
    samples: of the train shards that make an epoch, from the first on; val_samples: of the val
    shards, which are read at the start and held in memory, None: all of them. shuffle: samples
    among which training draws the next; 0: in order. image, text: the extensions of members that
    are pictures and texts, the first that is there, or a field of the JSON (json.caption). label:
    the same of the class, below num_classes; None: there is none.

    A stream cannot be entered in the middle: a resumed run reads its epoch again up to where it
    stopped, and every rank reads all of it.
    """

    train_shards: str | list[str]
    val_shards: str | list[str]
    samples: PositiveInt | None
    val_samples: PositiveInt | None
    shuffle: NonNegativeInt
    allow_pipes: bool
    image: list[str]
    text: list[str]
    label: str | None
    num_classes: PositiveInt | None
    image_size: PositiveInt | None
    augment: Augment
    on_bad_sample: Literal["skip", "fail"]
    max_bad_fraction: Share
    data: Path

    offers: ClassVar[tuple[str, ...]] = ("label", "group")

    def __post_init__(self) -> None:
        if isinstance(self.augment, Mapping):  # as a config has it
            self.augment = Augment(**self.augment)
        self.names = Names(classes=[str(number) for number in range(self.num_classes or 0)])

    @staticmethod
    def check(
        train_shards: str | list[str],
        val_shards: str | list[str],
        samples: int | None,
        allow_pipes: bool,
        **_: Any,
    ) -> None:
        """Raises UserError."""
        if samples is None:
            raise UserError(
                "dataset.samples: a stream does not say how many samples it holds: set it to how "
                "many of dataset.train_shards make an epoch"
            )
        for key, shards in (("train_shards", train_shards), ("val_shards", val_shards)):
            addresses(shards, Path(), f"dataset.{key}", allow_pipes)

    def split(self, name: str, targets: tuple[str, ...]) -> "TrainStream | Kept":
        """Raises UserError."""
        if name not in ("train", "val"):
            raise UserError(f"split {name}: a stream has train and val")
        if "label" in targets and self.label is None:
            raise UserError("dataset.label: names no member, and the head learns from labels")
        key = f"{name}_shards"
        shards = addresses(getattr(self, key), self.data, f"dataset.{key}", self.allow_pipes)
        return (TrainStream if name == "train" else Kept)(self, shards, targets)

    def digest(self, shards: list[str], targets: tuple[str, ...]) -> str:
        """Of what is asked for: what comes is not known before it has come."""
        fields = [self.image, self.text, self.label, self.samples, self.val_samples]
        return hashlib.sha256(json.dumps([shards, targets, *fields]).encode()).hexdigest()

    def decode(
        self,
        raw: Raw,
        modalities: tuple[str, ...],
        targets: tuple[str, ...],
        rng: random.Random | None,
    ) -> Sample:
        """Raises BadSample."""
        sample: Sample = {}
        # Drawn whether the text is asked for or not, so that crops do not depend on that.
        texts = self._texts(raw)
        text = texts[0 if rng is None else rng.randrange(len(texts))] if texts else None
        if "label" in targets:
            sample["label"] = self._label(raw)
        if "group" in targets:
            sample["group"] = raw.number
        if "text" in modalities and text is not None:
            sample["text"] = clean_caption(text, raw.key)
        picture = next((raw.parts[name] for name in self.image if name in raw.parts), None)
        if "image" in modalities and picture is not None:
            size = self.image_size
            kept = 1.0 if rng is None else self.augment.random_crop
            pixels = read_image(picture, raw.key, None if size is None else enough(size, kept))
            sample["image"] = (
                whole(pixels, size)
                if rng is None
                else augmented(pixels, size, self.augment, rng, sample.get("text"))
            )
        return sample

    def _texts(self, raw: Raw) -> list[Any]:
        for name in self.text:
            found = self._field(raw, name)
            if found is not None:
                return found if isinstance(found, list) else [found]
        return []

    def _label(self, raw: Raw) -> int:
        found = self._field(raw, self.label or "")
        if found is None:
            raise BadSample(raw.key, "no label")
        try:
            label = int(found)
        except (TypeError, ValueError):
            raise BadSample(raw.key, "label is no number") from None
        if not 0 <= label < (self.num_classes or 0):
            raise BadSample(raw.key, "label is not below dataset.num_classes")
        return label

    def _field(self, raw: Raw, name: str) -> Any:
        """A member's text, or what its JSON has under a name; None where it is not there."""
        member, _, field = name.partition(".") if name.startswith("json.") else (name, "", "")
        if member not in raw.parts:
            return None
        content = raw.parts[member]
        if not field:
            return content.decode("utf-8", "replace")
        try:
            found = msgspec.json.decode(content, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise BadSample(raw.key, "malformed json") from None
        return found.get(field)


class TrainStream:
    """The train shards, epoch after epoch; see mmnet.data.stream."""

    def __init__(self, dataset: Stream, shards: list[str], targets: tuple[str, ...]) -> None:
        assert dataset.samples is not None  # see check
        self._dataset, self._shards, self._targets = dataset, shards, targets
        self._size = dataset.samples
        self.digest = dataset.digest(shards, targets)
        self.notes: dict[str, int] = {"shards": len(shards)}

    def __len__(self) -> int:
        return self._size

    def key(self, index: int) -> str:
        return f"sample {index} of the stream"

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        """Raises UserError."""
        raise UserError("dataset=stream: a stream can only be read from its beginning")

    def decode(self, raw: Raw, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        return self._dataset.decode(raw, modalities, self._targets, rng)

    def stream(self, seed: int, position: int) -> Iterator[Raw]:
        epoch, place = divmod(position, self._size)
        if place:
            log.info(
                "a stream cannot be entered in the middle: reading %d samples of epoch %d again",
                place,
                epoch,
            )
        while True:
            yield from islice(self._epoch(seed, epoch), place, None)
            epoch, place = epoch + 1, 0

    def _epoch(self, seed: int, epoch: int) -> Iterator[Raw]:
        size = self._dataset.shuffle
        raws = self._raws(epoch)
        if size == 0:
            return raws
        drawn: Iterator[Raw] = shuffled(
            size, initial=size, rng=random.Random(f"stream {seed} {epoch}")
        )(raws)
        return drawn

    def _raws(self, epoch: int) -> Iterator[Raw]:
        number = 0
        for number, (key, parts) in enumerate(samples_of(self._shards), 1):
            if number > self._size:
                if epoch == 0:
                    log.warning(
                        "dataset.samples=%d: dataset.train_shards hold more; they are not read",
                        self._size,
                    )
                return
            yield Raw(epoch, number - 1, key, parts)
        if number < self._size:
            raise UserError(
                f"dataset.samples={self._size}: dataset.train_shards hold {number} samples, or "
                f"some were lost where a shard is damaged: set it to {number} if that is right"
            )


class Kept:
    """The samples of the val shards, in memory as they came."""

    def __init__(self, dataset: Stream, shards: list[str], targets: tuple[str, ...]) -> None:
        self._dataset, self._targets = dataset, targets
        self._found: list[Grouped] = list(islice(samples_of(shards), dataset.val_samples))
        if len(self._found) < (dataset.val_samples or 1):
            raise UserError(
                f"dataset.val_samples={dataset.val_samples}: dataset.val_shards hold "
                f"{len(self._found)} samples"
            )
        self.digest = dataset.digest(shards, targets)
        held = sum(len(part) for one in self._found for part in one.parts.values())
        self.notes = {"shards": len(shards), "kilobytes held in memory": held // 1000}

    def __len__(self) -> int:
        return len(self._found)

    def key(self, index: int) -> str:
        return self._found[index].key

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        raw = Raw(0, index, *self._found[index])
        return self._dataset.decode(raw, modalities, self._targets, rng)
