"""Cornell NLVR (Suhr et al., ACL 2017): is a sentence true of a picture of three boxes?"""

import random
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import msgspec

from mmnet.bounds import PositiveInt, Range, Share
from mmnet.data.augment import whole
from mmnet.data.files import check_root, digest_of, read_json_lines, root_of
from mmnet.data.held_out import hashed, held_out
from mmnet.data.image import read_image
from mmnet.data.text import clean_caption, gist
from mmnet.errors import UserError
from mmnet.interfaces import Names, Sample


LAYOUTS = [["dev/dev.json", "dev/images"]]
TRAINING = ("train/train.json", "train/images")  # only the full release has them
PERMUTATIONS = 6  # pictures of one example: its boxes in every order


# What is read of a line, by its own names.
class Line(msgspec.Struct, gc=False):
    sentence: str
    label: Literal["true", "false"] | bool
    identifier: str
    directory: str | int


class Example(NamedTuple):
    """What a line says."""

    stem: str  # of its six pictures, below the root
    sentence: str
    true: bool


class Nlvr:
    """One sentence and one picture a sample; the label says whether the sentence is true of it.

    The authors' sentences are true more often than not, so that the majority is above one half
    (57 % of the development set).

    `root` is the folder that holds dev/; None: the one such folder at or below `data`. Where it
    holds train/ as well, these are the splits. Otherwise the sentences of dev/ are divided:
    `val_fraction` of them, by their hash, are val with all of their pictures, so that no
    sentence is in both (nor one that differs in case, spacing or its full stop).

    An example has six pictures, its boxes in every order. Training draws one of them;
    evaluation takes always the same one, number `hash of the identifier` mod 6. Pictures are
    four times as wide as high and squeezed to a square; there is no other augmentation, which
    sentences about left, right and touching would not survive.

    Raises UserError when the files are not found or malformed, or num_classes is not 2.
    """

    offers: ClassVar[tuple[str, ...]] = ("label",)
    names = Names(classes=("false", "true"))

    def __init__(
        self,
        root: str | None,
        num_classes: PositiveInt,
        image_size: PositiveInt,
        val_fraction: Annotated[float, Range(0, 1, open=True, says="a number in (0, 1)")],
        on_bad_sample: Literal["skip", "fail"],
        max_bad_fraction: Share,
        data: Path,
    ) -> None:
        if num_classes != len(self.names.classes):
            raise UserError(
                f"dataset.num_classes={num_classes}, but a sentence is either of "
                f"{len(self.names.classes)}: {', '.join(self.names.classes)}"
            )
        self.on_bad_sample = on_bad_sample
        self.max_bad_fraction = max_bad_fraction
        self._image_size, self._val_fraction = image_size, val_fraction
        self._root = root_of("nlvr", root, data, LAYOUTS)
        self._published = (self._root / "train").is_dir()
        if self._published:
            check_root("nlvr", self._root, [[*LAYOUTS[0], *TRAINING]])

    def split(self, name: str, targets: tuple[str, ...]) -> "NlvrSplit":
        """The samples of "train" or "val", in the order of the file. Raises UserError."""
        folder = "train" if self._published and name == "train" else "dev"
        path = self._root / folder / f"{folder}.json"
        examples = read_examples(path, folder)
        if not self._published:
            held = held_out((gist(one.sentence) for one in examples), self._val_fraction)
            wanted = name == "val"
            examples = [one for one in examples if (gist(one.sentence) in held) == wanted]
        if not examples:
            raise UserError(f"{path}: too few sentences, {name} would be empty")
        return NlvrSplit(self._root, examples, self._image_size, targets)


class NlvrSplit:
    """Examples with their pictures."""

    notes: dict[str, int]

    def __init__(
        self, root: Path, examples: list[Example], image_size: int, targets: tuple[str, ...]
    ) -> None:
        self._root, self._examples, self._image_size = root, examples, image_size
        self._targets = targets
        self.digest = digest_of(examples)
        self.notes = {"sentences": len({example.sentence for example in examples})}

    def __len__(self) -> int:
        return len(self._examples)

    def key(self, index: int) -> str:
        return self._examples[index].stem

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        stem, sentence, true = self._examples[index]
        sample: Sample = {}
        if "label" in self._targets:
            sample["label"] = int(true)
        if "text" in modalities:
            sample["text"] = clean_caption(sentence, stem)
        if "image" in modalities:
            which = hashed(stem) % PERMUTATIONS if rng is None else rng.randrange(PERMUTATIONS)
            picture = read_image(self._root / f"{stem}-{which}.png", stem)
            sample["image"] = whole(picture, self._image_size)
        return sample


def read_examples(path: Path, folder: str) -> list[Example]:
    """The lines of a file. Raises UserError naming the line that is malformed or given twice."""
    examples = []
    lines: dict[str, int] = {}
    for number, line in read_json_lines(path, Line):
        directory = str(line.directory)
        for part in (directory, line.identifier):
            if "/" in part or "\\" in part or part in ("", ".", ".."):
                raise UserError(
                    f"{path}, line {number}: {part!r} is no part of a file's name; expected an "
                    f"identifier such as 2536-0 and a directory such as 0"
                )
        stem = f"{folder}/images/{directory}/{folder}-{line.identifier}"
        if (first := lines.setdefault(stem, number)) != number:
            raise UserError(
                f"{path}, line {number}: identifier {line.identifier} is also on line {first}"
            )
        examples.append(Example(stem, line.sentence, line.label in (True, "true")))
    return examples
