"""ImageNet-1K as Kaggle ships it: the published mapping and solution, pictures drawn."""

import csv
import shutil
from pathlib import Path

from tests.official import draw


WORDS = ("model=image_only", "dataset.augment.random_crop=0.5")
CHANGES = {"augment.random_flip": "0", "caption": "name"}
SYNSETS = ("n01440764", "n02012849", "n03126707", "n15075141")
DEFECTS = {0: ("PNG", "RGB"), 1: ("JPEG", "CMYK"), 2: ("JPEG", "L")}  # as ImageNet has them


def make(folder: Path, data: Path) -> None:
    for part in ("LOC_synset_mapping.txt", "LOC_val_solution.csv"):
        shutil.copyfile(data / "imagenet1k" / part, folder / part)
    pictures = folder / "ILSVRC/Data/CLS-LOC"
    for number in range(40):
        wnid = SYNSETS[number % len(SYNSETS)]
        kind, mode = DEFECTS.get(number, ("JPEG", "RGB"))
        draw(pictures / f"train/{wnid}/{wnid}_{number}.JPEG", number, mode=mode, kind=kind)
    with (folder / "LOC_val_solution.csv").open(newline="") as file:
        names = [row["ImageId"] for row in csv.DictReader(file)][:12]
    for number, name in enumerate(names):
        draw(pictures / f"val/{name}.JPEG", number)
    for number in range(3):
        draw(pictures / f"test/ILSVRC2012_test_{number + 1:08d}.JPEG", number)
