"""What ImageNet's label files say of its 1,000 synsets and of its validation pictures."""

import io
import re
import tarfile
from pathlib import Path
from typing import Any

from mmnet.data.files import lines, read_csv
from mmnet.data.wordnet import WNID
from mmnet.errors import UserError


MAPPING = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def mapping(path: Path) -> dict[str, str]:
    """Kaggle's LOC_synset_mapping.txt: names by WordNet id. Raises UserError."""
    found = {}
    for number, line in enumerate(lines(path), 1):
        wnid, _, names = line.strip().partition(" ")
        if not line.strip():
            continue
        if not WNID.fullmatch(wnid) or not names or wnid in found:
            why = "names a synset again" if wnid in found else "is no synset and its names"
            raise UserError(f"{path}, line {number}: '{line}' {why}, such as 'n01440764 tench'")
        found[wnid] = names.strip()
    return found


def solution(path: Path) -> dict[str, str]:
    """Kaggle's LOC_val_solution.csv: the WordNet id by the picture's name without suffix.

    The prediction string is a synset and a box, for each box again; all boxes of a picture are
    of one synset. Raises UserError.
    """
    found = {}
    for number, row in read_csv(path, ("ImageId", "PredictionString")):
        said = row["PredictionString"].split()
        if not said or not WNID.fullmatch(said[0]):
            raise UserError(
                f"{path}, line {number}: PredictionString '{row['PredictionString'][:40]}' does "
                f"not begin with a synset, such as 'n01440764 85 1 499 272'"
            )
        found[row["ImageId"]] = said[0]
    return found


def devkit(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The WordNet id of each validation picture by its name, and names by WordNet id.

    Of the development kit, which numbers the synsets in an order of its own: packed
    (ILSVRC2012_devkit_t12.tar.gz) or not. Both empty where there is none. Raises UserError.
    """
    truth, meta = _devkit_file(root, TRUTH), _devkit_file(root, "meta.mat")
    if truth is None or meta is None:
        return {}, {}
    wnids, names = _synsets(meta, root)
    found = {}
    for number, line in enumerate(truth.decode("ascii", "replace").split("\n"), 1):
        if not line.strip():
            continue
        wnid = wnids.get(int(line)) if re.fullmatch(r"\d+", line.strip()) else None
        if wnid is None:
            raise UserError(f"{root / DEVKIT}: {TRUTH}, line {number}: '{line}' is no synset's id")
        found[f"ILSVRC2012_val_{number:08d}"] = wnid
    return found, names


def devkit_files(root: Path) -> list[Path]:
    """The files and folders that `devkit` reads."""
    return sorted(root.glob(f"{DEVKIT}*"))


def wnid_of(place: str) -> str | None:
    """The synset that a picture's path says: its folder, the end of its name, or the start."""
    folder, _, name = place.rpartition("/")
    stem = name.partition(".")[0]
    parts = (folder.rpartition("/")[2], stem.rpartition("_")[2], stem.partition("_")[0])
    return next((part for part in parts if WNID.fullmatch(part)), None)


def _devkit_file(root: Path, name: str) -> bytes | None:
    for folder in (root / DEVKIT / "data", root / "data", root):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    for path in sorted(root.glob(f"{DEVKIT}.tar*")):
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isreg() and member.name.endswith(f"/{name}"):
                        file = tar.extractfile(member)
                        return None if file is None else file.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"{path}: {error}") from error
    return None


def _synsets(meta: bytes, root: Path) -> tuple[dict[int, str], dict[str, str]]:
    """WordNet ids by the kit's numbers, and names by WordNet id, of the synsets without parts."""
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        rows: Any = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"].reshape(-1)
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
        return wnids, {str(row["WNID"]): str(row["words"]) for row in leaves}
    # scipy answers damage with whatever its parser met.
    except Exception as error:
        raise UserError(f"{root / DEVKIT}: meta.mat cannot be read: {error}") from error
