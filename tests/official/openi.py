"""OpenI: real reports, and pictures by the names that they give."""

import re
import shutil
from pathlib import Path

from tests.official import draw


WORDS = ("dataset.val_fraction=0.3",)
CHANGES = {"section": "impression"}
COUNT = 30


def make(folder: Path, data: Path) -> None:
    reports = sorted((data / "openi_reports/ecgen-radiology").glob("*.xml"))[:COUNT]
    (folder / "ecgen-radiology").mkdir()
    for number, path in enumerate(reports):
        shutil.copyfile(path, folder / "ecgen-radiology" / path.name)
        for name in re.findall(r'<parentImage id="([^"]+)"', path.read_text("utf-8")):
            draw(folder / f"NLMCXR_png/{name}.png", number, mode="L")
