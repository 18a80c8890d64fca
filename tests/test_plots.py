"""The pictures of a run: they show what they should, and odd input does not stop them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmnet.report import plots
from mmnet.report.plots import Example, draw_confusion, draw_curves, draw_predictions
from mmnet.track.recorder import Recorder


BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
RED = np.zeros((24, 24, 3), np.uint8) + np.array([200, 0, 0], np.uint8)


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def share(path: Path, colour: tuple[int, int, int]) -> float:
    """Of the pixels that have this colour."""
    return float((np.abs(picture(path) - colour).max(-1) < 12).mean())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    recorder = Recorder(tmp_path)
    for step in range(1, 301):
        recorder.log(step, {"train/loss": 3 / step, "train/lr": 1e-3})
        if step % 100 == 0:
            recorder.log(step, {"val/loss": 3.5 / step})
    recorder.log(301, {"train/loss": float("nan"), "val/loss": float("inf")})
    recorder.close()
    return tmp_path


def test_curves(folder: Path) -> None:
    drawn = draw_curves(folder)
    assert [path.relative_to(folder).as_posix() for path in drawn] == [
        "plots/loss.png",
        "plots/rate.png",
    ]
    loss, rate = drawn
    assert picture(loss).shape[1] == picture(rate).shape[1] == 800
    assert share(loss, BLUE) > 0.001
    assert share(loss, VERMILLION) > 0.0005
    assert share(rate, BLUE) > 0.001
    assert {path.name for path in (folder / "plots").iterdir()} == {"loss.png", "rate.png"}
    # A level rate is a level line, in the picture's upper part.
    rows = np.nonzero((np.abs(picture(rate) - BLUE).max(-1) < 12).any(1))[0]
    assert np.ptp(rows) < 5
    assert rows.max() < picture(rate).shape[0] / 3


def test_curve_of_a_long_run_keeps_its_level(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for step in range(25_000):
        recorder.log(step, {"train/loss": 2.0 + (step % 2)})
    recorder.close()
    curve = plots.curves(tmp_path, ["train/loss"])["train/loss"]
    assert len(curve.steps) == 25_000
    smooth = plots.smoothed(curve)
    assert len(smooth.steps) <= 1000
    assert smooth.values == pytest.approx(2.5, abs=0.03)
    assert draw_curves(tmp_path)


def test_one_odd_step_at_an_end_bends_the_smoothed_curve_no_more_than_elsewhere() -> None:
    for place in (0, 100, 199):
        values = np.ones(200)
        values[place] = 2.0
        smooth = plots.smoothed(plots.Curve(np.arange(200.0), values)).values
        assert 1 < smooth.max() < 1.2, place


def test_nothing_recorded_draws_nothing(tmp_path: Path) -> None:
    assert draw_curves(tmp_path) == []


@pytest.mark.parametrize("number", [1, 2, 12, 25, 60])
def test_confusion(tmp_path: Path, number: int) -> None:
    matrix = np.eye(number) * 7
    names = [f"class ${index}_{{x" for index in range(number)]
    path = draw_confusion(tmp_path, matrix, names)
    assert path == tmp_path / "plots/confusion.png"
    assert picture(path).shape[1] == 800
    right = share(path, (8, 48, 107))  # the darkest of the map
    upset = draw_confusion(tmp_path, np.roll(matrix, 1, axis=0), names)
    assert share(upset, (8, 48, 107)) == pytest.approx(right, rel=0.2)
    assert not np.array_equal(picture(path)[:30], 255)


def test_confusion_of_nothing(tmp_path: Path) -> None:
    assert draw_confusion(tmp_path, np.zeros((3, 3)), ["a", "b", "c"]).exists()


def test_right_and_wrong_predictions_differ_at_a_glance(tmp_path: Path) -> None:
    right = Example(RED, "a red square", "red", "red  90%", True)
    wrong = right._replace(answer="blue", right=False)
    path = draw_predictions(tmp_path, [right] * 8)
    assert picture(path).shape[1] == 800
    assert share(path, (200, 0, 0)) > 0.2
    assert share(path, BLUE) > 0.01
    assert share(path, VERMILLION) == 0
    draw_predictions(tmp_path, [wrong] * 8)
    assert share(path, VERMILLION) > 0.01
    assert share(path, BLUE) == 0


def test_at_most_sixteen_predictions(tmp_path: Path) -> None:
    example = Example(RED, "t", "a", "a", True)
    sixteen = picture(draw_predictions(tmp_path, [example] * 16))
    assert np.array_equal(picture(draw_predictions(tmp_path, [example] * 40)), sixteen)


@pytest.mark.parametrize(
    "text",
    [
        "costs $5 and $6 {and} \\frac{1}{2} a_b^c %",
        "$unbalanced",
        "人々が公園で遊んでいる",
        "نص عربي للتجربة",
        "👨‍👩‍👧‍👦 e\u0301\u0301\u0301",
        "nul \x00 bell \x07 bidi \u202e end",
        "half \ud800 a pair",
        "x" * 100_000,
        "word " * 10_000,
        "",
    ],
)
def test_any_text_can_be_drawn(tmp_path: Path, text: str) -> None:
    example = Example(RED, text, text, "b", False)
    path = draw_predictions(tmp_path, [example, example._replace(image=None)])
    assert picture(path).shape[0] < 500
    draw_confusion(tmp_path, np.eye(2), [text, "b"])


def test_predictions_of_one_modality(tmp_path: Path) -> None:
    text_only = Example(None, "a red square", "red", "red  90%", True)
    image_only = Example(RED, None, "red", "blue", False)
    low = picture(draw_predictions(tmp_path, [text_only] * 4))
    high = picture(draw_predictions(tmp_path, [image_only] * 4))
    assert low.shape[0] < high.shape[0]
    assert draw_predictions(tmp_path, []).exists()
    tall = image_only._replace(image=np.zeros((90, 10, 3), np.uint8))
    assert draw_predictions(tmp_path, [tall, image_only]).exists()
