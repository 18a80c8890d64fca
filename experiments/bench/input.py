"""How many pictures a core makes ready for training: mmnet against the usual pipelines.

From the bytes of a JPEG to a batch: decoded, cropped at random, mirrored, its colours changed.
mmnet hands bytes to the device and normalises there; the others normalise each picture.
"""

import io
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common
from mmnet.data.augment import Augment, augmented, enough, resized
from mmnet.data.image import read_image
from mmnet.data.loader import Reading, train_steps
from mmnet.data.scratch import own
from mmnet.encoder.image.timm import Resize
from mmnet.interfaces import Sample


SIZE, BATCH = 224, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = (0.4, 0.4, 0.4, 0.1)
CPU = torch.device("cpu")


def photo(number: int) -> bytes:
    """A JPEG of 500 x 375 or 375 x 500 with blots of all sizes, edges and grain: about 57 KB."""
    rng = np.random.default_rng(number)
    width, height = (500, 375) if number % 3 else (375, 500)
    picture = 128 + 5 * rng.standard_normal((height, width, 1)) + np.zeros(3)
    for fineness, strength in ((4, 90), (12, 50), (40, 25), (120, 12)):
        sides = (max(2, height * fineness // 500), max(2, width * fineness // 500))
        for channel in range(3):
            blots = Image.fromarray(rng.standard_normal(sides).astype(np.float32))
            large = blots.resize((width, height), Image.Resampling.BICUBIC)
            picture[..., channel] += strength * np.asarray(large)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        wide, high = rng.integers(5, 120, 2).tolist()
        colour = tuple(int(value) for value in rng.integers(0, 255, 3))
        pen.ellipse((x, y, x + wide, y + high), outline=colour, width=int(rng.integers(1, 5)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


class Photos:
    """A split of them, each read as a dataset of pictures reads it."""

    digest, notes = "", dict[str, int]()

    def __init__(self, files: list[bytes], how: Augment) -> None:
        self.files, self.how = files, how
        self.at_least = enough(SIZE, how.random_crop)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        return str(index)

    def sample(self, index: int, modalities: Any, rng: random.Random | None) -> Sample:
        assert rng is not None
        picture = read_image(self.files[index], "k", self.at_least, lend=True)
        return {"image": own(augmented(picture, SIZE, self.how, rng), picture), "label": 0}


def ours(files: list[bytes], **changes: Any) -> Callable[[], float]:
    """Seconds of CPU for one batch, of mmnet's loader."""
    settings: dict[str, Any] = {"random_crop": 0.08, "random_flip": 0.5, "color_jitter": None}
    rest = {"policy": None, "mind_text": True, "normalize": True, "mixup": 0, "cutmix": 0}
    split = Photos(files, Augment(**settings | rest | changes))
    steps = train_steps(
        split,
        Reading({"image": Resize(SIZE)}, ("label",)),
        batch_size=BATCH,
        micro_batch_size=BATCH,
        seed=0,
        first_step=1,
        last_step=10**9,
        num_workers=0,
        device=CPU,
    )
    return timed(lambda: next(steps))


def usual(files: list[bytes], transform: Callable[[Image.Image], Tensor]) -> Callable[[], float]:
    """Seconds of CPU for one batch: Pillow, a transform, default_collate."""
    turn = iter(range(10**9))

    def sample() -> tuple[Tensor, int]:
        data = files[next(turn) % len(files)]
        return transform(Image.open(io.BytesIO(data)).convert("RGB")), 0

    return timed(lambda: default_collate([sample() for _ in range(BATCH)]))


def timed(make: Callable[[], object]) -> Callable[[], float]:
    def once() -> float:
        began = time.process_time()
        make()
        return (time.process_time() - began) / BATCH

    once()  # what is done once
    return once


def usual_transform(jitter: bool) -> transforms.Compose:
    colours = [transforms.ColorJitter(*JITTER)] if jitter else []
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            *colours,
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def fidelity(files: list[bytes]) -> tuple[list[float], list[float]]:
    """Mean difference, of 255, from Pillow's picture and from its antialiased crops."""
    decoded, crops = [], []
    rng = random.Random(0)
    for data in files:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        picture = read_image(data, "k")
        decoded.append(apart(picture, image))
        for _ in range(4):
            left, top = (rng.randrange(side // 2) for side in image.size)
            right, bottom = (rng.randint(s // 2 + 20, s) for s in image.size)
            theirs = image.crop((left, top, right, bottom)).resize(
                (SIZE, SIZE), Image.Resampling.BILINEAR
            )
            crops.append(apart(resized(picture[:, top:bottom, left:right], (SIZE, SIZE)), theirs))
    return decoded, crops


def apart(picture: Tensor, image: Image.Image) -> float:
    theirs = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return float((picture.float() - theirs.float()).abs().mean())


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=30)
    report = common.Report("input", given, ["torch", "torchvision", "pillow", "simplejpeg"])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = [photo(number) for number in range(BATCH if given.quick else 200)]
    size = statistics.mean(map(len, files)) / 1024
    report.note("pictures", f"{len(files)} of 500 x 375, {size:.0f} KB in the mean")
    ways = {
        "mmnet": ours(files),
        "mmnet, jitter": ours(files, color_jitter=JITTER),
        "mmnet, as open_clip": ours(files, random_crop=0.9, random_flip=0.0),
        "Pillow": usual(files, usual_transform(jitter=False)),
        "Pillow, jitter": usual(files, usual_transform(jitter=True)),
    }
    if common.installed("open_clip"):
        from open_clip.transform import image_transform

        ways["open_clip"] = usual(files, image_transform(SIZE, is_train=True))
    else:
        report.missing("open_clip_torch")
    times = common.interleave(ways, given.rounds)
    for own_way, other, aim in (
        ("mmnet, jitter", "Pillow, jitter", 1 / 4),
        ("mmnet", "Pillow", 1 / 2),
        ("mmnet, as open_clip", "open_clip", 1 / 3),
    ):
        if other in times:
            report.ratio(f"{own_way} / {other}", times[own_way], times[other], aim=aim)
    for way, seconds in times.items():
        report.figure(f"{way}, a picture", [1e6 * value for value in seconds], "us")
        report.figure(f"{way}, a core", [1 / value for value in seconds], "pictures/s")
    decoded, crops = fidelity(files[:BATCH])
    report.figure("decoded, from Pillow's", decoded, "of 255", aim=0.5)
    report.figure("crops, from Pillow's antialiased ones", crops, "of 255", aim=2)
    report.finish()


if __name__ == "__main__":
    main()
