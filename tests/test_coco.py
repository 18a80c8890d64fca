"""COCO from its published files: real ones, and generated ones with what can go wrong."""

import contextlib
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mmnet.dataset.coco import Coco, CocoSplit
from mmnet.errors import UserError
from mmnet.interfaces import BadSample, Dataset, Split


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
        "num_classes": 12,
        "image_size": 64,
        "crop_scale": 0.5,
        "flip_probability": 0.5,
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


def labels(dataset: Coco, split: CocoSplit) -> dict[str, str]:
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
            assert own.size == photo.size and own.width != own.height
        assert square.size == (64, 64)
    drawn = splits[0].sample(0, ("image",), random.Random(0))["image"]
    assert drawn.size != splits[0].sample(0, ("image",), random.Random(1))["image"].size


def test_real_samples(data):
    dataset = coco(data)
    for name in ("train", "val"):
        split = dataset.split(name, LABEL)
        captions = published_captions(data, name)
        for i in range(len(split)):
            file_name = split.key(i).removeprefix(f"{name}2017/")
            sample = split.sample(i, BOTH, None)
            assert sample["text"] == captions[file_name][0]
            assert (sample["image"].mode, sample["image"].size) == ("RGB", (64, 64))
            photo = Image.open(data / "coco" / split.key(i)).convert("RGB").resize((64, 64), 2)
            assert np.abs(np.asarray(sample["image"]).astype(int) - np.asarray(photo)).mean() < 5
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
        return split.sample(3, modalities, rng)["image"].tobytes()

    assert picture(1) == picture(1) != picture(2)
    assert picture(None) == picture(None) != picture(1)
    assert picture(1) == picture(1, ("image",)), "the crop depends on what else is asked for"
    plain = coco(data, crop_scale=1.0, flip_probability=0.0).split("train", LABEL)
    assert plain.sample(3, BOTH, random.Random(1))["image"].tobytes() == picture(None)


def test_captions_without_instances_are_not_taken_for_coco(data):
    with pytest.raises(UserError) as error:
        coco(data / "coco_captions_full")
    for part in (
        "paths.data=",
        "coco_captions_full lacks",
        "instances_val2017.json",
        "dataset.root=",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r"dataset\.root=.* lacks .*instances_train2017\.json"):
        coco(data, root=str(data / "coco_captions_full"))


def test_root_names_the_folder(data):
    assert len(coco(Path("nowhere"), root=str(data / "coco")).split("val", LABEL)) == 79


def test_the_number_of_classes_must_be_that_of_the_file(data):
    with pytest.raises(UserError, match=r"dataset\.num_classes=80, but .*12 supercat.*person, veh"):
        coco(data, num_classes=80)


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
    assert split.sample(1, ("image",), None)["image"].size == (64, 64)


def test_grey_and_cmyk_photos(tmp_path):
    pictures = [Image.new("L", (50, 40), 90), Image.new("CMYK", (50, 40), (0, 255, 255, 0))]
    photos = [photo(i, picture=picture) for i, picture in enumerate(pictures, 1)]
    split = small(write(tmp_path, train=photos)).split("train", LABEL)
    grey, red = (np.asarray(split.sample(i, BOTH, None)["image"])[32, 32] for i in (0, 1))
    assert np.abs(grey.astype(int) - 90).max() < 4
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
    assert split.sample(2, BOTH, None)["image"]


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
    with pytest.raises(UserError, match=r"animal, kitchen, vehicle, but those of val are animal"):
        small(root).split("train", LABEL)


@pytest.mark.parametrize("photos", [[], [photo(1, instances=[])], [photo(1, captions=[])]])
def test_an_empty_split_is_refused(tmp_path, photos):
    with pytest.raises(UserError, match=r"captions_train2017.*train would be empty"):
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
