"""Visual Genome: the real annotations of three pictures in two versions, and what can go wrong."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmnet.data.files import read_json_array
from mmnet.dataset.visual_genome import VisualGenome
from mmnet.errors import UserError
from mmnet.interfaces import BadSample
from tests.official import cropped


def genome(data: Path, what: str = "regions", **changes: Any) -> VisualGenome:
    settings: dict[str, Any] = {
        "root": None,
        "what": what,
        "num_classes": 5,
        "coco_root": None,
        "leave_out_coco": False,
        "image_size": 16,
        "augment": cropped(0.5, 0.0),
        "split_seed": 0,
        "val_fraction": 0.3,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return VisualGenome(**settings | changes, data=data)


@pytest.fixture
def real(data: Path) -> Path:
    return data / "visual_genome"


def version_1_0(real: Path, to: Path) -> Path:
    """The real files of 1.0, and image_data.json with the names it had then."""
    for path in (real / "v1.0").iterdir():
        shutil.copyfile(path, to / path.name)
    images = json.loads((real / "image_data.json").read_text("utf-8"))
    told = [{"id" if key == "image_id" else key: one[key] for key in one} for one in images]
    (to / "image_data.json").write_text(json.dumps(told))
    return to


def records(found: VisualGenome) -> list[Any]:
    return [found.table[row] for row in range(len(found.table))]


# The real files


def test_the_real_regions_of_both_versions(real: Path, tmp_path: Path) -> None:
    newer, older = genome(real), genome(version_1_0(real, tmp_path))
    counts = [[record.group for record in records(one)] for one in (newer, older)]
    assert [counts[0].count(id) for id in "123"] == [262, 256, 255]
    assert [counts[1].count(id) for id in "123"] == [265, 256, 259]
    for one in (newer, older):
        first = records(one)[0]
        assert (first.key, first.captions) == ("1#1382", ("the clock is green in colour",))
        assert first.image == "VG_100K_2/1.jpg"
        box = [421 / 800, 57 / 600, (421 + 82) / 800, (57 + 139) / 600]
        assert first.box == pytest.approx(box)
    assert all(0 <= side <= 1 for record in records(newer) for side in record.box)


def test_the_real_questions(real: Path) -> None:
    found = genome(real, "questions")
    assert list(found.names.classes) == ["black", "white", "red", "green", "trees"]
    # As they stand 26, 22, 16, 9 and 9, and one that is written otherwise.
    assert len(found.table) == 83
    first = records(found)[0]
    assert (first.captions, found.names.classes[first.label]) == (
        ("What color is the clock?",),
        "green",
    )
    said = "questions whose answer is none of the most frequent"
    assert found.table.notes[said] == 91 + 165 + 141 - len(found.table)


def test_the_real_objects_of_both_versions(real: Path, tmp_path: Path) -> None:
    newer, older = (
        genome(folder, "objects", num_classes=30) for folder in (real, version_1_0(real, tmp_path))
    )
    assert [record.value for record in records(newer)] == [40, 27, 52]
    assert [record.value for record in records(older)] == [52, 33, 62]
    for found in (newer, older):
        names = list(found.names.labels)
        for record, id in zip(records(found), "123", strict=True):
            file = json.loads((found.folder / "objects.json").read_text("utf-8"))
            [told] = [one for one in file if str(one.get("image_id", one.get("id"))) == id]
            held = {name.casefold().strip() for one in told["objects"] for name in one["names"]}
            assert {names[label] for label in record.present} == held & set(names)
        # The most frequent are in two of the pictures: a name counts once a picture.
        assert sum(0 in record.present for record in records(found)) == 2


# Generated files


def write(root: Path, regions: list[dict[str, Any]], **image: Any) -> Path:
    """One picture, 40 x 20, left half black and right half white, in VG_100K."""
    root.mkdir(parents=True, exist_ok=True)
    picture = {
        "image_id": 7,
        "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/7.jpg",
        "width": 40,
        "height": 20,
        "coco_id": None,
        "flickr_id": None,
    }
    (root / "image_data.json").write_text(json.dumps([picture | image]))
    (root / "region_descriptions.json").write_text(json.dumps([{"id": 7, "regions": regions}]))
    (root / "VG_100K").mkdir(exist_ok=True)
    half = Image.new("RGB", (40, 20))
    half.paste("white", (20, 0, 40, 20))
    half.save(root / "VG_100K/7.jpg", quality=95)
    return root


def region(number: int, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    box = {"x": x, "y": y, "width": width, "height": height}
    return {"region_id": number, "image_id": 7, "phrase": f"Part {number} "} | box


def shown(found: VisualGenome, row: int) -> torch.Tensor:
    split = found.split("train", ())
    picture = split.sample(row, ("image",), None)["image"]
    assert isinstance(picture, torch.Tensor)
    return picture


def test_a_region_is_cut_out_of_the_picture_in_whichever_folder_it_lies(tmp_path: Path) -> None:
    found = genome(write(tmp_path, [region(1, 0, 0, 18, 20), region(2, 24, 2, 10, 10)]))
    assert shown(found, 0).float().mean() < 10
    assert shown(found, 1).float().mean() > 245
    split = found.split("train", ())
    assert split.sample(1, ("text",), None)["text"] == "Part 2"
    drawn = split.sample(0, ("image",), random.Random(0))["image"]
    assert isinstance(drawn, torch.Tensor) and drawn.float().mean() < 10
    (tmp_path / "VG_100K").rename(tmp_path / "VG_100K_2")
    assert shown(found, 1).float().mean() > 245
    (tmp_path / "VG_100K_2").rename(tmp_path / "elsewhere")
    with pytest.raises(BadSample, match=r"7#1: missing file"):
        shown(found, 0)


def test_what_is_beyond_the_picture_is_cut_off_and_what_is_nothing_left_out(tmp_path: Path) -> None:
    boxes = [
        region(1, -10, -5, 20, 15),
        region(2, 30, 10, 100, 100),
        region(3, 5, 5, 0, 5),
        region(4, 5, 5, -3, 5),
        region(5, 40, 0, 10, 10),
        region(6, -9, 0, 9, 9),
    ]
    found = genome(write(tmp_path, boxes))
    assert [record.box for record in records(found)] == [(0, 0, 0.25, 0.5), (0.75, 0.5, 1, 1)]
    assert found.table.notes == {"regions without area within their picture": 4}


def objects(*names: str) -> dict[str, Any]:
    return {"object_id": 1, "x": 1, "y": 1, "w": 1, "h": 1, "names": list(names), "synsets": []}


def test_objects_of_1_4_and_names_that_differ_in_case(tmp_path: Path) -> None:
    write(tmp_path, [])
    told = objects("Tree", "tree ") | {"merged_object_ids": [3]}
    image = {"image_id": 7, "image_url": "https://x/7.jpg", "objects": [told, objects("dog.")]}
    (tmp_path / "objects.json").write_text(json.dumps([image]))
    found = genome(tmp_path, "objects", num_classes=2)
    assert list(found.names.labels) == ["dog", "tree"]
    assert (records(found)[0].present, records(found)[0].value) == ((0, 1), 2)
    sample = found.split("train", ("labels", "value")).sample(0, ("image", "text"), None)
    assert sample["labels"] == [1, 1] and "text" not in sample
    with pytest.raises(UserError, match=r"num_classes=3, but there are 2 names of objects in"):
        genome(tmp_path, "objects", num_classes=3)


def test_only_what_is_there_can_be_learnt(real: Path) -> None:
    found = genome(real)
    said = r"what=regions offers group and match, .* wants label, which dataset\.what=questions"
    with pytest.raises(UserError, match=said):
        found.split("train", ("label",))
    with pytest.raises(UserError, match=r"what=questions offers label, .* wants labels, which"):
        genome(real, "questions").split("train", ("labels",))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, [region(1, 0, 0, 5, 5)])
    with pytest.raises(UserError, match=r"what=objects: .* lacks objects\.json"):
        genome(tmp_path, "objects")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("region_descriptions.json", '[{"id": 7, "regions": [{"x": 1}]}]', r"element 0: .*regions"),
        ("region_descriptions.json", '[{"regions": []}]', r"element 0: neither image_id nor id"),
        ("region_descriptions.json", '[{"id": 7, "regions": []}, ', r"descriptions\.json: .*trunc"),
        ("region_descriptions.json", '{"id": 7}', r"descriptions\.json: Expected `array`"),
        ("region_descriptions.json", "", r"descriptions\.json: .*empty"),
        ("image_data.json", '[{"width": 1, "height": 1}]', r"image_data\.json, element 0: neither"),
    ],
)
def test_malformed_files_are_named_with_the_element(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (write(tmp_path, []) / name).write_text(content)
    with pytest.raises(UserError, match=said):
        genome(tmp_path)


def test_images_that_are_not_listed_are_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, [region(1, 0, 0, 5, 5)], image_id=8)
    assert genome(tmp_path).table.notes == {"images that image_data.json does not list": 1}


# COCO's images


def test_images_that_coco_evaluates_with_are_counted_and_left_out_on_request(
    tmp_path: Path,
) -> None:
    root, coco = tmp_path / "vg", tmp_path / "coco"
    write(root, [])
    images = [
        {
            "image_id": id,
            "width": 9,
            "height": 9,
            "url": "",
            "coco_id": 100 + id if id % 2 else None,
        }
        for id in range(60)
    ]
    told = [{"id": id, "regions": [region(id, 0, 0, 5, 5)] * 2} for id in range(60)]
    (root / "image_data.json").write_text(json.dumps(images))
    (root / "region_descriptions.json").write_text(json.dumps(told))
    (coco / "annotations").mkdir(parents=True)
    val = [{"id": 100 + id, "file_name": f"{id}.jpg"} for id in range(20)]
    (coco / "annotations/captions_val2017.json").write_text(json.dumps({"images": val}))
    karpathy = [
        {"filename": f"{id}.jpg", "cocoid": 100 + id, "split": split, "sentences": []}
        for id, split in ((31, "test"), (33, "train"), (35, "val"))
    ]
    (coco / "dataset_coco.json").write_text(json.dumps({"images": karpathy}))

    plain = genome(root)
    assert plain.table.notes == {"images that COCO trains or evaluates with": 30}
    held = {str(id) for id in [*range(1, 20, 2), 31, 35]}
    told_of = genome(root, coco_root=str(coco))
    assert told_of.table.notes["images that COCO evaluates with"] == len(held)
    without = genome(root, coco_root=str(coco), leave_out_coco=True)
    groups = {
        name: [{one.table[row].group for row in one.rows(name)} for one in (told_of, without)]
        for name in ("train", "val")
    }
    assert groups["train"][1] == groups["train"][0] - held != groups["train"][0]
    assert groups["val"][0] == groups["val"][1] and groups["val"][0] & held
    said = without.split("train", ()).notes["not trained on, since COCO evaluates with it"]
    assert said == 2 * len(groups["train"][0] & held)
    assert "not trained on, since COCO evaluates with it" not in without.split("val", ()).notes
    with pytest.raises(UserError, match=r"lacks annotations/captions_val2017\.json"):
        genome(root, coco_root=str(root))


def test_long_arrays_are_read_element_by_element(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text("[" + ",".join(json.dumps({"n": n, "t": "é\\ud800"}) for n in range(999)) + "]")
    found = list(read_json_array(path, dict[str, Any]))
    assert [number for number, _ in found] == [told["n"] for _, told in found] == [*range(999)]
    path.write_text(path.read_text().replace('"n": 500', '"n": oops'))
    with pytest.raises(UserError, match=r"long\.json: "):
        list(read_json_array(path, dict[str, Any]))
