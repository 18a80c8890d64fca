"""OpenMoji from its published files: real ones, and generated ones with what can go wrong."""

import csv
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmnet.dataset.openmoji import OpenMoji, OpenMojiSplit
from mmnet.errors import UserError
from mmnet.interfaces import TARGETS, BadSample, Dataset, Sample, Split
from tests.official import cropped


BOTH = ("image", "text")
LABEL = ("label",)
CROPPED, WHOLE = (cropped(share, 0.0) for share in (0.6, 1.0))
OFFERED = ("label", "group", "match")
REAL = [
    *("smileys-emotion", "people-body", "component", "animals-nature", "food-drink"),
    *("travel-places", "activities", "objects", "symbols"),
]


def openmoji(data: Path, **changes: Any) -> OpenMoji:
    settings = {
        "root": None,
        "folders": None,
        "num_classes": 9,
        "image_size": 32,
        "augment": CROPPED,
        "tag_probability": 0.0,
        "split_seed": 0,
        "val_fraction": 0.2,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return OpenMoji(**settings | changes, data=data)


def splits(dataset: OpenMoji, targets: tuple[str, ...] = LABEL) -> list[OpenMojiSplit]:
    return [dataset.split(name, targets) for name in ("train", "val")]


def told(split: OpenMojiSplit, modalities: tuple[str, ...] = ("text",)) -> list[Sample]:
    return [split.sample(i, modalities, None) for i in range(len(split))]


def texts(split: OpenMojiSplit) -> list[str]:
    return [sample["text"] for sample in told(split)]


def stem(annotation: str) -> str:
    return annotation.split(":")[0].lower()


# The published files


@pytest.fixture(scope="module")
def published(data: Path) -> dict[str, dict[str, str]]:
    """Hexcode -> what the file says."""
    with (data / "openmoji/openmoji.csv").open(encoding="utf-8", newline="") as file:
        return {row["hexcode"]: row for row in csv.DictReader(file)}


def row_of(published: dict[str, dict[str, str]], key: str) -> dict[str, str]:
    return published[Path(key).stem]


def test_it_fits_the_contract(data):
    dataset: Dataset = openmoji(data)
    split: Split = dataset.split("val", LABEL)
    assert (dataset.on_bad_sample, dataset.max_bad_fraction) == ("skip", 0.01)
    assert dataset.names.classes == REAL
    assert dataset.offers == OFFERED
    assert set(OFFERED) <= TARGETS.keys()
    assert (len(split), split.notes) == (285, {})


def test_real_samples_say_and_show_what_the_files_do(data, published):
    met = []
    for split in splits(openmoji(data)):
        for i, sample in enumerate(told(split)):
            row = row_of(published, split.key(i))
            assert split.key(i) == row["file_name"]
            assert sample["text"] == row["annotation"]
            assert REAL[sample["label"]] == row["group"]
            met.append(row["hexcode"])
        for i in range(0, len(split), 40):
            shown = split.sample(i, ("image",), None)["image"].permute(1, 2, 0).numpy()
            emoji = Image.open(data / "openmoji" / split.key(i)).convert("RGBA")
            page = Image.new("RGBA", emoji.size, "white")
            page.alpha_composite(emoji)
            expected = page.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
            assert np.abs(shown.astype(int) - np.asarray(expected, int)).max() <= 1
    assert sorted(met) == sorted(published)


def test_no_stem_is_in_both_splits_and_a_fifth_is_val(data, published):
    train, val = (
        {stem(row_of(published, split.key(i))["annotation"]) for i in range(len(split))}
        for split in splits(openmoji(data))
    )
    assert not train & val
    assert len(val) == pytest.approx(0.2 * len(train | val), rel=0.1)
    assert {sample["label"] for sample in told(openmoji(data).split("val", LABEL))} == set(range(9))


def test_variants_are_a_group_and_keycaps_are_not(data):
    groups: dict[str, set[int]] = defaultdict(set)
    for number, split in enumerate(splits(openmoji(data), ("group",))):
        for sample in told(split):
            groups[stem(sample["text"])].add(10_000 * number + sample["group"])
    assert len(groups.pop("keycap")) == 13
    assert {len(found) for found in groups.values()} == {1}
    assert len(set.union(*groups.values())) == len(groups)


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_text_matches_where_it_is_the_name_of_the_emoji(data, published, name):
    split = openmoji(data).split(name, OFFERED)
    names: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for i in range(len(split)):
        rng = random.Random(i) if name == "train" else None
        sample, own = split.sample(i, ("text",), rng), row_of(published, split.key(i))
        assert sample["match"] == (sample["text"] == own["annotation"])
        assert sample["match"] or stem(sample["text"]) != stem(own["annotation"])
        assert REAL[sample["label"]] == own["group"]
        names[sample["match"]][sample["text"]] += 1
    assert names[1].total() / len(split) == pytest.approx(
        0.5, abs=0.05 if name == "train" else 1 / len(split)
    )
    # The names that do not fit come from everywhere, too.
    assert len(names[0]) > 0.6 * names[0].total()
    again = openmoji(data).split("val", ("match",))
    assert name == "train" or texts(again) == [sample["text"] for sample in told(split)]


def test_other_pictures_of_the_same_emoji(data):
    plain, more = (
        openmoji(data, folders=folders).split("train", ("group", "label"))
        for folders in (["128x128_png32"], ["128x128_png32", "128x128_png8"])
    )
    assert 60 < len(more) - len(plain) < 100
    by_hexcode: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for i, sample in enumerate(told(more)):
        by_hexcode[Path(more.key(i)).stem].add((sample["text"], sample["group"], sample["label"]))
    assert {len(found) for found in by_hexcode.values()} == {1}
    assert len(by_hexcode) == len(plain)
    [few] = {openmoji(data, folders=["128x128_png8"]).split("val", LABEL).notes.popitem()}
    assert few[0] == "emoji without a picture"
    assert few[1] == 1200


def test_palette_pictures_look_like_the_others(data):
    splits_of = (openmoji(data, folders=[f"128x128_png{n}"]).split("train", LABEL) for n in (8, 32))
    palette, full = splits_of
    places = {Path(full.key(i)).stem: i for i in range(len(full))}
    for i in range(0, len(palette), 8):
        pictures = [
            np.asarray(split.sample(place, ("image",), None)["image"]).astype(int)
            for split, place in ((palette, i), (full, places[Path(palette.key(i)).stem]))
        ]
        assert np.abs(pictures[0] - pictures[1]).mean() < 6


def test_training_crops_by_its_random_numbers_and_evaluation_does_not(data):
    def picture(seed: int | None, modalities: tuple[str, ...] = BOTH, **changes: Any) -> bytes:
        split = openmoji(data, **changes).split("train", LABEL)
        rng = None if seed is None else random.Random(seed)
        return split.sample(3, modalities, rng)["image"].numpy().tobytes()

    assert picture(1) == picture(1) != picture(2)
    assert picture(None) == picture(None) != picture(1)
    tagged: Any = {"tag_probability": 0.5}
    assert picture(1, **tagged) == picture(1, ("image",), **tagged), "the crop depends on the text"
    assert picture(1, augment=WHOLE) == picture(None)


def test_pictures_are_never_mirrored(data):
    split = openmoji(data, augment=WHOLE).split("train", LABEL)
    for seed in range(20):
        sample = split.sample(0, ("image",), random.Random(seed))
        assert sample["image"].tolist() == split.sample(0, ("image",), None)["image"].tolist()
    with pytest.raises(UserError, match=r"augment\.random_flip=0\.5: openmoji is not to be"):
        openmoji(data, augment=cropped(1.0, 0.5))


def test_tags_follow_the_name_in_training_as_often_as_asked(data, published):
    split = openmoji(data, tag_probability=0.5).split("train", LABEL)
    tagged = []
    for i in range(600):
        row = row_of(published, split.key(i))
        known = [tag.strip() for tag in f"{row['tags']},{row['openmoji_tags']}".split(",")]
        assert split.sample(i, ("text",), None)["text"] == row["annotation"]
        text = split.sample(i, ("text",), random.Random(i))["text"]
        rest = text.removeprefix(row["annotation"])
        tags = rest.split(", ")[1:]
        assert text == ", ".join([row["annotation"], *tags])
        assert set(tags) <= set(known)
        assert len(set(tags)) == len(tags) <= 3
        tagged.append(len(tags))
    assert np.mean([count > 0 for count in tagged]) == pytest.approx(0.5, abs=0.06)
    assert set(tagged) == {0, 1, 2, 3}


def test_root_names_the_folder(data):
    assert len(openmoji(Path("nowhere"), root=str(data / "openmoji")).split("val", LABEL)) == 285
    with pytest.raises(UserError, match=r"dataset\.root=.*coco is no openmoji: .*openmoji\.csv"):
        openmoji(data, root=str(data / "coco"))
    with pytest.raises(UserError, match=r"dataset=openmoji wants .*openmoji\.csv"):
        openmoji(data / "coco")


def test_the_number_of_classes_must_be_that_of_the_file(data):
    with pytest.raises(
        UserError, match=r"dataset\.num_classes=12, but .* has 9: smileys-emotion, p"
    ):
        openmoji(data, num_classes=12)


# Generated files


HEADER = "emoji,hexcode,group,subgroups,annotation,tags,openmoji_tags,skintone"
ROWS = [
    'x,1F44B,people-body,hand,waving hand,"hand, wave",hello,',
    "x,1F44B-1F3FB,people-body,hand,waving hand: light skin tone,hand,,1",
    "x,1F44B-1F3FF,people-body,hand,Waving Hand: dark skin tone,hand,,5",
    "x,1F1E9-1F1EA,flags,country,flag: Germany,,,",
    "x,1F1EB-1F1F7,flags,country,flag: France,,,",
    "x,0031-FE0F-20E3,symbols,keycap,keycap: 1,keycap,,",
    "x,0032-FE0F-20E3,symbols,keycap,keycap: 2,keycap,,",
    'x,1F436,animals-nature,mammal,dog face,"dog, pet",,',
    "x,1F431,animals-nature,mammal,cat face,,,",
    "x,1F40D,animals-nature,reptile,snake,,,",
]


def write(
    root: Path,
    rows: list[str] = ROWS,
    header: str = HEADER,
    folders: tuple[str, ...] = ("color/72x72",),
    sheet: str = "data/openmoji.csv",
) -> Path:
    """OpenMoji as its repository has it; each picture is grey by folder, of the folder's size."""
    (root / sheet).parent.mkdir(parents=True, exist_ok=True)
    (root / sheet).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        side = int(folder.split("x")[-1].split("-")[0]) if "x" in folder else 20
        for row in rows:
            picture = Image.new("RGBA", (side, side), (50 * number,) * 3)
            picture.save(root / folder / f"{row.split(',')[1]}.png")
    return root


def small(root: Path, **changes: Any) -> OpenMoji:
    return openmoji(root, **{"num_classes": 4, "image_size": 16} | changes)


def all_told(dataset: OpenMoji, targets: tuple[str, ...]) -> dict[str, Sample]:
    """Hexcode -> sample, of both splits."""
    return {
        Path(split.key(i)).stem: sample
        for split in splits(dataset, targets)
        for i, sample in enumerate(told(split))
    }


def test_the_published_repository(tmp_path):
    dataset = small(write(tmp_path))
    assert dataset.names.classes == ["people-body", "flags", "symbols", "animals-nature"]
    found = all_told(dataset, LABEL)
    assert len(found) == len(ROWS)
    assert found["1F431"] == {"label": 3, "text": "cat face"}
    assert [split.key(0).rpartition("/")[0] for split in splits(dataset)] == ["color/72x72"] * 2


@pytest.mark.parametrize("folder", ["", "openmoji-72x72-color"])
def test_a_release_unpacked_beside_its_list(tmp_path, folder):
    found = all_told(small(write(tmp_path, folders=(folder,), sheet="openmoji.csv")), LABEL)
    assert len(found) == len(ROWS)


@pytest.mark.parametrize("fraction", [0.5, 0.7])
def test_stems_stay_together_and_flags_and_keycaps_mean_what_they_say(tmp_path, fraction):
    dataset = small(write(tmp_path), val_fraction=fraction)
    sides = [{stem(text) for text in texts(split)} for split in splits(dataset)]
    assert not sides[0] & sides[1]
    assert sides[0]
    assert sides[1]
    found = all_told(dataset, ("group",))
    waving = {found[code]["group"] for code in ("1F44B", "1F44B-1F3FB", "1F44B-1F3FF")}
    assert len(waving) == 1
    for one, other in (("1F1E9-1F1EA", "1F1EB-1F1F7"), ("0031-FE0F-20E3", "0032-FE0F-20E3")):
        assert found[one]["group"] != found[other]["group"]


def test_the_division_depends_on_the_stems_alone(tmp_path):
    before = splits(small(write(tmp_path / "a"), val_fraction=0.5))
    shuffled = [ROWS[0], *ROWS[:2:-1]]
    assert len(shuffled) < len(ROWS)
    after = splits(small(write(tmp_path / "b", shuffled), val_fraction=0.5))
    more = splits(small(write(tmp_path / "c", [*ROWS, MORE]), val_fraction=0.5))
    for one, other, larger in zip(before, after, more, strict=True):
        stems = {stem(text) for text in texts(one)}
        assert stems == {stem(text) for text in texts(other)}
        assert stems == {stem(text) for text in texts(larger)} - {"unicorn"}
    seeds = [splits(small(tmp_path / "a", val_fraction=0.5, split_seed=n))[1] for n in range(9)]
    assert len({tuple(texts(split)) for split in seeds}) > 1


MORE = "x,1F984,animals-nature,mammal,unicorn,,,"
FOLDERS = ("black/618x618", "black/72x72", "color/618x618", "color/72x72")


@pytest.mark.parametrize(
    ("there", "size", "chosen"),
    [
        (FOLDERS, 64, "color/72x72"),
        (FOLDERS, 72, "color/72x72"),
        (FOLDERS, 80, "color/618x618"),
        (FOLDERS, 1000, "color/618x618"),
        (FOLDERS[:2], 64, "black/72x72"),
        (("black/72x72", "mine"), 64, "mine"),
    ],
)
def test_of_several_folders_the_one_that_suits_is_taken(tmp_path, there, size, chosen):
    split = small(write(tmp_path, folders=there), image_size=size).split("train", LABEL)
    assert {split.key(i).rpartition("/")[0] for i in range(len(split))} == {chosen}


def test_a_folder_with_a_few_pictures_is_not_the_one(tmp_path):
    root = write(tmp_path, folders=("other/618x618",))
    write(root, ROWS[:3], folders=("color/72x72",))
    write(root)  # the whole list again
    for row in ROWS[3:]:
        (root / "color/72x72" / f"{row.split(',')[1]}.png").unlink()
    assert small(root).split("train", LABEL).key(0).startswith("other/618x618/")


def test_several_folders_are_several_pictures_of_an_emoji(tmp_path):
    root = write(tmp_path, folders=FOLDERS)
    dataset = small(root, folders=["color/72x72", "black/72x72"])
    train = dataset.split("train", ("group", "match"))
    assert len(train) == 2 * len(small(root).split("train", LABEL))
    for i in range(0, len(train), 2):
        pair = [train.sample(i + j, BOTH, None) for j in (0, 1)]
        assert pair[0]["group"] == pair[1]["group"]
        assert Path(train.key(i)).stem == Path(train.key(i + 1)).stem
        assert pair[0]["image"].tolist() != pair[1]["image"].tolist()


def test_a_folder_that_is_not_there_is_named_with_the_nearest(tmp_path):
    root = write(tmp_path, folders=FOLDERS)
    with pytest.raises(UserError, match=r"dataset\.folders: colour/72x72 .*mean 'color/72x72'\?"):
        small(root, folders=["colour/72x72"])
    with pytest.raises(UserError, match=r"dataset\.folders: \.\./secret holds no pictures"):
        small(root, folders=["../secret"])


def test_no_pictures_at_all_are_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path} holds no pictures .*such as 1F44B\.png"):
        small(write(tmp_path, folders=()))


def test_emoji_without_a_picture_are_left_out_and_counted(tmp_path):
    root = write(tmp_path)
    before = all_told(small(root), LABEL).keys()
    for code in ("1F44B-1F3FB", "1F1E9-1F1EA", "0031-FE0F-20E3"):
        (root / f"color/72x72/{code}.png").unlink()
    after = splits(small(root))
    assert [split.notes for split in after] == [{"emoji without a picture": 3}] * 2
    found = all_told(small(root), LABEL).keys()
    assert before - found == {"1F44B-1F3FB", "1F1E9-1F1EA", "0031-FE0F-20E3"}


def test_damaged_pictures_and_empty_names_are_bad_samples(tmp_path):
    rows = [*ROWS, "x,1F999,animals-nature,mammal, ,,,"]
    root = write(tmp_path, rows)
    (root / "color/72x72/1F431.png").write_bytes(b"\x89PNG")
    for split in splits(small(root)):
        for i in range(len(split)):
            said = {"1F431": "not a picture", "1F999": "empty caption"}.pop(
                Path(split.key(i)).stem, None
            )
            if said is None:
                assert split.sample(i, BOTH, None)
                continue
            with pytest.raises(BadSample, match=rf"{split.key(i)}: {said}"):
                split.sample(i, BOTH, random.Random(0))


def test_a_split_of_one_group_has_no_other_name_to_give(tmp_path):
    dataset = small(write(tmp_path, ROWS[:3]), num_classes=1, val_fraction=1e-9)
    split = dataset.split("train", ("match", "group"))
    for i in range(3):
        for rng in (None, random.Random(i)):
            assert split.sample(i, ("text",), rng)["match"] == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,../1F4,objects,a,b,c,d,", r"line 4: hexcode '\.\./1F4', expected code points"),
        ("x,,objects,a,b,c,d,", r"line 4: hexcode ''"),
        ("x,1F44B,objects,a,b,c,d,", r"line 4: hexcode 1F44B is there a second time"),
        ("x,1F999, ,a,b,c,d,", r"line 4: 1F999 has no group"),
        ("x,1F999,objects,a,b", r"line 4: 5 fields, expected 8"),
        ('x,1F999,objects,a,"b,c,d,', r"line 4: "),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, said):
    root = write(tmp_path)
    rows = [*ROWS[:2], row, *ROWS[2:]]
    (root / "data/openmoji.csv").write_text("\n".join([HEADER, *rows]))
    with pytest.raises(UserError, match=rf"data/openmoji\.csv, {said}"):
        small(root)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"empty, expected a header with hexcode, group, annotation, tags"),
        (HEADER, r"a header and no emoji"),
        (HEADER.replace("annotation", "annotations"), r"no column 'annotation'; .*'annotations'\?"),
        (HEADER.replace(",", ";"), r"line 1: the header has no column 'hexcode'"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, said):
    root = write(tmp_path)
    (root / "data/openmoji.csv").write_text(text)
    with pytest.raises(UserError, match=rf"openmoji\.csv.*{said}"):
        small(root)


def test_one_stem_cannot_be_divided(tmp_path):
    dataset = small(write(tmp_path, ROWS[:3]), num_classes=1)
    with pytest.raises(UserError, match=r"dataset=openmoji: of the 3 samples of .* none is for"):
        splits(dataset)


def test_the_digest_tells_other_data_apart(tmp_path):
    variants = [ROWS, [*ROWS[:-1], ROWS[-1].replace("snake", "cobra")], ROWS[:-1]]
    digests = []
    for number, rows in enumerate(variants):
        dataset = small(write(tmp_path / str(number), rows))
        digests.append(tuple(split.digest for split in splits(dataset)))
    assert len(set(digests)) == len(variants)
    assert digests[0][0] != digests[0][1]
    again = small(write(tmp_path / "again"))
    assert tuple(split.digest for split in splits(again)) == digests[0]
