"""What training does to pictures: crops, mirrors, colours, policies, and when it does not."""

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mmnet.data.augment import augmented, resized, whole
from mmnet.data.colour import TO_YIQ, jittered
from mmnet.data.told import names_a_colour, names_a_side
from tests.official import cropped


PLAIN = replace(cropped(1), mind_text=True)


def slope(width: int, height: int) -> Tensor:
    """Redder to the right, greener below."""
    across = torch.linspace(0, 255, width).expand(height, width)
    down = torch.linspace(0, 255, height)[:, None].expand(height, width)
    return torch.stack([across, down, torch.zeros(height, width)]).round().to(torch.uint8)


def smooth(width: int, height: int, seed: int = 0) -> Tensor:
    """A picture of large and small blots, laid out as a decoder leaves it."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(seed + 1).integers(0, 20, (height, width, 1), dtype=np.uint8)
    return torch.from_numpy((large * 0.9 + grain).astype(np.uint8)).permute(2, 0, 1)


def apart(one: Tensor, other: Tensor) -> float:
    """Mean difference, of 255."""
    return float((one.float() - other.float()).abs().mean())


# Sizes


@pytest.mark.parametrize(("width", "height"), [(500, 375), (224, 300), (97, 60), (1, 1), (3000, 7)])
def test_resizing_is_that_of_pillow(width, height):
    picture = smooth(width, height)
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    theirs = np.array(image.resize((64, 48), Image.Resampling.BILINEAR))
    ours = resized(picture, (48, 64))
    assert ours.shape == (3, 48, 64)
    assert apart(ours, torch.from_numpy(theirs).permute(2, 0, 1)) < 0.5
    assert torch.equal(ours, resized(picture.contiguous(), (48, 64)))
    assert torch.equal(ours, F.resize(picture, [48, 64], antialias=True))


def test_a_crop_is_resized_as_that_part_of_the_picture():
    picture = smooth(500, 375)
    part = picture[:, 31:312, 40:333]
    assert torch.equal(resized(part, (64, 64)), resized(part.contiguous(), (64, 64)))


def test_resizing_keeps_the_whole_picture():
    small = whole(slope(96, 64), 16)
    assert small.shape == (3, 16, 16)
    assert small[:, 0, 0].max() <= 20 and small[:2, -1, -1].min() > 235


def test_a_picture_may_keep_its_shape():
    assert whole(slope(300, 90), None).shape == (3, 90, 300)
    assert whole(slope(4096, 1000), None).shape == (3, 250, 1024)
    assert whole(slope(5000, 1), None).shape == (3, 1, 1024)
    assert torch.equal(whole(slope(96, 64), None), slope(96, 64))


# Crops and mirrors


def crops(count: int, crop: float, flip: float) -> Iterator[tuple[float, float, bool]]:
    """(share of the area, aspect ratio, mirrored) of random crops, read off a slope."""
    picture, how = slope(1024, 1024), replace(PLAIN, random_crop=crop, random_flip=flip)
    for i in range(count):
        found = augmented(picture, 64, how, random.Random(i)).float()
        right, down = float(found[0, 32, -1] - found[0, 32, 0]), found[1, -1, 32] - found[1, 0, 32]
        # From the middle of the first pixel to that of the last: 63 of 64.
        yield abs(right) * float(down) / (256 * 63 / 64) ** 2, abs(right) / float(down), right < 0


def test_crops_follow_their_settings():
    share, aspect, mirrored = np.array(list(crops(300, 0.3, 0.5))).T
    assert share.min() > 0.27 and share.max() < 1.02
    assert share.min() < 0.36 and share.max() > 0.85
    assert aspect.min() > 0.72 and aspect.max() < 1.38
    assert aspect.min() < 0.82 and aspect.max() > 1.22
    assert 0.4 < mirrored.mean() < 0.6
    assert not any(flipped for *_, flipped in crops(20, 0.3, 0.0))
    assert all(flipped for *_, flipped in crops(20, 0.3, 1.0))


ALL = replace(
    PLAIN, random_crop=0.5, random_flip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), policy="rand"
)


@pytest.mark.parametrize("how", [ALL, replace(ALL, policy="trivial"), replace(ALL, policy=None)])
def test_the_random_numbers_decide_everything(how):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    picture = smooth(96, 64)
    before = picture.clone()
    first, again, other = (augmented(picture, 16, how, random.Random(i)) for i in (1, 1, 2))
    torch.manual_seed(4)
    moved = augmented(picture, 16, how, random.Random(1))
    assert torch.equal(first, again) and torch.equal(first, moved)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    augmented(picture, 16, how, random.Random(1))
    assert torch.equal(torch.get_rng_state(), state), "the run's own numbers were drawn"
    assert torch.equal(picture, before)


@pytest.mark.parametrize("size", [(1, 1), (3000, 7), (7, 3000), (64, 48)])
@pytest.mark.parametrize("policy", [None, "rand", "trivial"])
def test_crops_of_any_picture(size, policy):
    how = replace(ALL, random_crop=0.9, policy=policy)
    for seed in range(20):
        found = augmented(slope(*size), 32, how, random.Random(seed))
        assert found.shape == (3, 32, 32) and found.dtype == torch.uint8


def test_crops_in_the_shape_of_the_picture():
    """Their aspect ratios lie around that of the picture, and they are not enlarged."""
    wide, how = slope(800, 200), replace(PLAIN, random_crop=0.3, random_flip=0.5)
    sides = np.array([augmented(wide, None, how, random.Random(i)).shape[1:] for i in range(200)])
    aspect, share = sides[:, 1] / sides[:, 0], sides.prod(1) / (800 * 200)
    assert 2.9 < aspect.min() < 3.2 and 5.0 < aspect.max() < 5.5
    assert 0.28 < share.min() < 0.4 and 0.85 < share.max() <= 1
    assert augmented(slope(4000, 2000), None, PLAIN, random.Random(0)).shape == (3, 512, 1024)


def test_nothing_is_left_as_it_is():
    picture = smooth(96, 64)
    assert torch.equal(augmented(picture, None, PLAIN, random.Random(0)), picture)


# Colours


def luma(picture: Tensor) -> Tensor:
    return torch.from_numpy(TO_YIQ[0]) @ picture.flatten(1).float()


def changed(picture: Tensor, *strengths: float, seed: int = 0) -> Tensor:
    brightness, contrast, saturation, hue = strengths
    return jittered(picture.clone(), (brightness, contrast, saturation, hue), random.Random(seed))


def test_no_strength_changes_nothing():
    assert apart(changed(smooth(64, 48), 0, 0, 0, 0), smooth(64, 48)) < 0.01


@pytest.mark.parametrize("size", [(64, 48), (7, 5), (1, 1), (301, 201)])
def test_brightness_contrast_and_saturation_are_those_of_torchvision(size):
    picture = smooth(*size).float().mul(0.4).add(70).to(torch.uint8)  # away from both ends
    for seed in range(5):
        rng = random.Random(seed)
        brightness, contrast, saturation = (rng.uniform(0.8, 1.2) for _ in range(3))
        theirs = picture.float() / 255
        theirs = F.adjust_brightness(theirs, brightness)
        theirs = F.adjust_contrast(theirs, contrast)
        theirs = F.adjust_saturation(theirs, saturation)
        assert apart(changed(picture, 0.2, 0.2, 0.2, 0, seed=seed), theirs * 255) < 2


def test_the_hue_is_turned_and_luma_stays():
    picture = smooth(64, 48).float().mul(0.3).add(90).to(torch.uint8)
    for seed in range(5):
        turned = changed(picture, 0, 0, 0, 0.5, seed=seed)
        assert float((luma(turned) - luma(picture)).abs().max()) < 1.5
    distances = [apart(changed(picture, 0, 0, 0, 0.3, seed=i), picture) for i in range(9)]
    assert max(distances) > 5 > min(distances)
    grey = torch.full((3, 8, 8), 99, dtype=torch.uint8)
    assert torch.equal(changed(grey, 0, 0, 0, 0.5), grey)


def test_strengths_are_the_range_of_the_factors():
    grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    means = [float(changed(grey, 0.4, 0, 0, 0, seed=i).float().mean()) for i in range(300)]
    assert 60 <= min(means) < 64 and 136 < max(means) <= 140
    assert abs(np.mean(means) - 100) < 4
    flat = torch.stack([torch.full((8, 8), v, dtype=torch.uint8) for v in (120, 100, 90)])
    spans = [float(changed(flat, 0, 0, 1, 0, seed=i).float().std(0).mean()) for i in range(200)]
    assert min(spans) < 5 and max(spans) > 1.8 * float(flat.float().std(0).mean())


def test_what_leaves_the_range_is_clipped():
    white, black = (torch.full((3, 8, 8), v, dtype=torch.uint8) for v in (255, 0))
    for seed in range(20):
        assert changed(white, 0.9, 0, 0, 0, seed=seed).min() >= 25
        assert changed(black, 0.9, 0.9, 0.9, 0.5, seed=seed).max() == 0


# What the text says


@pytest.mark.parametrize(
    ("text", "side", "colour"),
    [
        ("the man on the left", True, False),
        ("Two dogs, the RIGHTMOST asleep.", True, False),
        ("opacity in the right-lower lobe", True, False),
        ("turn it counter-clockwise", True, False),
        ("dextrocardia", True, False),
        ("an upright piano in bright light, copyright Cleft", False, False),
        ("a red bus", False, True),
        ("Reddish sky over a blue-green sea", False, True),
        ("a golden retriever", False, True),
        ("the colour of money", False, True),
        ("a credit card, a predator, in a greenhouse", False, False),
        ("a black and white cat", False, False),
        ("", False, False),
    ],
)
def test_words_that_an_augmentation_would_make_untrue(text, side, colour):
    assert names_a_side(text) is side
    assert names_a_colour(text) is colour


def test_a_picture_is_not_mirrored_beside_a_text_that_names_a_side():
    how = replace(PLAIN, random_flip=1)
    straight, mirrored = slope(64, 64), slope(64, 64).flip(-1)

    def seen(text: str | None, minded: bool = True) -> Tensor:
        return augmented(straight, 64, replace(how, mind_text=minded), random.Random(0), text)

    assert torch.equal(seen("a cat on the left"), straight)
    assert torch.equal(seen("a cat on the left", minded=False), mirrored)
    assert torch.equal(seen("a cat"), mirrored)
    assert torch.equal(seen(None), mirrored)


def test_colours_stay_beside_a_text_that_names_one():
    picture = smooth(64, 64).float().mul(0.3).add(90).to(torch.uint8)
    how = replace(PLAIN, color_jitter=(0, 0, 0, 0.5))
    distances = {
        text: max(
            apart(augmented(picture, 64, how, random.Random(i), text), picture) for i in (1, 2)
        )
        for text in ("a red bus", "a bus")
    }
    assert distances["a red bus"] < 0.01 and distances["a bus"] > 5
    how = replace(PLAIN, policy="trivial")
    for seed in range(9):
        kept = augmented(picture, 64, how, random.Random(seed), "a red bus")
        assert torch.equal(kept, picture)
    assert any(
        not torch.equal(augmented(picture, 64, how, random.Random(seed), "a bus"), picture)
        for seed in range(9)
    )


def test_what_the_text_says_moves_no_other_random_number():
    how = replace(ALL, random_flip=0)
    left = augmented(smooth(96, 64), 32, how, random.Random(0), "the left one")
    assert torch.equal(left, augmented(smooth(96, 64), 32, how, random.Random(0), "the one"))


def test_policies_are_of_many_kinds():
    picture = smooth(64, 64)
    for policy in ("rand", "trivial"):
        how = replace(PLAIN, policy=policy)
        found = [augmented(picture, 64, how, random.Random(i)) for i in range(12)]
        assert sum(not torch.equal(a, b) for a, b in pairwise(found)) > 8


def test_a_decoded_jpeg_goes_through_as_it_is_laid_out():
    file = io.BytesIO()
    Image.fromarray(smooth(96, 64).permute(1, 2, 0).numpy()).save(file, "JPEG")
    found = augmented(smooth(96, 64), 32, ALL, random.Random(0))
    assert found.permute(1, 2, 0).is_contiguous()
