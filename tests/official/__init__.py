"""Small datasets at the publishers' own paths, made for tests: real annotation files where there
are some, pictures drawn. One module a dataset, each with

    make(folder, data)   writes one that can be trained on; `data` is the sample data
    WORDS                what a run of it needs beside dataset=<name>
    CHANGES              other values of its own settings, by key, that change what is read
    make_drawn(...)      the same of an edition without splits, where others have some
"""

import importlib
from pathlib import Path
from types import ModuleType

from PIL import Image, ImageDraw

from mmnet.config import CONF
from mmnet.data.augment import Augment


# Of conf/dataset, those that have no module here: nothing is read, real pictures are at hand, or
# they are no publisher's: mix is made of others, and a stream is not found by its files.
OTHERS = ("shapes", "digits", "coco", "nlvr", "openmoji", "mix", "stream")
NAMES = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml") if path.stem not in OTHERS)


def official(name: str) -> ModuleType:
    """The module of a dataset."""
    return importlib.import_module(f"tests.official.{name}")


def cropped(share: float, flip: float = 0.0) -> Augment:
    """Crops and mirroring, whatever the text says, and nothing else."""
    return Augment(
        random_crop=share,
        random_flip=flip,
        color_jitter=None,
        policy=None,
        mind_text=False,
        normalize=True,
        mixup=0.0,
        cutmix=0.0,
    )


def draw(
    path: Path,
    seed: int = 0,
    size: tuple[int, int] = (48, 40),
    mode: str = "RGB",
    kind: str | None = None,
) -> None:
    """A picture told from others by its colours, in the format of its suffix, or in another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (37 * seed % 256, 91 * seed % 256, 151 * seed % 256)
    image = Image.new("RGB", size, colour)
    pen = ImageDraw.Draw(image)
    pen.ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill="white")
    image.convert(mode).save(path, kind, quality=90)
