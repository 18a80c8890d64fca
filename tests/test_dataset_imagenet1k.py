"""ImageNet-1K in each of its layouts: one class a picture, whatever numbers a layout has."""

import csv
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat  # type: ignore[import-untyped]

from mmnet.compose import load, make
from mmnet.dataset.imagenet1k import ImageNet1k
from mmnet.errors import UserError
from tests.official import draw, official
from tests.official.imagenet1k import SYNSETS


COUNTS = {"train": 40, "val": 12, "test": 3}
LABEL = ("label",)


def imagenet(folder: Path, *words: str) -> ImageNet1k:
    run = load("dataset=imagenet1k", "model=image_only", "dataset.image_size=32", *words)
    found = make(run.dataset, data=folder)
    assert isinstance(found, ImageNet1k)
    return found


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("kaggle")
    official("imagenet1k").make(folder, data)
    return folder


def truths(kaggle: Path) -> dict[str, str]:
    with (kaggle / "LOC_val_solution.csv").open(newline="") as file:
        rows = [
            (row["ImageId"], row["PredictionString"].split()[0]) for row in csv.DictReader(file)
        ]
    there = {path.stem for path in pictures(kaggle, "val")}
    return {name: wnid for name, wnid in rows if name in there}


def pictures(kaggle: Path, split: str) -> list[Path]:
    return sorted((kaggle / "ILSVRC/Data/CLS-LOC" / split).rglob("*.JPEG"))


def tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


# The same pictures in other layouts


def folders(kaggle: Path, folder: Path) -> None:
    known = truths(kaggle)
    for split in COUNTS:
        for path in pictures(kaggle, split):
            wnid = {"train": path.parent.name, "val": known.get(path.stem, "")}.get(split, "")
            target = folder / split / wnid / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def archives(kaggle: Path, folder: Path) -> None:
    by_synset: dict[str, dict[str, bytes]] = {}
    for path in pictures(kaggle, "train"):
        by_synset.setdefault(path.parent.name, {})[path.name] = path.read_bytes()
    inner = {}
    for wnid, files in by_synset.items():
        tar(folder / "one.tar", files)
        inner[f"{wnid}.tar"] = (folder / "one.tar").read_bytes()
    (folder / "one.tar").unlink()
    tar(folder / "ILSVRC2012_img_train.tar", inner)
    tar(folder / "ILSVRC2012_img_train_t3.tar", inner)
    for split, name in (("val", "val"), ("test", "test_v10102019")):
        files = {path.name: path.read_bytes() for path in pictures(kaggle, split)}
        tar(folder / f"ILSVRC2012_img_{name}.tar", files)
    devkit(kaggle, folder)


def devkit(kaggle: Path, folder: Path) -> None:
    """Numbers of its own, an inner node among the synsets, and all 50,000 pictures in order."""
    lines = (kaggle / "LOC_synset_mapping.txt").read_text().split("\n")
    leaves = [line.partition(" ") for line in lines if line]
    order = np.random.default_rng(0).permutation(len(leaves))
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(1 + i, leaves[j][0], leaves[j][2], 0) for i, j in enumerate(order)]
    rows.append((1001, "n00001740", "entity", 3))
    mat = io.BytesIO()
    savemat(mat, {"synsets": np.array(rows, dtype=kind)})
    number = {wnid: i for i, wnid, _, _ in rows}
    with (kaggle / "LOC_val_solution.csv").open(newline="") as file:
        said = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    told = "".join(f"{number[said[name]]}\n" for name in sorted(said))
    data = "ILSVRC2012_devkit_t12/data"
    tar(
        folder / "ILSVRC2012_devkit_t12.tar",
        {
            f"{data}/meta.mat": mat.getvalue(),
            f"{data}/ILSVRC2012_validation_ground_truth.txt": told.encode(),
        },
    )
    packed = folder / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(packed, "w:gz") as gz, tarfile.open(folder / f"{packed.stem}") as plain:
        for member in plain:
            gz.addfile(member, plain.extractfile(member))
    (folder / packed.stem).unlink()


def flat(kaggle: Path, folder: Path) -> None:
    for split in COUNTS:
        shutil.copytree(kaggle / "ILSVRC/Data/CLS-LOC" / split, folder / split)
    devkit(kaggle, folder)
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz") as gz:
        gz.extractall(folder, filter="data")
    (folder / "ILSVRC2012_devkit_t12.tar.gz").unlink()


def hub_files(kaggle: Path) -> dict[str, dict[str, bytes]]:
    known = truths(kaggle)
    found: dict[str, dict[str, bytes]] = {}
    for split in COUNTS:
        for number, path in enumerate(pictures(kaggle, split)):
            wnid = path.parent.name if split == "train" else known.get(path.stem)
            name = f"{path.stem}_{wnid}.JPEG" if wnid else path.name
            part = f"train_images_{number % 2}" if split == "train" else f"{split}_images"
            found.setdefault(part, {})[name] = path.read_bytes()
    return found


def hub_tars(kaggle: Path, folder: Path) -> None:
    for part, files in hub_files(kaggle).items():
        tar(folder / "data" / f"{part}.tar", files)


def hub_folders(kaggle: Path, folder: Path) -> None:
    for part, files in hub_files(kaggle).items():
        for name, content in files.items():
            (folder / "data" / part).mkdir(parents=True, exist_ok=True)
            (folder / "data" / part / name).write_bytes(content)


def hub_parquet(kaggle: Path, folder: Path) -> None:
    lines = (kaggle / "LOC_synset_mapping.txt").read_text().split("\n")
    order = [line.split()[0] for line in lines if line]
    (folder / "data").mkdir()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    by_split: dict[str, list[tuple[dict[str, Any], int]]] = {}
    for part, files in hub_files(kaggle).items():
        for name, content in files.items():
            wnid = name.partition(".")[0].rpartition("_")[2]
            label = order.index(wnid) if wnid in order else -1
            split = part.partition("_")[0].replace("val", "validation")
            by_split.setdefault(split, []).append(({"bytes": content, "path": name}, label))
    for split, rows in by_split.items():
        columns = [pa.array([row[0] for row in rows], image), pa.array([row[1] for row in rows])]
        table = pa.table(columns, names=["image", "label"])
        pq.write_table(table, folder / f"data/{split}-00000-of-00001.parquet", row_group_size=7)


LAYOUTS: list[Callable[[Path, Path], None]] = [
    folders,
    archives,
    flat,
    hub_tars,
    hub_folders,
    hub_parquet,
]


def seen(dataset: ImageNet1k) -> dict[str, list[tuple[int, bytes]]]:
    """Class and pixels of each picture of each split."""
    found = {}
    for name in COUNTS:
        targets = LABEL if name != "test" else ()
        split = dataset.split(name, targets)
        samples = [split.sample(index, ("image",), None) for index in range(len(split))]
        found[name] = sorted(
            (sample.get("label", -1), np.asarray(sample["image"]).tobytes()) for sample in samples
        )
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_shows_the_same_pictures_with_the_same_classes(
    kaggle: Path, tmp_path: Path, layout: Callable[[Path, Path], None]
) -> None:
    layout(kaggle, tmp_path)
    assert seen(imagenet(tmp_path)) == seen(imagenet(kaggle))


def test_the_class_is_the_rank_of_the_synset_among_all_thousand(kaggle: Path) -> None:
    dataset = imagenet(kaggle)
    assert {name: len(dataset.split(name, ())) for name in COUNTS} == COUNTS
    train = dataset.split("train", LABEL)
    assert train.key(0) == "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_0.JPEG"
    labels = {train.sample(index, (), None)["label"] for index in range(len(train))}
    assert labels == {0, 134, 517, 999} and len(SYNSETS) == 4
    # A picture whose row has several boxes, all of its synset.
    val = dataset.split("val", LABEL)
    keys = {val.key(index).rpartition("/")[2]: index for index in range(len(val))}
    index = keys["ILSVRC2012_val_00008726.JPEG"]
    assert dataset.names.classes[val.sample(index, (), None)["label"]] == "kit fox"


def test_names_that_two_synsets_share_are_told_apart(kaggle: Path) -> None:
    names = imagenet(kaggle).names.classes
    assert len(set(names)) == len({name.casefold() for name in names}) == 1000
    assert names[0] == "tench"
    assert [names[134], names[517]] == ["crane (n02012849)", "crane (n03126707)"]


def test_the_name_of_the_class_is_the_text_if_asked_for(kaggle: Path) -> None:
    assert "text" not in imagenet(kaggle).split("train", ()).sample(0, ("text",), None)
    split = imagenet(kaggle, "dataset.caption=name").split("train", ())
    texts = {split.sample(index, ("text",), None)["text"] for index in range(len(split))}
    assert texts == {"tench", "crane", "toilet tissue"}


def test_test_has_no_labels(kaggle: Path) -> None:
    with pytest.raises(UserError, match="is for test has label"):
        imagenet(kaggle).split("test", LABEL)
    assert len(imagenet(kaggle).split("test", ())) == 3


def test_a_part_of_the_synsets_is_ranked_by_itself(kaggle: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, wnid in enumerate(("n03126707", "n01440764")):
            draw(tmp_path / split / wnid / f"{wnid}_1.JPEG", number)
    dataset = imagenet(tmp_path, "dataset.num_classes=2", "head.num_classes=2")
    assert dataset.names.classes == ["tench", "crane"]
    whole = imagenet(tmp_path).split("train", LABEL)
    assert [whole.sample(i, (), None)["label"] for i in (0, 1)] == [0, 517]
    with pytest.raises(UserError, match=r"dataset.num_classes=3, but .* has 1000"):
        imagenet(tmp_path, "dataset.num_classes=3")


def test_what_is_compressed_is_refused_with_the_command(kaggle: Path, tmp_path: Path) -> None:
    hub_tars(kaggle, tmp_path)
    (tmp_path / "data/train_images_1.tar").rename(tmp_path / "data/train_images_1.tar.gz")
    with pytest.raises(UserError, match=r"train_images_1.tar.gz is compressed.*gunzip"):
        imagenet(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.97, 0.995])
def test_an_archive_that_is_cut_off_is_refused_by_name(
    kaggle: Path, tmp_path: Path, share: float
) -> None:
    archives(kaggle, tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train.tar, byte [\d,]+: this tar"):
        imagenet(tmp_path)


def test_a_damaged_header_is_not_taken_for_the_end(kaggle: Path, tmp_path: Path) -> None:
    archives(kaggle, tmp_path)
    path = tmp_path / "ILSVRC2012_img_val.tar"
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[5].offset
    content = bytearray(path.read_bytes())
    content[offset + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"byte {offset:,}: this tar is damaged there"):
        imagenet(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("LOC_synset_mapping.txt", "n01440764 tench\nn0144 x\n", "line 2: 'n0144 x'"),
        ("LOC_synset_mapping.txt", "n01440764 a\nn01440764 b\n", "line 2: .* synset again"),
        ("LOC_val_solution.csv", "ImageId,Label\na,b\n", "no column 'PredictionString'"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na,1 2 3 4\n", "line 2: Prediction"),
    ],
)
def test_malformed_label_files_are_refused_by_file_and_line(
    kaggle: Path, tmp_path: Path, file: str, text: str, says: str
) -> None:
    shutil.copytree(kaggle, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=f"{file}.*{says}"):
        imagenet(tmp_path)


def test_pictures_without_a_class_are_counted(kaggle: Path, tmp_path: Path) -> None:
    shutil.copytree(kaggle, tmp_path, dirs_exist_ok=True)
    draw(tmp_path / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_99999999.JPEG")
    notes = imagenet(tmp_path).split("val", LABEL).notes
    assert notes == {"pictures of val of which no file tells the class": 1}
