"""COCO from its published files: real ones, and generated ones with what can go wrong."""

import contextlib
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mmnet.data.record_split import RecordSplit
from mmnet.dataset.coco import Coco
from mmnet.errors import UserError
from mmnet.interfaces import BadSample, Dataset, Split
from tests.official import cropped


BOTH = ("image", "text")
LABEL = ("label",)
OFFERED = ("label", "labels", "value", "group", "match")
REAL = [
    *("person", "vehicle", "outdoor", "animal", "accessory", "sports"),
    *("kitchen", "food", "furniture", "electronic", "appliance", "indoor"),
]


def coco(data: Path, **changes: Any) -> Coco:
    settings = {
        "root": None,
        "splits": "published",
        "edition": None,
        "train_split": ["train"],
        "val_split": ["val"],
        "num_classes": 12,
        "image_size": 64,
        "augment": cropped(0.5, 0.5),
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return Coco(**settings | changes, data=data)


def reference_labels(root: Path, split: str, edition: str = "2017") -> dict[str, str]:
    """File name -> supercategory of the largest instance, by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(root / f"annotations/instances_{split}{edition}.json")
    labels = {}
    for image in api.loadImgs(api.getImgIds()):
        instances = api.loadAnns(api.getAnnIds(imgIds=image["id"], iscrowd=False))
        if instances:
            largest = max(instances, key=lambda a: (a["area"], -a["id"]))
            [category] = api.loadCats(largest["category_id"])
            labels[image["file_name"]] = category["supercategory"]
    return labels


def pixels(picture: Any) -> Any:
    """int [H, W, 3]"""
    return picture.permute(1, 2, 0).numpy().astype(int)


def labels(dataset: Coco, split: RecordSplit) -> dict[str, str]:
    return {
        split.key(i).split("/")[1]: dataset.names.classes[split.sample(i, (), None)["label"]]
        for i in range(len(split))
    }


# The published files


def test_real_labels_are_those_of_pycocotools(data):
    dataset: Dataset = coco(data)
    assert dataset.names.classes == dataset.names.labels == REAL
    assert (dataset.offers, dataset.names.unit) == (OFFERED, "instances")
    for name, size in (("train", 80), ("val", 79)):
        split: Split = dataset.split(name, LABEL)
        assert (len(split), split.notes) == (size, {})
        assert labels(coco(data), coco(data).split(name, LABEL)) == reference_labels(
            data / "coco", name
        )


def test_photos_may_keep_their_shape(data):
    splits = [coco(data, image_size=size).split("val", LABEL) for size in (None, 64)]
    for index in range(5):
        own, square = (split.sample(index, ("image",), None)["image"] for split in splits)
        path = data / "coco" / splits[0].key(index)
        with Image.open(path) as photo:
            assert own.shape == (3, photo.height, photo.width) and photo.width != photo.height
        assert square.shape == (3, 64, 64)
    drawn = splits[0].sample(0, ("image",), random.Random(0))["image"]
    assert drawn.shape != splits[0].sample(0, ("image",), random.Random(1))["image"].shape


def test_real_samples(data):
    dataset = coco(data)
    for name in ("train", "val"):
        split = dataset.split(name, LABEL)
        captions = published_captions(data, name)
        for i in range(len(split)):
            file_name = split.key(i).removeprefix(f"{name}2017/")
            sample = split.sample(i, BOTH, None)
            assert sample["text"] == captions[file_name][0]
            assert sample["image"].shape == (3, 64, 64)
            photo = Image.open(data / "coco" / split.key(i)).convert("RGB").resize((64, 64), 2)
            assert np.abs(pixels(sample["image"]) - np.asarray(photo)).mean() < 5
            texts = {split.sample(i, ("text",), random.Random(s))["text"] for s in range(40)}
            assert texts == set(captions[file_name])


def reference_contents(root: Path, split: str) -> dict[str, list[str]]:
    """File name -> supercategory of each of its instances, by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(root / f"annotations/instances_{split}2017.json")
    return {
        image["file_name"]: [
            api.loadCats(one["category_id"])[0]["supercategory"]
            for one in api.loadAnns(api.getAnnIds(imgIds=image["id"], iscrowd=False))
        ]
        for image in api.loadImgs(api.getImgIds())
    }


def test_real_labels_and_counts_are_those_of_pycocotools(data):
    dataset = coco(data)
    for name in ("train", "val"):
        split = dataset.split(name, ("labels", "value"))
        expected = reference_contents(data / "coco", name)
        for i in range(len(split)):
            sample, contents = split.sample(i, (), None), expected[split.key(i).split("/")[1]]
            assert sample["labels"] == [float(label in contents) for label in REAL]
            assert sample["value"] == len(contents) > 0


def published_captions(data: Path, name: str) -> dict[str, list[str]]:
    """File name -> its captions as they are handed out, by annotation id."""
    published = json.loads((data / f"coco/annotations/captions_{name}2017.json").read_text())
    return {
        image["file_name"]: [
            " ".join(a["caption"].split())
            for a in sorted(published["annotations"], key=lambda a: a["id"])
            if a["image_id"] == image["id"]
        ]
        for image in published["images"]
    }


def test_evaluation_by_group_lists_every_caption_of_every_photo(data):
    split = coco(data).split("val", ("group",))
    expected = published_captions(data, "val")
    listed: dict[str, list[str]] = {name: [] for name in expected}
    groups: dict[str, set[int]] = {name: set() for name in expected}
    for i in range(len(split)):
        sample = split.sample(i, ("text",), None)
        name, which = split.key(i).removeprefix("val2017/").split("#")
        assert int(which) == len(listed[name])
        listed[name].append(sample["text"])
        groups[name].add(sample["group"])
    assert listed == expected
    assert {len(found) for found in groups.values()} == {1}
    assert len(set.union(*groups.values())) == len(expected)
    assert len({split.key(i) for i in range(len(split))}) == len(split)


def test_training_by_group_takes_a_photo_at_a_time(data):
    split = coco(data).split("train", ("group",))
    assert [split.sample(i, (), None)["group"] for i in range(len(split))] == list(range(80))
    assert "#" not in split.key(0)


@pytest.mark.parametrize(("name", "also"), [("train", ()), ("val", ()), ("val", ("group",))])
def test_a_text_matches_where_it_is_a_caption_of_the_photo(data, name, also):
    split = coco(data).split(name, ("match", *also))
    expected = published_captions(data, name)
    matches = []
    for i in range(len(split)):
        for seed in range(6) if name == "train" else (None,):
            rng = None if seed is None else random.Random(f"{i} {seed}")
            sample = split.sample(i, ("text",), rng)
            matches.append(sample["match"])
            own = expected[split.key(i).split("/")[1].split("#")[0]]
            assert sample["match"] == (sample["text"] in own)
    if name == "val":
        assert matches == [1 - i % 2 for i in range(len(split))]
    assert 0.44 < np.mean(matches) < 0.56


def test_the_texts_of_evaluation_stay_the_same_and_come_from_many_photos(data):
    split, again = (coco(data).split("val", ("match",)) for _ in range(2))
    texts = [split.sample(i, ("text",), None)["text"] for i in range(len(split))]
    assert texts == [again.sample(i, ("text",), None)["text"] for i in range(len(split))]
    assert len(set(texts)) > 0.7 * len(texts)


def test_targets_together_are_those_of_each_alone(data):
    dataset = coco(data)
    together = dataset.split("train", OFFERED)
    for index in (0, 33, 79):
        sample: Any = together.sample(index, BOTH, None)
        assert sample.keys() == {*OFFERED, *BOTH}
        for target in OFFERED:
            alone = dataset.split("train", (target,)).sample(index, (), None)
            assert alone == {target: sample[target]}


def test_training_augments_by_its_random_numbers_and_evaluation_does_not(data):
    split = coco(data).split("train", LABEL)

    def picture(seed: int | None, modalities: tuple[str, ...] = BOTH) -> bytes:
        rng = None if seed is None else random.Random(seed)
        return split.sample(3, modalities, rng)["image"].numpy().tobytes()

    assert picture(1) == picture(1) != picture(2)
    assert picture(None) == picture(None) != picture(1)
    assert picture(1) == picture(1, ("image",)), "the crop depends on what else is asked for"
    plain = coco(data, augment=cropped(1.0, 0.0)).split("train", LABEL)
    shown = plain.sample(3, BOTH, random.Random(1))["image"]
    assert shown.numpy().tobytes() == picture(None)


def test_captions_without_photos_are_not_taken_for_coco_where_it_is_looked_for(data):
    with pytest.raises(UserError) as error:
        coco(data / "coco_captions_full")
    for part in ("paths.data=", "coco_captions_full has the names", "dataset.root="):
        assert part in str(error.value)


def test_root_names_the_folder(data):
    assert len(coco(Path("nowhere"), root=str(data / "coco")).split("val", LABEL)) == 79


def test_the_number_of_classes_must_be_that_of_the_file(data):
    with pytest.raises(UserError, match=r"dataset\.num_classes=80, but .* has 12: person, veh"):
        coco(data, num_classes=80)


# Captions without instances, of all of the published val


def captions_alone(data: Path, to: Path) -> Path:
    """The 4,920 photos' captions as both splits, and the photos of none of them."""
    published = data / "coco_captions_full/annotations/captions_val2017.json"
    for split in ("train", "val"):
        (to / f"{split}2017").mkdir(parents=True)
        (to / "annotations").mkdir(exist_ok=True)
        shutil.copy(published, to / f"annotations/captions_{split}2017.json")
    return to


def test_of_all_published_captions_none_is_lost(data, tmp_path):
    """Images with 6 and 7 captions, blanks, line ends, duplicates, in no order."""
    split = coco(captions_alone(data, tmp_path)).split("val", ("group",))
    path = data / "coco_captions_full/annotations/captions_val2017.json"
    published = json.loads(path.read_text())["annotations"]
    distinct = {(one["image_id"], one["caption"]) for one in published}
    assert (len(published), len(distinct)) == (24_614, len(split))
    texts = [split.sample(i, ("text",), None) for i in range(len(split))]
    counts = Counter(Counter(sample["group"] for sample in texts).values())
    assert sum(counts.values()) == 4_920
    raw = Counter(Counter(one["image_id"] for one in published).values())
    assert set(raw) == {5, 6, 7} and counts[7] == raw[7] == 1
    assert all(sample["text"] == " ".join(sample["text"].split()) for sample in texts)
    images = [int(split.key(i).split("/")[1][:12]) for i in range(len(split))]
    assert images == sorted(images)


def test_without_instances_only_what_captions_tell_can_be_learnt(data, tmp_path):
    dataset = coco(captions_alone(data, tmp_path))
    assert len(dataset.split("train", ("match", "group"))) == 4_920
    for target in ("label", "labels", "value"):
        with pytest.raises(UserError, match=rf"{target} can be .*instances_.*group and match"):
            dataset.split("train", (target,))


def test_photos_that_are_not_there_are_bad_samples_and_their_captions_are_read(data):
    root = str(data / "coco_captions_full")
    split = coco(data, root=root, train_split=["val"]).split("val", ())
    assert len(split) == 4_920
    with pytest.raises(BadSample, match=r"val2017/000000000139\.jpg: missing file"):
        split.sample(0, BOTH, None)
    assert split.sample(0, ("text",), None)["text"].startswith("A woman stands in the dining")
    with pytest.raises(UserError, match=r"train_split=train: .* it has val \(4,920\)"):
        coco(data, root=root).split("train", ())


def test_the_published_test_has_no_captions(data):
    with pytest.raises(UserError, match=r"val_split=test: .* not published; .*splits=karpathy"):
        coco(data, val_split=["test"]).split("val", LABEL)


# Karpathy's splits


def karpathy_photo(id: int, split: str, folder: str = "val2014", **changes: Any) -> dict[str, Any]:
    return {
        "filepath": folder,
        "filename": f"COCO_{folder}_{id:012d}.jpg",
        "imgid": id,
        "cocoid": id,
        "split": split,
        "sentids": [id * 10, id * 10 + 1],
        "sentences": [
            {"tokens": ["a"], "raw": f"{text} {id}", "imgid": id, "sentid": id * 10 + n}
            for n, text in enumerate(("karpathy", "again"))
        ],
    } | changes


DIVIDED = [
    karpathy_photo(9, "test"),
    karpathy_photo(5, "val"),
    karpathy_photo(4, "restval"),
    karpathy_photo(3, "train", "train2014"),
]


def write_karpathy(root: Path, photos: list[dict[str, Any]], name: str = "") -> Path:
    """Beside COCO of 2014, where the photos are."""
    published = {
        folder: [
            photo(one["cocoid"], file_name=one["filename"])
            for one in photos
            if one["filepath"] == f"{folder}2014"
        ]
        for folder in ("train", "val")
    }
    write(root, "2014", **published)
    path = root / (name or "dataset_coco.json")
    path.write_text(json.dumps({"images": photos, "dataset": "coco"}))
    return root


def test_karpathy_divides_the_photos_of_2014_otherwise(tmp_path):
    root = write_karpathy(tmp_path, DIVIDED)
    divided = small(root, splits="karpathy", train_split=["train", "restval"], val_split=["test"])
    train, val = (divided.split(name, OFFERED) for name in ("train", "val"))
    assert [train.key(i) for i in range(len(train))] == [
        "train2014/COCO_train2014_000000000003.jpg",
        "val2014/COCO_val2014_000000000004.jpg",
    ]
    assert [val.key(i)[-5:] for i in range(2)] == ["jpg#0", "jpg#1"]
    assert val.sample(1, BOTH, None)["text"] == "again 9"
    assert val.sample(0, BOTH, None)["image"][0].float().mean() < 20
    assert divided.split("restval", ()).key(0) == train.key(1)
    published = small(root, splits="published").split("val", ())
    assert [published.key(i)[-5] for i in range(3)] == ["4", "5", "9"]
    assert "photo" in published.sample(0, ("text",), None)["text"]
    with pytest.raises(UserError, match=r"train_split=restval: .* it has train .* val"):
        small(root, train_split=["restval"]).split("train", ())


def test_karpathys_photos_are_found_in_the_folders_of_2017(tmp_path):
    """Where photo 9 is in val2017 and the others are in train2017, as the editions differ."""
    write(tmp_path, "2017", train=[photo(id) for id in (3, 4, 5)], val=[photo(9)])
    content = json.dumps({"images": DIVIDED})
    (tmp_path / "annotations/dataset_coco.json").write_text(content)
    divided = small(tmp_path, splits="karpathy", val_split=["val", "test"])
    for name in ("train", "val"):
        split = divided.split(name, LABEL)
        for i in range(len(split)):
            sample = split.sample(i, BOTH, None)
            id = int(split.key(i)[-5])
            assert abs(pixels(sample["image"])[32, 32, 0] - id) < 5
            assert sample["label"] == 0


def test_karpathys_file_alone_has_captions_and_no_labels(tmp_path):
    (tmp_path / "val2014").mkdir()
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": DIVIDED}))
    assert len(coco(tmp_path, splits="karpathy").split("train", ("group",))) == 1
    with pytest.raises(UserError, match="label can be learnt from instances"):
        coco(tmp_path, splits="karpathy").split("train", LABEL)
    with pytest.raises(UserError, match=r"splits=published.* has no annotations/captions"):
        coco(tmp_path)


def test_karpathys_file_is_asked_for_by_name(data):
    with pytest.raises(UserError, match=r"splits=karpathy: .*coco lacks dataset_coco\.json"):
        coco(data, splits="karpathy")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "tets"}, r"images\[4\] has split 'tets', expected .*; did you mean 'test'"),
        ({"filename": "../a.jpg"}, r"images\[4\] has filename"),
        ({"filepath": "/etc"}, r"images\[4\] has filepath"),
        ({"cocoid": None}, r"has no cocoid"),
        ({"filename": DIVIDED[0]["filename"]}, r"is there twice"),
        ({"sentences": [{"tokens": []}]}, r"raw.*images\[4\]|images\[...\]"),
    ],
)
def test_what_is_wrong_in_karpathys_file_is_named(tmp_path, changes, said):
    (tmp_path / "val2014").mkdir()
    broken = [*DIVIDED, karpathy_photo(7, "train") | changes]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": broken}))
    with pytest.raises(UserError, match=rf"dataset_coco\.json: .*{said}"):
        coco(tmp_path, splits="karpathy")


# Generated files


CATEGORIES = [
    {"id": 7, "name": "cat", "supercategory": "animal"},
    {"id": 2, "name": "pan", "supercategory": "kitchen"},
    {"id": 5, "name": "dog", "supercategory": "animal"},
]


def photo(id: int, **changes: Any) -> dict[str, Any]:
    """A photo with two captions and one cat."""
    return {
        "id": id,
        "file_name": f"{id:012d}.jpg",
        "captions": [(id * 10, f"photo {id}"), (id * 10 + 1, f"again {id}")],
        "instances": [(id * 10, 7, 100.0, 0)],  # id, category, area, iscrowd
        "picture": Image.new("RGB", (40, 30), (id % 256, 100, 0)),
    } | changes


def write(root: Path, edition: str = "2017", categories: Any = CATEGORIES, **splits: Any) -> Path:
    """COCO as published, of photos; both splits hold photo 1 where nothing is said."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        photos = splits.get(split, [photo(1)])
        folder = root / f"{split}{edition}"
        folder.mkdir(exist_ok=True)
        for one in photos:
            if isinstance(one["picture"], bytes):
                (folder / one["file_name"]).write_bytes(one["picture"])
            elif one["picture"]:
                one["picture"].save(folder / one["file_name"], "JPEG")
        images = [{"id": p["id"], "file_name": p["file_name"], "license": 1} for p in photos]
        captions = [
            {"id": id, "image_id": p["id"], "caption": text}
            for p in photos
            for id, text in p["captions"]
        ]
        instances = [
            {
                "id": id,
                "image_id": p["id"],
                "category_id": category,
                "area": area,
                "iscrowd": crowd,
                "bbox": [0, 0, 1, 1],
                "segmentation": [[0.5, 0.5, 1, 1, 0, 1]],
            }
            for p in photos
            for id, category, area, crowd in p["instances"]
        ]
        for kind, content in (
            ("captions", {"info": {}, "images": images, "annotations": captions}),
            ("instances", {"images": images, "annotations": instances, "categories": categories}),
        ):
            path = root / f"annotations/{kind}_{split}{edition}.json"
            path.write_text(json.dumps(content))
    return root


def small(data: Path, **changes: Any) -> Coco:
    return coco(data, num_classes=2, **changes)


def test_classes_in_the_order_of_the_file(tmp_path):
    assert small(write(tmp_path)).names.classes == ["animal", "kitchen"]


def test_the_2014_edition(tmp_path):
    names = {split: f"COCO_{split}2014_000000000004.jpg" for split in ("train", "val")}
    splits = {split: [photo(4, file_name=name)] for split, name in names.items()}
    dataset = small(write(tmp_path, "2014", **splits))
    for split, name in names.items():
        assert dataset.split(split, LABEL).key(0) == f"{split}2014/{name}"
        assert dataset.split(split, LABEL).sample(0, BOTH, None)["text"] == "photo 4"


def test_of_both_editions_2017_is_taken(tmp_path):
    write(tmp_path, "2014")
    write(tmp_path, "2017")
    assert small(tmp_path).split("val", LABEL).key(0).startswith("val2017/")


def test_an_edition_may_be_asked_for(tmp_path):
    write(tmp_path, "2014")
    write(tmp_path, "2017")
    assert small(tmp_path, edition=2014).split("val", LABEL).key(0).startswith("val2014/")
    write(tmp_path / "other", "2014")
    with pytest.raises(UserError, match=r"edition=2017: .*captions_{train,val}2017\.json"):
        small(tmp_path, root=str(tmp_path / "other"), edition=2017)


def test_photos_may_lie_within_images(tmp_path):
    write(tmp_path)
    (tmp_path / "images").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).rename(tmp_path / "images" / split)
    sample = small(tmp_path).split("val", LABEL).sample(0, BOTH, None)
    assert sample["image"].shape == (3, 64, 64)


def test_photos_without_instances_are_kept_where_no_label_is_learnt(tmp_path):
    photos = [photo(1), photo(2, instances=[]), photo(3)]
    dataset = small(write(tmp_path, val=photos))
    assert [len(dataset.split("val", (target,))) for target in ("label", "match")] == [2, 3]


def test_several_copies_are_not_guessed_between(tmp_path):
    for copy in ("a", "b"):
        write(tmp_path / copy)
    with pytest.raises(UserError, match=rf"{tmp_path}/a, {tmp_path}/b.*dataset\.root="):
        small(tmp_path)
    assert small(tmp_path, root=str(tmp_path / "b")).names.classes


def test_the_largest_instance_decides_ties_go_to_the_lowest_id(tmp_path):
    cases = {
        1: ([(1, 7, 10.0, 0), (2, 2, 10.5, 0)], "kitchen"),
        2: ([(9, 7, 1e9, 0), (4, 2, 1e9, 0), (6, 7, 1e9, 0)], "kitchen"),
        3: ([(3, 7, 5.0, 0), (8, 2, 1e12, 1)], "animal"),
        4: ([(10, 2, 0.0, 0), (11, 5, 0.0, 0)], "kitchen"),
    }
    photos = [photo(id, instances=instances) for id, (instances, _) in cases.items()]
    dataset = small(write(tmp_path, train=photos))
    found = labels(dataset, dataset.split("train", LABEL))
    assert found == {f"{id:012d}.jpg": label for id, (_, label) in cases.items()}
    assert found == reference_labels(tmp_path, "train")


def test_generated_labels_are_those_of_pycocotools(tmp_path):
    rng = random.Random(0)
    ids = iter(rng.sample(range(10_000), 2000))
    photos = [
        photo(
            id,
            picture=None,
            instances=[
                (next(ids), rng.choice((2, 5, 7)), float(rng.randrange(6)), rng.randrange(4) // 3)
                for _ in range(rng.randrange(8))
            ],
        )
        for id in rng.sample(range(100_000), 200)
    ]
    dataset = small(write(tmp_path, train=photos))
    split = dataset.split("train", LABEL)
    assert labels(dataset, split) == reference_labels(tmp_path, "train")
    assert 0 < split.notes["images without instances"] == 200 - len(split)


def test_photos_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    photos = [
        photo(1),
        photo(2, instances=[]),
        photo(3, instances=[(30, 7, 5.0, 1)]),
        photo(4, captions=[]),
        photo(5),
    ]
    root = write(tmp_path, train=photos)
    split = small(root).split("train", LABEL)
    assert [split.key(i)[-5:] for i in range(len(split))] == ["1.jpg", "5.jpg"]
    assert split.notes == {"images without instances": 2, "images without captions": 1}
    path = root / "annotations/captions_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 999, "image_id": 77, "caption": "of no image"})
    path.write_text(json.dumps(content))
    assert small(root).split("train", LABEL).notes["annotated images that are not listed"] == 1


def test_photos_come_by_id_and_captions_too(tmp_path):
    captions = [(12, "late"), (3, "early"), (7, "early"), (5, "middle")]
    photos = [photo(id, captions=captions) for id in (30, 4, 100, 2)]
    split = small(write(tmp_path, train=photos)).split("train", LABEL)
    assert [int(split.key(i)[-7:-4]) for i in range(4)] == [2, 4, 30, 100]
    assert split.sample(0, ("text",), None)["text"] == "early"
    drawn = Counter(split.sample(0, ("text",), random.Random(s))["text"] for s in range(300))
    assert set(drawn) == {"late", "early", "middle"}
    assert max(drawn.values()) < 140, "a caption given twice is drawn twice as often"


def test_photos_have_any_number_of_captions(tmp_path):
    counts = {1: 5, 2: 7, 3: 1, 4: 6}
    photos = [
        photo(id, captions=[(10 * id + n, f"photo {id}, caption {n}") for n in range(count)])
        for id, count in counts.items()
    ]
    split = small(write(tmp_path, val=photos)).split("val", ("group",))
    told = [split.sample(i, ("text",), None) for i in range(len(split))]
    assert [sample["text"] for sample in told] == [
        f"photo {id}, caption {n}" for id, count in counts.items() for n in range(count)
    ]
    assert Counter(sample["group"] for sample in told) == {0: 5, 1: 7, 2: 1, 3: 6}


def test_crowds_are_neither_labels_nor_counted(tmp_path):
    crowded = photo(1, instances=[(1, 7, 5.0, 0), (2, 5, 6.0, 0), (3, 2, 9.0, 1)])
    split = small(write(tmp_path, train=[crowded])).split("train", ("labels", "value"))
    assert split.sample(0, (), None) == {"labels": [1.0, 0.0], "value": 2.0}


@pytest.mark.parametrize("rng", [None, random.Random(0)])
def test_photos_that_share_a_caption_are_no_mismatch(tmp_path, rng):
    said = ["A surfer rides a wave.", "a surfer  rides a wave", "A dog."]
    photos = [photo(id, captions=[(id, text)]) for id, text in enumerate(said, 1)]
    split = small(write(tmp_path, train=photos)).split("train", ("match",))
    for _ in range(20):
        texts = [split.sample(i, ("text",), rng) for i in range(3)]
        for i, sample in enumerate(texts):
            dog = sample["text"] == "A dog."
            assert sample["match"] == (dog == (i == 2))


def test_the_only_photo_of_a_split_has_nothing_to_be_mistaken_for(tmp_path):
    captions = [(1, "one"), (2, "two"), (3, "three")]
    root = write(tmp_path, val=[photo(1, captions=captions)])
    split = small(root).split("val", ("match", "group"))
    told = [split.sample(i, ("text",), None) for i in range(3)]
    assert [(sample["text"], sample["match"]) for sample in told] == [
        ("one", 1),
        ("two", 1),
        ("three", 1),
    ]


def test_each_caption_that_cannot_be_read_is_counted_by_itself(tmp_path):
    photos = [photo(1, captions=[(1, "one"), (2, " "), (3, "three")]), photo(2)]
    split = small(write(tmp_path, val=photos)).split("val", ("group",))
    assert len(split) == 5
    with pytest.raises(BadSample, match=r"val2017/0+1\.jpg#1: empty caption"):
        split.sample(1, BOTH, None)
    assert split.sample(2, ("text",), None)["text"] == "three"


def test_captions_are_cleaned(tmp_path):
    photos = [
        photo(1, captions=[(1, "  two\r\nlines \0")]),
        photo(2, captions=[(2, " \r\n")]),
    ]
    split = small(write(tmp_path, train=photos)).split("train", LABEL)
    assert split.sample(0, BOTH, None)["text"] == "two lines"
    with pytest.raises(BadSample, match=r"train2017/000000000002.jpg: empty caption"):
        split.sample(1, BOTH, None)
    assert split.sample(1, ("image",), None)["image"].shape == (3, 64, 64)


def test_grey_and_cmyk_photos(tmp_path):
    pictures = [Image.new("L", (50, 40), 90), Image.new("CMYK", (50, 40), (0, 255, 255, 0))]
    photos = [photo(i, picture=picture) for i, picture in enumerate(pictures, 1)]
    split = small(write(tmp_path, train=photos)).split("train", LABEL)
    grey, red = (pixels(split.sample(i, BOTH, None)["image"])[32, 32] for i in (0, 1))
    assert np.abs(grey - 90).max() < 4
    assert red[0] > 230
    assert red[1:].max() < 25


def test_files_that_are_missing_or_damaged_are_bad_samples(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    photos = [photo(1, picture=None), photo(2, picture=file.getvalue()[:1500]), photo(3)]
    split = small(write(tmp_path, train=photos)).split("train", LABEL)
    for i, said in ((0, "1.jpg: missing file"), (1, "2.jpg: damaged picture: .*truncated")):
        with pytest.raises(BadSample, match=said):
            split.sample(i, BOTH, random.Random(0))
        assert split.sample(i, ("text",), None)["text"] == f"photo {i + 1}"
    assert split.sample(2, BOTH, None)["image"].shape == (3, 64, 64)


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "a\\..\\b.jpg", "..", ""])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    root = write(tmp_path, train=[photo(1), photo(2, file_name=name, picture=None)])
    with pytest.raises(UserError, match=r"captions_train2017\.json: image 2 has file_name"):
        small(root).split("train", LABEL)


def test_an_id_with_two_names_is_refused(tmp_path):
    root = write(tmp_path, train=[photo(1), photo(1, file_name="other.jpg")])
    with pytest.raises(UserError, match=r"image 1 is called 0+1\.jpg and other\.jpg"):
        small(root).split("train", LABEL)


def test_an_unknown_category_is_refused_with_its_annotation(tmp_path):
    root = write(tmp_path, train=[photo(3, instances=[(31, 99, 5.0, 0)])])
    with pytest.raises(UserError, match=r"instances_train2017.*annotation 31 of image 3.*_id 99"):
        small(root).split("train", LABEL)


def test_splits_with_other_classes_are_refused(tmp_path):
    root = write(tmp_path)
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["categories"].reverse()
    content["categories"].append({"id": 1, "name": "car", "supercategory": "vehicle"})
    path.write_text(json.dumps(content))
    said = r"train2017\.json: .* animal, kitchen, vehicle, but those of instances_val2017\.json are"
    with pytest.raises(UserError, match=said):
        small(root).split("train", LABEL)


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        ([], r"dataset\.train_split=train: .*no such samples; it has val \(1\)"),
        ([photo(1, captions=[])], r"dataset\.train_split=train: .*no such samples"),
        ([photo(1, instances=[])], r"no photo of train .*has an instance.*no label"),
    ],
)
def test_an_empty_split_is_refused(tmp_path, photos, said):
    with pytest.raises(UserError, match=said):
        small(write(tmp_path, train=photos)).split("train", LABEL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-9], r"truncated"),
        (lambda text: "", r"empty"),
        (lambda text: text.replace('"image_id": 1', '"image_id": "one"'), r"annotations\[0\]"),
        (lambda text: text.replace('"caption"', '"text"'), r"caption.*annotations\[0\]"),
        (lambda text: "[]", r"Expected"),
    ],
)
def test_malformed_files_are_named_with_the_place(tmp_path, change, said):
    root = write(tmp_path)
    path = root / "annotations/captions_train2017.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=rf"captions_train2017\.json: .*{said}"):
        small(root).split("train", LABEL)


def test_half_a_character_in_a_caption_costs_that_character(tmp_path):
    """JSON lets a lone surrogate through, as an escape; no text encoder could take it."""
    root = write(tmp_path)
    path = root / "annotations/captions_train2017.json"
    assert "photo 1" in path.read_text()
    path.write_text(path.read_text().replace("photo 1", "photo \\ud800"))
    split = small(root).split("train", LABEL)
    texts = [split.sample(index, ("text",), None)["text"] for index in range(len(split))]
    assert any(text.startswith("photo") and text[-1] in "?\ufffd" for text in texts)
    assert all(text.encode() for text in texts) and len(split.digest) == 64


def test_the_digest_tells_other_data_apart(tmp_path):
    variants: list[dict[str, Any]] = [
        {},
        {"captions": [(10, "another photo")]},
        {"instances": [(10, 2, 1.0, 0)]},
        {"file_name": "other.jpg"},
    ]
    digests = []
    for number, changes in enumerate(variants):
        root = write(tmp_path / str(number), train=[photo(1, **changes)])
        digests.append(small(root).split("train", LABEL).digest)
    assert len(set(digests)) == len(variants)
    shuffled = photo(1, captions=photo(1)["captions"][::-1])
    assert (
        small(write(tmp_path / "again", train=[shuffled])).split("train", LABEL).digest
        == digests[0]
    )
