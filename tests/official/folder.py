"""A folder for each class, with metadata for those who ask for columns."""

from pathlib import Path

from tests.official import draw


WORDS = ("dataset.num_classes=3", "dataset.val_fraction=0.2")
CHANGES = {
    "caption": "comment",
    "label": "kind",
    "num_classes": "4",
    "train_split": "[part]",
    "val_split": "[part]",
}
COUNT = 40


def make(folder: Path, data: Path) -> None:
    for name, numbers in (("train", range(COUNT)), ("part", range(COUNT, COUNT + 10))):
        rows = [
            f'{i}.jpg,"caption {i}, yes",{i % 3},"a,b",{i},comment {i},{i % 2}' for i in numbers
        ]
        for i in numbers:
            draw(folder / name / f"{i}.jpg", i)
        text = "\n".join(("file_name,text,label,tags,value,comment,kind", *rows))
        (folder / name / "metadata.csv").write_text(text, "utf-8")
