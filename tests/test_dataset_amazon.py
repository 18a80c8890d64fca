"""Amazon's products from their files: real ones, and generated ones with what can go wrong."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmnet.data.amazon_files import full_size, votes
from mmnet.data.html import shown
from mmnet.dataset.amazon import Amazon
from mmnet.errors import UserError
from tests.official import cropped, draw


HIGH = "https://images-na.ssl-images-amazon.com/images/I/"


def amazon(data: Path, **changes: Any) -> Amazon:
    settings = {
        "root": None,
        "text": "title",
        "label": "category",
        "num_classes": 2,
        "min_votes": 0,
        "without_picture": "keep",
        "image_size": 16,
        "augment": cropped(1.0, 0.0),
        "split_seed": 0,
        "val_fraction": 0.3,
        "on_bad_sample": "skip",
        "max_bad_fraction": 0.01,
    }
    return Amazon(**settings | changes, data=data)


OF_REVIEWS = {"text": "review", "label": "rating", "num_classes": 5}


def records(dataset: Amazon) -> list[Any]:
    return [dataset.table[row] for row in range(len(dataset.table))]


# The published files


def test_the_real_reviews_are_five_hundred_of_which_one_says_nothing(data: Path) -> None:
    found = amazon(data / "amazon_v2", **OF_REVIEWS)
    assert len(found.table) == 499
    assert found.table.notes == {"samples without a review": 1}
    first = found.table[0]
    assert first.captions[0].startswith("I'm old, and so is my computer. Any advice that can help")
    assert (first.label, first.group) == (3, "B00005N7P0")
    assert list(found.names.classes) == ["1", "2", "3", "4", "5"]
    told = Counter(record.label for record in records(found))
    assert told.total() == 499
    assert 310 <= told[4] <= 315


def test_the_real_titles_are_markup_for_the_most_part(data: Path) -> None:
    found = amazon(data / "amazon_v2", num_classes=1)
    assert (len(found.table), found.table.notes) == (51, {"samples without a title": 549})
    assert found.table[0].captions == ("Natural Health",)
    titles = {record.captions[0] for record in records(found)}
    assert "Disney & Me" in titles
    assert not any("<" in title or "&amp;" in title for title in titles)


def test_the_real_departments_are_one_whether_their_names_have_entities_or_not(data: Path) -> None:
    found = amazon(data / "amazon_v2", text="description", label="department", num_classes=24)
    assert "Arts, Music & Photography" in found.names.classes
    assert not any("&amp;" in name for name in found.names.classes)


@pytest.mark.parametrize("place", ["amazon_v2", "amazon_v2/old_generation"])
def test_pictures_of_either_generation_are_found(data: Path, tmp_path: Path, place: str) -> None:
    [name] = [path.name for path in (data / place).glob("meta_*")]
    (tmp_path / name).write_bytes((data / place / name).read_bytes())
    draw(tmp_path / "images/51Iph04Jy3L.jpg")  # 51Iph04Jy3L._SX38_SY50_CR,0,0,38,50_.jpg
    draw(tmp_path / "images/51sYMiQrGYL._SX38_SY50_CR,0,0,38,50_.jpg")
    found = amazon(tmp_path, text="description", num_classes=1, without_picture="leave_out")
    assert {record.image for record in records(found)} <= {
        "images/51Iph04Jy3L.jpg",
        "images/51sYMiQrGYL._SX38_SY50_CR,0,0,38,50_.jpg",
    }
    assert len(found.table) == (2 if "old" in place else len(found.table)) >= 1


# Generated files


def product(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "asin": f"B{number:03}",
        "title": f"Title &quot;{number}&quot;",
        "description": [f"<b>About</b> {number}.", "", "More&nbsp;of it"],
        "category": ["All", f"Part {number % 2}", "Deep"],
        "main_cat": ("Books &amp; more", "Toys")[number % 2],
        "rank": (["5 in x"], "5 in x")[number % 2],
        "price": ".a-box-inner{background-color:#fff}",
        "details": {"\n    Product Dimensions: \n    ": "3"},
        "imageURL": [f"{HIGH}p{number}._SS40_.jpg"],
        "imageURLHighRes": [f"{HIGH}p{number}.jpg"],
    } | changes


def review(number: int, stars: float = 5.0, **changes: Any) -> dict[str, Any]:
    return {
        "asin": f"B{number:03}",
        "overall": stars,
        "reviewerID": "A1",
        "reviewText": f"It&#34;s {number}<br />good <3",
        "summary": "Five Stars",
    } | changes


def write(
    folder: Path,
    meta: list[dict[str, Any]] | None = None,
    told: list[dict[str, Any]] | None = None,
    five: str = "_5",
) -> Path:
    for name, rows in (("meta_Toys.json.gz", meta), (f"Toys{five}.json.gz", told)):
        if rows is not None:
            text = "\n".join(map(json.dumps, rows)).encode()
            (folder / name).write_bytes(gzip.compress(text))
    return folder


MANY = [product(n) for n in range(10)]


def test_texts_are_what_was_asked_for_without_html(tmp_path: Path) -> None:
    write(tmp_path, MANY, [review(1)])
    assert amazon(tmp_path).table[1].captions == ('Title "1"',)
    described = amazon(tmp_path, text="description")
    assert described.table[1].captions == ('Title "1"\nAbout 1. More of it',)
    assert amazon(tmp_path, **OF_REVIEWS).table[0].captions == ('It"s 1 good <3',)
    rated = amazon(tmp_path, **OF_REVIEWS | {"text": "title"})
    assert (rated.table[0].captions, rated.table[0].label) == (('Title "1"',), 4)


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        ({"label": "category"}, ["Books & more", "Toys"]),
        ({"label": "department"}, ["Part 0", "Part 1"]),
        ({"label": "category", "text": "review"}, ["Books & more", "Toys"]),
    ],
)
def test_classes_are_those_that_the_files_name(
    tmp_path: Path, changes: dict[str, str], classes: list[str]
) -> None:
    write(tmp_path, MANY, [review(n) for n in range(10)])
    found = amazon(tmp_path, **changes)
    assert found.names.classes == classes
    assert [record.label for record in records(found)] == [n % 2 for n in range(10)]


def test_a_main_category_may_be_a_picture_or_missing(tmp_path: Path) -> None:
    picture = '<img src="https://x.org/nav.png" class="nav" alt="Toys &amp; Games" />'
    meta = [
        product(0, main_cat=picture),
        product(1, main_cat=""),
        product(2, main_cat=None, category=[]),
    ]
    found = amazon(write(tmp_path, meta))
    assert found.names.classes == ["All", "Toys & Games"]
    assert found.table.notes == {"samples without a category": 1}


def test_an_asin_that_is_there_again_is_the_first(tmp_path: Path) -> None:
    write(tmp_path, [*MANY, product(3, title="another", main_cat="Other")])
    found = amazon(tmp_path)
    assert [one.key for one in records(found)] == [f"B{n:03}" for n in range(10)]
    assert found.table[3].captions == ('Title "3"',)
    assert found.table.notes == {"products that are there again": 1}


def test_reviews_of_a_product_are_on_its_side(tmp_path: Path) -> None:
    write(
        tmp_path, [product(n) for n in range(40)], [review(n % 40, 1 + n % 5) for n in range(200)]
    )
    sides = []
    for changes in ({}, OF_REVIEWS):
        found = amazon(tmp_path, **changes)
        for name in ("train", "val"):
            split = found.split(name, ())
            sides.append({split.key(i).split()[-1] for i in range(len(split))})
    assert not sides[0] & sides[1]
    assert sides[0] == sides[2]
    assert sides[1] == sides[3]


def test_reviews_need_a_text_and_as_many_votes_as_asked_for(tmp_path: Path) -> None:
    told = [
        review(1, vote="1,204"),
        review(2, vote="3"),
        review(3),
        review(4, vote="9", reviewText=None),
        review(77, vote="12"),
    ]
    del told[1]["summary"]
    write(tmp_path, MANY, told)
    found = amazon(tmp_path, **OF_REVIEWS, min_votes=4)
    assert [record.group for record in records(found)] == ["B001", "B077"]
    assert found.table.notes == {
        "reviews of products that no metadata names": 1,
        "reviews with less than 4 votes": 2,
        "samples without a review": 1,
    }


@pytest.mark.parametrize(
    ("said", "count"), [("1,204", 1204), ("12", 12), (7, 7), (None, 0), ("", 0), ("1.204", 1204)]
)
def test_votes_are_words_with_separators(said: Any, count: int) -> None:
    assert votes(said) == count


def test_a_rating_that_is_none_is_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, told=[review(n, stars) for n, stars in enumerate((0.0, 4.5, 6.0, 1.0, 5.0))])
    found = amazon(tmp_path, **OF_REVIEWS, val_fraction=0.01)
    split = found.split("train", ("label",))
    assert split.notes["train: samples without label"] == 3
    assert [split.sample(i, ("text",), None)["label"] for i in (0, 1)] == [0, 4]


def test_all_reviews_are_taken_rather_than_the_5_core(tmp_path: Path) -> None:
    write(tmp_path, told=[review(1)])
    write(tmp_path, told=[review(1), review(2), review(3)], five="")
    found = amazon(tmp_path, **OF_REVIEWS)
    assert [one.key for one in records(found)] == [f"Toys.json.gz:{n} B00{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images/p1.jpg", True),
        ("images/p1._SS40_.jpg", True),
        ("images/p1.png", True),
        ("p1.jpg", True),
        ("images/B001.jpg", True),
        ("images/p11.jpg", False),
    ],
)
def test_where_a_picture_is_looked_for(tmp_path: Path, name: str, found: bool) -> None:
    draw(write(tmp_path, MANY) / name)
    dataset = amazon(tmp_path)
    assert [i for i, one in enumerate(records(dataset)) if one.image is not None] == [1] * found
    if found:
        split = amazon(tmp_path, val_fraction=0.01).split("train", ("label",))
        assert split.sample(1, ("image", "text"), None)["image"].shape == (3, 16, 16)
        assert "image" not in split.sample(2, ("image", "text"), None)
        only = amazon(tmp_path, without_picture="leave_out")
        assert [one.key for one in records(only)] == ["B001"]
        assert only.table.notes == {"samples without a picture": 9}


def test_the_sign_in_an_address_and_a_review_s_own_picture(tmp_path: Path) -> None:
    meta = [product(1, imageURLHighRes=[f"{HIGH}51se%2BqM.jpg"]), product(2)]
    write(tmp_path, meta, [review(1, image=[f"{HIGH}own._SY88.jpg"]), review(2)])
    draw(tmp_path / "images/51se+qM.jpg")
    draw(tmp_path / "images/own.jpg")
    assert amazon(tmp_path).table[0].image == "images/51se+qM.jpg"
    found = amazon(tmp_path, **OF_REVIEWS)
    assert [one.image for one in records(found)] == ["images/own.jpg", None]


@pytest.mark.parametrize(
    "thumbnail",
    ["a%2Bb._SS40_.jpg", "a%2Bb._SX38_SY50_CR,0,0,38,50_.jpg", "a%2Bb._SY88.jpg", "a%2Bb.jpg"],
)
def test_a_thumbnail_s_address_becomes_that_of_full_size(thumbnail: str) -> None:
    assert full_size(HIGH + thumbnail) == HIGH + "a%2Bb.jpg"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<span class="a-size-medium a-color-secondary"', ""),
        ('A <span class="x">B</span>', "A B"),
        ("a<br/>b<p>c</p>", "a b c"),
        ("I <3 it, a < b &lt;c&gt;", "I <3 it, a < b <c>"),
        ("<style>.a{b}</style>x<!-- y -->z<script>w", "xz"),
        ("&amp;eacute; &eacute; &#34; &nbsp; &unknown;", '&eacute; é " &unknown;'),
        ("<" * 50_000, "<" * 50_000),
        ("<a" * 50_000, ""),
    ],
)
def test_html_becomes_what_a_browser_shows(html: str, text: str) -> None:
    assert shown(html) == text


def test_files_that_a_setting_needs_are_said_to_be_missing(tmp_path: Path) -> None:
    write(tmp_path, told=[review(1)])
    with pytest.raises(UserError, match=r"text=title and dataset\.label=category want metadata"):
        amazon(tmp_path)
    (tmp_path / "Toys_5.json.gz").unlink()
    write(tmp_path, MANY)
    with pytest.raises(UserError, match=r"dataset\.label=rating wants reviews"):
        amazon(tmp_path, label="rating", num_classes=5)


def test_json_of_other_kinds_is_no_product_data(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset=amazon wants one folder"):
        amazon(data / "c4", **OF_REVIEWS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"asin": 5}, r"meta_Toys\.json\.gz, line 3: .*`str`, got `int` - at `\$\.asin`"),
        ({"title": []}, r"meta_Toys\.json\.gz, line 3: .*title"),
        ({"category": "x"}, r"meta_Toys\.json\.gz, line 3: .*category"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write(tmp_path, [*MANY[:2], MANY[2] | change, *MANY[3:]])
    with pytest.raises(UserError, match=said):
        amazon(tmp_path)
