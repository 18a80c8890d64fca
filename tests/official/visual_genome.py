"""Visual Genome: the real annotations of three pictures, given to forty drawn ones."""

import json
from pathlib import Path

from tests.official import draw


WORDS = (
    "head=classification",
    "dataset.what=questions",
    "dataset.num_classes=12",
    "dataset.val_fraction=0.3",
)
CHANGES = {"num_classes": "11"}
COUNT = 40


def make(folder: Path, data: Path) -> None:
    real = data / "visual_genome"
    listed = json.loads((real / "image_data.json").read_text("utf-8"))
    told = json.loads((real / "question_answers.json").read_text("utf-8"))
    images, questions = [], []
    for id in range(1, COUNT + 1):
        place = f"VG_100K{'_2' if id % 2 else ''}/{id}.jpg"
        url = f"https://cs.stanford.edu/people/rak248/{place}"
        images.append(listed[id % 3] | {"image_id": id, "url": url, "coco_id": 100 + id})
        qas = [one | {"qa_id": 1000 * id + n} for n, one in enumerate(told[id % 3]["qas"])]
        questions.append({"id": id, "qas": qas})
        draw(folder / place, id)
    regions = json.loads((real / "region_descriptions.json").read_text("utf-8"))
    (folder / "image_data.json").write_text(json.dumps(images))
    (folder / "question_answers.json").write_text(json.dumps(questions))
    (folder / "region_descriptions.json").write_text(json.dumps(regions))
    # So many of them are in the list of what COCO evaluates with.
    (folder / "annotations").mkdir()
    val = {"images": [{"id": 100 + id, "file_name": f"{id}.jpg"} for id in range(1, 11)]}
    (folder / "annotations/captions_val2017.json").write_text(json.dumps(val))
