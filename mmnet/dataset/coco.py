"""MS COCO captions (Lin et al., arXiv 1405.0312), from the published files as they unpack."""

import random
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from mmnet.bounds import PositiveInt, Range, Share
from mmnet.data.augment import Augment, augmented, whole
from mmnet.data.coco_files import (
    Captions,
    Categories,
    Instances,
    held_of,
    labels_of,
    names_of,
    supercategories,
    texts_of,
)
from mmnet.data.files import digest_of, lacking, read_json, root_of
from mmnet.data.image import read_image
from mmnet.data.pairs import another, fits
from mmnet.data.text import clean_caption, gist
from mmnet.errors import UserError
from mmnet.interfaces import Names, Sample


KINDS = ("captions", "instances")
SPLITS = ("train", "val")
EDITIONS = ("2017", "2014")
LAYOUTS = [
    [f"annotations/{kind}_{split}{edition}.json" for kind in KINDS for split in SPLITS]
    + [f"{split}{edition}" for split in SPLITS]
    for edition in EDITIONS
]


class View(NamedTuple):
    """How a photo becomes a picture of the network's size."""

    image_size: int | None
    crop_scale: float
    flip_probability: float


class Photograph(NamedTuple):
    """What the files say of one photo."""

    name: str
    label: int  # of its largest instance
    labels: tuple[int, ...]  # of all its instances, each once
    instances: int  # of its instances
    captions: tuple[str, ...]


class Coco:
    """Photos with captions; the label is the supercategory of the photo's largest instance.

    Also to be learnt: all supercategories in it (labels), how many instances it has (value),
    which photo a caption belongs to (group), and whether it belongs to this one (match: half
    of the texts are captions of another photo, each as likely as any other).

    Largest by `area`, the lowest id among equals; crowd regions (iscrowd=1) are no
    instances. The classes are the supercategories in the order of the file's categories.
    Photos without an instance or a caption are left out.

    `root` is the folder that holds annotations/ beside train2017/ and val2017/ (or 2014, if
    there is no 2017); None: the one such folder at or below `data`. Training draws one of a
    photo's captions, a random crop and a mirroring; evaluation takes the whole photo with the
    caption of the lowest id, or, where captions are told apart by photo (group), with each of
    its captions in turn.

    With `image_size` None photos keep their shape, for an encoder that takes any.

    Raises UserError when the files are not found, are malformed or disagree with num_classes.
    """

    offers: ClassVar[tuple[str, ...]] = ("label", "labels", "value", "group", "match")

    def __init__(
        self,
        root: str | None,
        num_classes: PositiveInt,
        image_size: PositiveInt | None,
        crop_scale: Annotated[float, Range(0, 1 + 1e-12, open=True, says="a number in (0, 1]")],
        flip_probability: Share,
        on_bad_sample: Literal["skip", "fail"],
        max_bad_fraction: Share,
        data: Path,
    ) -> None:
        self.on_bad_sample = on_bad_sample
        self.max_bad_fraction = max_bad_fraction
        self._view = View(image_size, crop_scale, flip_probability)
        self._root = root_of("coco", root, data, LAYOUTS)
        self._edition = next(
            edition
            for edition, layout in zip(EDITIONS, LAYOUTS, strict=True)
            if not lacking(self._root, [layout])
        )
        # Both splits list the categories, and this file is a twentieth of the other.
        path = self._path("instances", "val")
        classes = supercategories(read_json(path, Categories).categories)
        self.names = Names(classes=classes, labels=classes, unit="instances")
        if len(classes) != num_classes:
            raise UserError(
                f"dataset.num_classes={num_classes}, but {path} has {len(classes)} "
                f"supercategories: {', '.join(classes)}"
            )

    def split(self, name: str, targets: tuple[str, ...]) -> "CocoSplit":
        """The samples of "train" or "val", ordered by image id. Raises UserError, see above."""
        instances_path, captions_path = self._path("instances", name), self._path("captions", name)
        instances = read_json(instances_path, Instances)
        captions = read_json(captions_path, Captions)
        if (found := supercategories(instances.categories)) != self.names.classes:
            raise UserError(
                f"{instances_path}: supercategories {', '.join(found)}, but those of val are "
                f"{', '.join(self.names.classes)}"
            )
        labels = labels_of(instances, self.names.classes, instances_path)
        held = held_of(instances, self.names.classes)
        texts = texts_of(captions)
        photos = names_of({captions_path: captions.images, instances_path: instances.images})

        both = sorted(photos.keys() & labels.keys() & texts.keys())
        notes = {
            "images without instances": len(photos.keys() - labels.keys()),
            "images without captions": len(photos.keys() - texts.keys()),
            "annotated images that are not listed": len(
                (labels.keys() | texts.keys()) - photos.keys()
            ),
        }
        notes = {what: count for what, count in notes.items() if count}
        if not both:
            raise UserError(
                f"{captions_path} and {instances_path.name}: no image has both a caption and an "
                f"instance, {name} would be empty ({notes or 'no images at all'})"
            )
        listed = [
            Photograph(
                photos[image],
                labels[image],
                tuple(sorted(set(held[image]))),
                len(held[image]),
                texts[image],
            )
            for image in both
        ]
        return CocoSplit(
            self._root / f"{name}{self._edition}",
            listed,
            notes,
            self._view,
            targets,
            len(self.names.labels),
            each_caption=name != "train" and "group" in targets,
        )

    def _path(self, kind: str, split: str) -> Path:
        return self._root / "annotations" / f"{kind}_{split}{self._edition}.json"


class CocoSplit:
    """Photos of one folder with their labels and captions."""

    def __init__(
        self,
        folder: Path,
        photos: list[Photograph],
        notes: dict[str, int],
        view: View,
        targets: tuple[str, ...],
        num_labels: int,
        *,
        each_caption: bool,
    ) -> None:
        self._folder, self._photos, self._view, self._targets = folder, photos, view, targets
        self._num_labels, self._each_caption = num_labels, each_caption
        self.notes = notes
        # A sample is a photo; or, where each caption counts, one of a photo's captions.
        self._samples = [
            (number, caption)
            for number, photo in enumerate(photos)
            for caption in range(len(photo.captions) if each_caption else 1)
        ]
        self.digest = digest_of(photos)

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        number, which = self._samples[index]
        name = f"{self._folder.name}/{self._photos[number].name}"
        return f"{name}#{which}" if self._each_caption else name

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        number, which = self._samples[index]
        photo = self._photos[number]
        sample: Sample = {}
        # Drawn whether the text is asked for or not, so that crops do not depend on that.
        caption = photo.captions[which] if rng is None else rng.choice(photo.captions)
        if "match" in self._targets:
            wrong = None if fits(index, rng) else self._of_another(number, which, rng)
            sample["match"] = int(wrong is None)
            caption = caption if wrong is None else wrong
        for target in self._targets:
            match target:
                case "label":
                    sample["label"] = photo.label
                case "labels":
                    sample["labels"] = [float(i in photo.labels) for i in range(self._num_labels)]
                case "value":
                    sample["value"] = float(photo.instances)
                case "group":
                    sample["group"] = number
        if "text" in modalities:
            sample["text"] = clean_caption(caption, self.key(index))
        if "image" in modalities:
            size, crop_scale, flip_probability = self._view
            # Twice the size: what a crop loses leaves enough pixels for its resizing.
            path = self._folder / photo.name
            at_least = None if size is None else 2 * size
            picture = read_image(path, self.key(index), at_least)
            sample["image"] = (
                whole(picture, size)
                if rng is None
                else augmented(
                    picture,
                    size,
                    Augment(crop_scale, flip_probability, None, None, True, True, 0, 0),
                    rng,
                )
            )
        return sample

    def _of_another(self, number: int, which: int, rng: random.Random | None) -> str | None:
        """A caption of another photo that shares none with this one; None if all do."""
        own = {gist(caption) for caption in self._photos[number].captions}

        def shares(other: int) -> bool:
            return any(gist(caption) in own for caption in self._photos[other].captions)

        other = another(number, len(self._photos), rng, shares)
        if other is None:
            return None
        captions = self._photos[other].captions
        return captions[which % len(captions)] if rng is None else rng.choice(captions)
