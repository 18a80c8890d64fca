"""Handwritten digits with their number in words; now and then one of the two is of no use.

The pictures are scikit-learn's copy of UCI's optical digits (Alpaydin and Kaynak, 1998): 1,797
of 8 x 8 pixels, real handwriting. Everything else is drawn: in a share `text_noise` of the
samples the words name another digit, each of the others as often; in a share `image_noise`,
chosen independently, the picture is static, each pixel a random grey. A picture shows that it
is static; a text does not show that it is wrong. So the best that any model can do on `label`,
with K = num_classes, is

* from the text alone: 1 - text_noise (0.85 at the defaults), by construction;
* from the picture alone: 1 - image_noise * (1 - 1/K) (0.865), if it reads all that can be read;
* from both: 1 - image_noise * text_noise (0.9775): the picture where there is one, else the text.

On val the noisy shares, and the share that is noisy in both, are these numbers exactly, rounded
to whole samples, and not just on average.

What is told of a sample depends on what the head learns from:

label, value  the digit; the text is wrong as often as said
group         the digit; no text is wrong, so that it fits every picture of its group
match         whether the text names the digit, which it does half the time; not otherwise wrong
"""

import hashlib
import random
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmnet.bounds import NonNegativeInt, PositiveInt, Range, Share
from mmnet.data.held_out import hashed, held_out
from mmnet.data.pairs import fits
from mmnet.interfaces import Names, Sample


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHRASES = (
    "the number {word}",
    "it says {word}",
    "{word}, I think",
    "looks like a {word}",
    "This is {word}.",
    "{figure}?",
    "number {figure}",
    "I read {figure}",
)
VAL_FRACTION = 0.2
SIDE = 8  # pixels of the originals
INK = 16  # their darkest value; 0 is paper


class Noise(NamedTuple):
    """How often a modality is of no use."""

    text: float
    image: float


class Digits:
    """Ten digits, a class each: quick to learn, and better from both modalities than from one.

    A fifth of the pictures, by a hash of their number, is val, whatever the seed. Evaluation
    meets each picture with one fixed text and noise; training draws them anew each time.

    num_classes: digits below it. seed: of texts and noise. `data` is not used: the pictures
    come with scikit-learn.
    """

    offers: ClassVar[tuple[str, ...]] = ("label", "value", "group", "match")
    on_bad_sample: Literal["skip", "fail"] = "fail"
    max_bad_fraction = 0.0

    def __init__(
        self,
        num_classes: Annotated[int, Range(2, 11, says="a whole number from 2 to 10")],
        image_size: PositiveInt,
        text_noise: Share,
        image_noise: Share,
        seed: NonNegativeInt,
        data: Path,
    ) -> None:
        # Imported here: it takes a second, and the command line waits for nothing of it.
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        self.names = Names(classes=[str(digit) for digit in range(num_classes)])
        self._image_size, self._seed = image_size, seed
        self._noise = Noise(text_noise, image_noise)
        published = load_digits()
        self._pictures = (255 - published.images * (255 / INK)).round().astype(np.uint8)
        self._digits: list[int] = published.target.tolist()
        self._held = held_out(map(str, range(len(self._digits))), VAL_FRACTION)

    def split(self, name: str, targets: tuple[str, ...]) -> "DigitsSplit":
        """The digits of "train" or "val", in the order of the published file."""
        numbers = [
            number
            for number, digit in enumerate(self._digits)
            if (str(number) in self._held) == (name == "val") and digit < len(self.names.classes)
        ]
        return DigitsSplit(
            name,
            self._pictures[numbers],
            [self._digits[number] for number in numbers],
            len(self.names.classes),
            self._image_size,
            self._noise,
            f"{self._seed}/{name}",
            targets,
        )


class DigitsSplit:
    """Pictures and digits; words and noise are a function of seed, index and `rng`."""

    notes: dict[str, int]

    def __init__(
        self,
        name: str,
        pictures: npt.NDArray[np.uint8],
        digits: list[int],
        num_classes: int,
        image_size: int,
        noise: Noise,
        stream: str,
        targets: tuple[str, ...],
    ) -> None:
        self._name, self._stream, self._targets = name, stream, targets
        self._pictures, self._digits, self._num_classes = pictures, digits, num_classes
        self._image_size = image_size
        # Texts that a picture's group or match depends on are not wrong by chance as well.
        self._noise = noise._replace(text=0.0) if {"group", "match"} & set(targets) else noise
        wrong = some(range(len(digits)), self._noise.text, f"{stream}/wrong")
        right = [index for index in range(len(digits)) if index not in wrong]
        static = (some(part, self._noise.image, f"{stream}/static") for part in (wrong, right))
        self._wrong, self._static = wrong, set().union(*static)
        described = f"digits 1 {stream} {num_classes} {image_size} {noise} {sorted(targets)}"
        self.digest = hashlib.sha256(described.encode() + pictures.tobytes()).hexdigest()
        self.notes = {}

    def __len__(self) -> int:
        return len(self._digits)

    def key(self, index: int) -> str:
        return f"{self._name}/{index}"

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        digit = self._digits[index]
        anew = "" if rng is None else f"/{rng.getrandbits(64)}"
        chance = random.Random(f"{self._stream}/{index}{anew}")
        wrong, static = (index in self._wrong, index in self._static)
        if rng is not None:
            wrong = chance.random() < self._noise.text
            static = chance.random() < self._noise.image
        sample: Sample = {}
        for target in self._targets:
            match target:
                case "label":
                    sample["label"] = digit
                case "value":
                    sample["value"] = float(digit)
                case "group":
                    sample["group"] = digit
                case "match":
                    wrong = not fits(index, None if rng is None else chance)
                    sample["match"] = int(not wrong)
        if "text" in modalities:
            named = digit
            if wrong:
                named = (digit + chance.randrange(1, self._num_classes)) % self._num_classes
            phrase = chance.choice(PHRASES)
            sample["text"] = phrase.format(word=WORDS[named], figure=named)
        if "image" in modalities:
            pixels = self._pictures[index]
            if static:
                drawn = random.Random(f"{self._stream}/{index}{anew}/static").randbytes(SIDE**2)
                pixels = np.frombuffer(drawn, np.uint8).reshape(SIDE, SIDE)
            sides = (self._image_size, self._image_size)
            picture = Image.fromarray(pixels).resize(sides, Image.Resampling.BILINEAR)
            sample["image"] = picture.convert("RGB")
        return sample


def some(indices: Collection[int], fraction: float, salt: str) -> set[int]:
    """`fraction` of them, rounded to whole ones, picked by hash."""
    by_hash = sorted(indices, key=lambda index: hashed(f"{salt}/{index}"))
    return set(by_hash[: round(fraction * len(by_hash))])
