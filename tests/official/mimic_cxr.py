"""MIMIC-CXR-JPG as it is laid out, with contents that are made up: its own are credentialed."""

import gzip
import random
from pathlib import Path

from mmnet.dataset.mimic_cxr import FINDINGS
from tests.official import draw


WORDS = ("head=multilabel", "dataset.unmentioned=negative", "dataset.val_fraction=0.3")
CHANGES = {
    "section": "impression",
    "views": "[PA]",
    "labeler": "negbio",
    "uncertain": "positive",
    "unmentioned": "ignore",
}
COUNTS = {"train": 20, "validate": 8, "test": 4}  # studies, with two pictures each
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning"
)
LINES = (
    "                                FINAL REPORT",
    "EXAMINATION:  CHEST (PA AND LAT)",
    "",
    "INDICATION:  ___ year old woman",
    "",
    "FINDINGS: ",
    "",
    "Heart number {0} is seen.  The lungs are",
    "clear.",
    "",
    "IMPRESSION: ",
    "",
    "Nothing acute in {0}.",
)
REPORT = "".join(f" {line}\n" for line in LINES)  # every line begins with a blank


def make(folder: Path, data: Path) -> None:
    rng = random.Random(0)
    metadata, split_rows = [METADATA], ["dicom_id,study_id,subject_id,split"]
    labels = {
        name: [f"subject_id,study_id,{','.join(FINDINGS)}"] for name in ("chexpert", "negbio")
    }
    number = 0
    for split, count in COUNTS.items():
        for _ in range(count):
            subject, study = 10000032 + number // 2, 50000000 + number
            place = folder / f"files/p{str(subject)[:2]}/p{subject}"
            for view in ("PA", "LATERAL" if number % 2 else "AP"):
                picture = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
                draw(place / f"s{study}/{picture}.jpg", number, mode="L")
                metadata.append(
                    f"{picture},{subject},{study},CHEST,{view},48,40,21800506,213014.5,,,"
                )
                split_rows.append(f"{picture},{study},{subject},{split}")
            (place / f"s{study}.txt").write_text(REPORT.format(number))
            for rows in labels.values():
                values = (rng.choice(("1.0", "0.0", "-1.0", "")) for _ in FINDINGS)
                rows.append(f"{subject},{study},{','.join(values)}")
            number += 1
    tables = {"metadata": metadata, "split": split_rows, **labels}
    for name, rows in tables.items():
        with gzip.open(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write("\n".join(rows) + "\n")


def make_drawn(folder: Path, data: Path) -> None:
    """Of the DICOM edition the reports, without the splits, which the other brings."""
    make(folder, data)
    for name in ("metadata", "split"):
        (folder / f"mimic-cxr-2.0.0-{name}.csv.gz").unlink()
