"""Two coloured shapes and a text about them, drawn, not read: something for every head to learn.

What is told of a sample depends on what the head learns from:

label   the text names one shape, the answer is its colour (the default)
labels  the same, and the answer is its colour and whether it is on the left and at the top
value   the same, and the answer is how far right its middle is, in percent of the width
group   the text describes the picture; all with the same shapes, colours and places are a group
match   the text describes the picture, or a picture that differs in its colours
tokens  the text describes the picture; hidden words are restored

A text that names a shape and describes as well says places only, so as not to give the colour
away; then a group shares shapes and places, and a text that does not match is wrong in these.
(It does tell where the shape is: roughly its `value`, and two of its `labels`.)

Neither modality can solve `label` alone, by construction and for any model:

* Image alone: 1/2. Samples 2k and 2k + 1 show the same picture and ask for one shape each.
* Text alone: 1/num_classes. Whatever is asked, and in whatever words, is asked once of each
  colour within a block of 2 * num_classes samples.

Both bounds hold exactly on any number of whole blocks, not just on average. `match` is 1/2 for
either alone: 2k tells the truth of their picture, 2k + 1 does not, and its text is as likely to
be true of another.
"""

import hashlib
import random
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from PIL import Image, ImageDraw

from mmnet.bounds import NonNegativeInt, PositiveInt, Range
from mmnet.interfaces import Names, Sample


COLOURS = {
    "red": (225, 45, 45),
    "green": (40, 170, 70),
    "blue": (55, 90, 225),
    "yellow": (235, 210, 50),
    "purple": (150, 60, 190),
    "orange": (240, 140, 40),
    "cyan": (60, 200, 215),
    "white": (245, 245, 245),
}
# Corners in the square [-1, 1] x [-1, 1]; the circle has none. Shapes as close as a square and a
# circle of ten pixels were told apart late, and on some seeds not at all within a short run.
SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": [],
    "bar": [(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)],
    "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
}
QUESTIONS = (
    "What colour is the {}?",
    "what color is the {}",
    "Name the colour of the {}.",
    "The {}: which color?",
    "which colour has the {}?",
    "Color of the {}, please!",
)
PLACES = ("How far right is the {}?", "the {}: how far from the left", "{}, percent of width?")
MENTIONS = ("Tell me about the {}.", "the {}, please", "Describe the {}!")
QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # row, column
QUARTER_NAMES = ("top left", "top right", "bottom left", "bottom right")
OVERSAMPLING = 4  # pictures are drawn so much larger, then averaged down: smooth edges


class Scene(NamedTuple):
    """What a picture shows: two shapes, each in a quarter of its own."""

    shapes: list[str]
    colours: list[int]
    quarters: list[int]


class Shapes:
    """The default dataset: nothing to download, learnt in a minute by both modalities together.

    seed: of the pictures and texts; train and val draw from separate streams of it.
    `data` is not used.
    """

    offers: ClassVar[tuple[str, ...]] = ("label", "labels", "value", "group", "match")
    on_bad_sample: Literal["skip", "fail"] = "fail"
    max_bad_fraction = 0.0

    def __init__(
        self,
        num_classes: Annotated[int, Range(2, 9, says="a whole number from 2 to 8")],
        image_size: PositiveInt,
        train_samples: PositiveInt,
        val_samples: PositiveInt,
        seed: NonNegativeInt,
        data: Path,
    ) -> None:
        colours = list(COLOURS)[:num_classes]
        self._colours = colours
        self.names = Names(classes=colours, labels=[*colours, "left", "top"], unit="% of the width")
        self._image_size = image_size
        self._samples = {"train": train_samples, "val": val_samples}
        self._seed = seed

    def split(self, name: str, targets: tuple[str, ...]) -> "ShapesSplit":
        stream = f"{self._seed}/{name}"
        return ShapesSplit(
            name, self._samples[name], self._colours, self._image_size, stream, targets
        )


class ShapesSplit:
    """A function from index to sample."""

    notes: dict[str, int]

    def __init__(
        self,
        name: str,
        samples: int,
        colours: list[str],
        image_size: int,
        stream: str,
        targets: tuple[str, ...],
    ) -> None:
        self._name = name
        self._samples = samples
        self._colours = colours
        self._image_size = image_size
        self._stream = stream
        self._targets = targets
        self._questions = questions(targets)
        self._describes = bool({"group", "match", "tokens"} & set(targets))
        described = f"shapes 2 {stream} {samples} {colours} {image_size} {sorted(targets)}"
        self.digest = hashlib.sha256(described.encode()).hexdigest()
        self.notes = {}

    def __len__(self) -> int:
        return self._samples

    def key(self, index: int) -> str:
        return f"{self._name}/{index}"

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        """Sample `index` = ((block * num_classes) + turn) * 2 + asked; see the module's text.

        A block chooses shapes, words and a first pair of colours; each turn moves both
        colours on by one and places the shapes anew. There is no augmentation.
        """
        pair, asked = divmod(index, 2)
        block, turn = divmod(pair, len(self._colours))
        rng = random.Random(f"{self._stream}/{block}")
        shapes = rng.sample(list(SHAPES), 2)
        first = rng.sample(range(len(self._colours)), 2)
        asking = rng.choices(self._questions or ("",), k=2)
        places = random.Random(f"{self._stream}/{block}/{turn}")
        grey, quarters = places.randrange(60), places.sample(range(4), 2)
        colours = [(colour + turn) % len(self._colours) for colour in first]
        scene = Scene(shapes, colours, quarters)
        drawn = [place(quarter, self._image_size, places) for quarter in quarters]

        sample: Sample = {}
        for target in self._targets:
            match target:
                case "label":
                    sample["label"] = colours[asked]
                case "labels":
                    row, column = QUARTERS[quarters[asked]]
                    held = [float(colours[asked] == i) for i in range(len(self._colours))]
                    sample["labels"] = [*held, float(column == 0), float(row == 0)]
                case "value":
                    sample["value"] = 100 * drawn[asked].x / (self._image_size * OVERSAMPLING)
                case "group":
                    sample["group"] = group_of(scene, coloured=not self._questions)
                case "match":
                    sample["match"] = int(asked == 0)
        if "text" in modalities:
            told = scene
            if "match" in self._targets and asked == 1:
                told = falsified(scene, len(self._colours), rng, coloured=not self._questions)
            question = asking[asked].format(shapes[asked])
            names = None if self._questions else self._colours
            caption = [describe(told, names, rng)] if self._describes else []
            sample["text"] = " ".join([*caption, *([question] if question else [])])
        if "image" in modalities:
            names = [self._colours[colour] for colour in colours]
            sample["image"] = draw(shapes, names, drawn, grey, self._image_size)
        return sample


class Spot(NamedTuple):
    """Where a shape is drawn, in pixels of the large canvas, and how bright."""

    x: float
    y: float
    radius: float
    shade: float


def questions(targets: tuple[str, ...]) -> tuple[str, ...]:
    """How to name a shape, in words that suit what is asked of it; none if nothing is."""
    asked = [target for target in ("label", "labels", "value") if target in targets]
    if len(asked) != 1:
        return MENTIONS if asked else ()
    return {"label": QUESTIONS, "labels": MENTIONS, "value": PLACES}[asked[0]]


def describe(scene: Scene, colours: list[str] | None, rng: random.Random) -> str:
    """A caption, in either order; without colours: shapes and places only."""
    parts = [
        f"a {colours[colour] + ' ' if colours else ''}{shape} {QUARTER_NAMES[quarter]}"
        for shape, colour, quarter in zip(*scene, strict=True)
    ]
    if rng.random() < 0.5:
        parts.reverse()
    return " and ".join(parts)


def falsified(scene: Scene, colours: int, rng: random.Random, *, coloured: bool) -> Scene:
    """Another scene of the same shapes, as likely in itself as the true one.

    coloured: other colours in the same places; otherwise other places.
    """
    if not coloured:
        free = [quarter for quarter in range(4) if quarter not in scene.quarters]
        moved = [*scene.quarters]
        moved[rng.randrange(2)] = rng.choice(free)
        return scene._replace(quarters=moved)
    free = [colour for colour in range(colours) if colour not in scene.colours]
    if not free or rng.random() < 0.5:
        return scene._replace(colours=scene.colours[::-1])
    changed = [*scene.colours]
    changed[rng.randrange(2)] = rng.choice(free)
    return scene._replace(colours=changed)


def group_of(scene: Scene, *, coloured: bool) -> int:
    """A number for all scenes that are described alike."""
    number = 0
    for shape, colour, quarter in sorted(zip(*scene, strict=True)):
        number = number * len(SHAPES) + list(SHAPES).index(shape)
        number = number * len(COLOURS) + (colour if coloured else 0)
        number = number * len(QUARTERS) + quarter
    return number


def place(quarter: int, image_size: int, rng: random.Random) -> Spot:
    """Somewhere in its quarter of the picture, whole."""
    side = image_size * OVERSAMPLING / 2
    row, column = QUARTERS[quarter]
    radius = side * rng.uniform(0.42, 0.48)
    x = column * side + rng.uniform(radius, side - radius)
    y = row * side + rng.uniform(radius, side - radius)
    return Spot(x, y, radius, rng.uniform(0.8, 1.0))


def draw(
    shapes: list[str], colours: list[str], spots: list[Spot], grey: int, image_size: int
) -> Image.Image:
    """RGB picture on a dark `grey`."""
    canvas = image_size * OVERSAMPLING
    image = Image.new("RGB", (canvas, canvas), (grey,) * 3)
    pen = ImageDraw.Draw(image)
    for shape, colour, (x, y, radius, shade) in zip(shapes, colours, spots, strict=True):
        fill = tuple(round(channel * shade) for channel in COLOURS[colour])
        if shape == "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        else:
            pen.polygon([(x + dx * radius, y + dy * radius) for dx, dy in SHAPES[shape]], fill=fill)
    return image.reduce(OVERSAMPLING)
