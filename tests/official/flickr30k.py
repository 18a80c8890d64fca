"""Flickr30k: the original layout with the real captions of 60 photos and Karpathy's lists."""

from pathlib import Path

from tests.official import draw


WORDS = ("head=contrastive", "fusion=separate")
CHANGES = {"splits": "entities", "drop_unrelated": "false"}
COUNT = 60
KARPATHY = {"train": range(40), "val": range(40, 50), "test": range(50, 60)}
ENTITIES = {"train": range(2, 44), "val": range(44, 60), "test": range(2)}


def real_captions(data: Path) -> list[str]:
    """The lines of the first photos, one of which has a caption that is not of it."""
    lines = (data / "flickr30k_text/results_20130124.token").read_text("utf-8").split("\n")
    return lines[: 5 * COUNT]


def make(folder: Path, data: Path) -> None:
    told = real_captions(data)
    (folder / "results_20130124.token").write_text("\n".join(told) + "\n", "utf-8")
    names = list(dict.fromkeys(line.partition("#")[0] for line in told))
    for number, name in enumerate(names):
        draw(folder / "flickr30k-images" / name, number)
    for family, splits in (("karpathy", KARPATHY), ("entities", ENTITIES)):
        (folder / family).mkdir()
        for split, places in splits.items():
            listed = [names[i] if family == "karpathy" else names[i][:-4] for i in places]
            (folder / family / f"{split}.txt").write_text("\n".join(listed) + "\n", "utf-8")
    unrelated = data / "flickr30k_text/splits_flickr30k_entities/UNRELATED_CAPTIONS"
    said = unrelated.read_text("utf-8") + f"\n{names[45][:-4]} 1\n"
    (folder / "entities/UNRELATED_CAPTIONS").write_text(said, "utf-8")
