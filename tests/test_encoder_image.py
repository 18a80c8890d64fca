"""Image encoders: timm's own features, of every kind of network, in every shape and pooling."""

import pickle
import re
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.naflex_transforms import Patchify
from torch import Tensor

from mmnet.encoder.image.naflex import NaFlex
from mmnet.encoder.image.timm import Timm
from mmnet.errors import UserError
from mmnet.interfaces import Inputs
from tests.towers import (
    CONVNEXT,
    NAFLEX,
    VIT,
    alone,
    apart,
    batch_for,
    convnext,
    naflex,
    noise,
    parameters_in,
    vit,
)


def bytes_of(size: int, batch: int = 2) -> Inputs:
    draw = torch.Generator().manual_seed(1)
    shape = (batch, 3, size, size)
    return Inputs(torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw), None)


def normalised(body: Any, image: Tensor) -> Tensor:
    mean, std = (torch.tensor(body.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (image / 255 - mean) / std


# Agreement with timm


def test_a_vit_gives_the_features_of_timm() -> None:
    encoder = vit().eval()
    sizes: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
    }
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes).eval()
    reference.load_state_dict(encoder.body.state_dict())
    image = bytes_of(32)
    features = encoder(image)
    expected = normalised(reference, image.values)
    assert apart(features.tokens, reference.forward_features(expected)) < 1e-5
    assert apart(features.pooled, reference(expected)) < 1e-5


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_a_convnext_gives_the_features_of_timm(pooling: str | None) -> None:
    encoder = convnext(image_size=64, pooling=pooling).eval()
    reference = timm.create_model("test_convnext", num_classes=0, output_stride=8).eval()
    reference.load_state_dict(encoder.body.state_dict())
    image = bytes_of(64)
    features = encoder(image)
    expected = normalised(reference, image.values)
    places = reference.forward_features(expected)
    assert features.tokens.shape == (2, 64, 64) and places.shape == (2, 64, 8, 8)
    assert apart(features.tokens[:, 8 * 3 + 5], places[:, :, 3, 5]) < 1e-5
    assert apart(features.pooled, reference(expected)) < 1e-5


@pytest.mark.parametrize("name", ["naflexvit_base_patch16_map", "naflexvit_base_patch16_gap"])
def test_naflex_gives_the_features_of_timm(name: str) -> None:
    """From patches that timm cuts, pictures of two shapes padded to one length."""
    encoder = naflex(name=name).eval()
    sizes: dict[str, Any] = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    reference = timm.create_model(
        name, num_classes=0, pos_embed_use_grid_sample=True, **sizes
    ).eval()
    reference.load_state_dict(encoder.body.state_dict())
    pictures = noise((48, 32), (16, 40))
    prepare = encoder.prepare
    features = encoder(prepare.collate([prepare(picture) for picture in pictures]))
    for row, picture in enumerate(pictures):
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        cut = Patchify(8)(normalised(reference, image))
        count = len(cut["patches"])
        cut = {key: value.unsqueeze(0) for key, value in cut.items()}
        assert count == picture.width * picture.height // 64
        assert apart(features.pooled[row], reference(cut)[0]) < 1e-5
        real = features.tokens[row][features.mask[row]]
        expected = reference.forward_features(**{k: cut[k] for k in cut})["patches"][0]
        assert apart(real, expected) < 1e-5


def test_on_its_own_grid_naflex_reads_positions_as_they_are() -> None:
    """16 x 16 patches, where nothing is interpolated, by whichever way."""
    encoder = naflex(patch_size=2, max_patches=256).eval()
    sizes: dict[str, Any] = {"patch_size": 2, "embed_dim": 32, "depth": 2, "num_heads": 2}
    reference = timm.create_model(NAFLEX["name"], num_classes=0, **sizes).eval()
    reference.load_state_dict(encoder.body.state_dict())
    (picture,) = noise((32, 32))
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    cut = {k: v.unsqueeze(0) for k, v in Patchify(2)(normalised(reference, image)).items()}
    features = encoder(encoder.prepare.collate([encoder.prepare(picture)]))
    assert apart(features.pooled, reference(cut)) < 1e-5


# Networks of every kind


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("deit3_small_patch16_224", 1),
        ("deit_tiny_distilled_patch16_224", 2),
        ("vit_small_patch14_dinov2", 1),
        ("vit_small_patch14_reg4_dinov2", 5),
        ("vit_small_patch16_dinov3", 5),
        ("vit_base_patch16_siglip_224", 0),
        ("vit_base_patch32_clip_224", 1),
        ("beit_base_patch16_224", 1),
    ],
)
@pytest.mark.parametrize("pooling", [None, "mean", "attention"])
def test_vits_of_every_kind(name: str, first: int, pooling: str | None) -> None:
    """With their class, distillation or register tokens, if any, before the 4 patches."""
    settings = VIT | {"name": name, "patch_size": None, "image_size": 2 * patch_of(name)}
    Timm.check(**settings | {"pooling": pooling})
    encoder = vit(**settings | {"pooling": pooling})
    features = encoder(bytes_of(settings["image_size"]))
    assert features.tokens.shape == (2, first + 4, 32) and features.pooled.shape == (2, 32)
    features.pooled.square().sum().backward()
    without = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


def patch_of(name: str) -> int:
    found = re.search(r"patch(\d+)", name)
    assert found
    return int(found[1])


@pytest.mark.parametrize("patch", [14, 16, 32])
def test_patches_of_the_usual_sizes(patch: int) -> None:
    encoder = vit(patch_size=patch, image_size=3 * patch)
    assert encoder(bytes_of(3 * patch)).tokens.shape == (2, 1 + 9, 32)


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (vit, {"reg_tokens": 2}),
        (vit, {"name": "deit_tiny_distilled_patch16_224"}),
        (vit, {"name": "vit_base_patch16_siglip_224"}),
        (vit, {"name": "vit_base_patch32_clip_224"}),
        (vit, {"name": "beit_base_patch16_224", "pooling": "attention"}),
        (convnext, {}),
        (convnext, {"pooling": "attention"}),
        (naflex, {"reg_tokens": 1}),
    ],
)
def test_layers_hold_each_parameter_once_in_the_order_of_use(
    build: Any, changes: dict[str, Any]
) -> None:
    encoder = build(**changes)
    layers = encoder.layers()
    found = [id(parameter) for parameter in parameters_in(layers)]
    assert len(found) == len(set(found))
    own = {id(p) for n, p in encoder.named_parameters() if not n.startswith("pool.")}
    assert set(found) == own
    names = {id(p): n for n, p in encoder.body.named_parameters()}
    blocks = [{names[id(p)] for p in parameters_in([layer])} for layer in layers[1:-1]]
    if hasattr(encoder.body, "stages"):
        depths = [len(stage.blocks) for stage in encoder.body.stages]
        places = [f"stages.{i}.blocks.{j}." for i, depth in enumerate(depths) for j in range(depth)]
    else:
        places = [f"blocks.{i}." for i in range(2)]
    assert len(blocks) == len(places)
    for held, place in zip(blocks, places, strict=True):
        assert any(name.startswith(place) for name in held)
        assert all(name.startswith(place) or "downsample" in name for name in held)
    first, last = ({names[id(p)] for p in parameters_in([layers[i]])} for i in (0, -1))
    before = ("patch_embed", "stem", "embeds", "norm_pre", "cls_token", "pos_embed", "reg_token")
    assert {name.split(".")[0] for name in first} <= {*before, "dist_token"}
    assert last and {name.split(".")[0] for name in last} <= {
        *("norm", "fc_norm", "attn_pool", "head")
    }


@pytest.mark.parametrize("build", [vit, convnext, naflex])
def test_without_normalize_pixels_are_only_scaled(build: Any) -> None:
    encoder, plain = build().eval(), build(normalize=False).eval()
    plain.load_state_dict(encoder.state_dict())
    seen: list[Tensor] = []

    def stop(pixels: Tensor, **_: Any) -> None:
        seen.append(pixels)
        raise Stopped

    plain.body.forward_features = stop
    values = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(32 * 32).view(32, 32, 3)
    inputs = plain.prepare.collate([plain.prepare(values.permute(2, 0, 1))])
    with pytest.raises(Stopped):
        plain(inputs)
    assert torch.equal(seen[0].unique(), torch.tensor([0, 0.2, 1]))
    with torch.no_grad():
        plain.mean.copy_(encoder.mean)
        plain.std.copy_(encoder.std)
    del plain.body.forward_features
    assert apart(plain(inputs).tokens, encoder(inputs).tokens) == 0


class Stopped(Exception):
    """What is behind it is not of interest."""


def test_register_tokens_stand_after_the_class_token() -> None:
    for encoder in (vit(reg_tokens=3), naflex(reg_tokens=3)):
        first = int(isinstance(encoder, Timm))  # this NaFlex has no class token
        inputs = batch_for(encoder.eval())
        before = encoder(inputs)
        assert before.tokens.shape == (4, first + 3 + 16, 32)
        place = encoder.body if first else encoder.body.embeds
        with torch.no_grad():
            place.reg_token[:, 1].copy_(torch.randn(32))
        moved = (encoder(inputs).tokens - before.tokens).abs().amax((0, 2))
        assert moved.argmax() == first + 1 and moved[first] > 1e-5


def test_other_sizes_than_image_size_on_request() -> None:
    dynamic = vit(dynamic_img_size=True)
    assert dynamic(bytes_of(48)).tokens.shape == (2, 1 + 36, 32)
    assert apart(dynamic.eval()(bytes_of(32)).pooled, vit().eval()(bytes_of(32)).pooled) == 0
    with pytest.raises(AssertionError):
        vit()(bytes_of(48))


def test_a_convnext_gives_a_token_every_output_stride_pixels() -> None:
    for stride, tokens in ((8, 64), (16, 16), (None, 4)):
        encoder = convnext(image_size=64, output_stride=stride)
        assert encoder(bytes_of(64)).tokens.shape == (2, tokens, 64)


# Pooling


def test_what_stands_for_the_picture() -> None:
    image = bytes_of(32)
    for pooling in ("cls", "mean", "attention"):
        encoder = vit(pooling=pooling, reg_tokens=2).eval()
        features = encoder(image)
        patches = features.tokens[:, 3:]
        assert patches.shape == (2, 16, 32)
        if pooling == "cls":
            assert apart(features.pooled, features.tokens[:, 0]) == 0
        elif pooling == "mean":
            assert apart(features.pooled, patches.mean(1)) < 1e-6
        else:
            pool: Any = encoder.pool
            assert apart(features.pooled, pool(patches, None)) == 0
            assert apart(features.pooled, patches.mean(1)) > 0.1


def test_a_query_of_its_own_in_place_of_the_models() -> None:
    """SigLIP's pooling is not kept beside ours: it would never get a gradient."""
    own, ours = (vit(name="vit_base_patch16_siglip_224", pooling=p) for p in (None, "attention"))
    assert own.body.attn_pool is not None and ours.body.attn_pool is None


@pytest.mark.parametrize("pooling", [None, "mean", "attention"])
@pytest.mark.parametrize("name", ["naflexvit_base_patch16_map", "naflexvit_base_patch16_gap"])
def test_padding_a_picture_changes_no_feature(name: str, pooling: str | None) -> None:
    encoder = naflex(name=name, pooling=pooling).eval()
    values, mask, _ = batch_for(encoder)
    assert mask is not None and mask.sum(1).tolist() == [16, 16, 8, 1]
    draw = torch.Generator().manual_seed(2)
    more = torch.randint(0, 256, (4, 5, values.shape[2]), dtype=torch.uint8, generator=draw)
    longer = torch.cat([values, more], 1)
    filled = torch.where(
        torch.nn.functional.pad(mask, (0, 5)).unsqueeze(-1), longer, longer.roll(1, 2) + 7
    )
    for inputs in (
        Inputs(values, mask),
        Inputs(filled, torch.nn.functional.pad(mask, (0, 5))),  # places in the padding, too
    ):
        together = encoder(inputs)
        for row, one in enumerate(alone(encoder)):
            assert apart(together.pooled[row], one.pooled[0]) < 1e-5
            real = together.tokens[row][together.mask[row]]
            assert apart(real, one.tokens[0]) < 1e-5


@pytest.mark.parametrize("build", [vit, convnext, naflex])
def test_permuting_the_batch_permutes_the_features(build: Any) -> None:
    encoder = build().eval()
    inputs = batch_for(encoder)
    order = torch.tensor([2, 0, 3, 1])
    turned = Inputs(inputs.values[order], None if inputs.mask is None else inputs.mask[order])
    assert apart(encoder(turned).pooled, encoder(inputs).pooled[order]) < 1e-5


# What is made of a picture


def test_the_whole_picture_is_squeezed_to_bytes() -> None:
    picture = Image.new("RGB", (60, 20), (255, 0, 10))
    inputs = vit().prepare.collate([vit().prepare(picture)] * 2)
    assert inputs.values.dtype == torch.uint8 and inputs.values.shape == (2, 3, 32, 32)
    assert inputs.values[0, :, 5, 5].tolist() == [255, 0, 10]


def test_a_picture_in_patches_with_their_places() -> None:
    prepare = naflex().prepare
    (picture,) = noise((24, 16))
    patches = prepare(picture)
    assert patches.dtype == torch.uint8 and patches.shape == (6, 8 * 8 * 3 + 2)
    assert patches[:, -2:].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    pixels = np.asarray(picture)
    assert patches[4, :-2].tolist() == pixels[8:16, 8:16].flatten().tolist()


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((640, 480), (4, 6)),  # shrunk, near its shape
        ((480, 640), (6, 4)),
        ((400, 100), (2, 8)),
        ((30, 30), (4, 4)),  # never enlarged, sides stretched to whole patches
        ((3, 3), (1, 1)),
        ((4000, 8), (1, 24)),
    ],
)
def test_a_picture_keeps_its_shape_within_max_patches(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    patches = naflex().prepare(Image.new("RGB", size))
    assert len(patches) <= 24
    assert tuple((patches[-1, -2:] + 1).tolist()) == grid


def test_a_place_fits_a_byte_in_the_longest_picture() -> None:
    patches = naflex(max_patches=1000).prepare(Image.new("RGB", (8 * 900, 8)))
    assert patches[:, -1].tolist() == list(range(len(patches))) and len(patches) == 255


def test_preprocessing_travels_without_the_weights() -> None:
    for encoder in (vit(), convnext(), naflex()):
        assert len(pickle.dumps(encoder.prepare)) < 4_000  # its blank picture, mostly


# What is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "vit_tiny_patch16_225"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"name": "resnet50"}, "not a vision transformer or ConvNeXt"),
        ({"pretrained": "weights.bin"}, r"expected null, hub or a \.safetensors file"),
        ({"pretrained": "absent.safetensors"}, "no such file"),
        ({"pretrained": "x" * 300 + ".safetensors"}, "pretrained=x.*: file name too long"),
        ({"image_size": 40, "patch_size": None}, "patches of 16 pixels"),
        ({"dim": None, "num_heads": 5}, "these sizes"),
        ({"output_stride": 8}, "output_stride=8: vit_tiny_patch16_224 has no such thing"),
        ({"name": "vit_base_patch16_siglip_224", "pooling": "cls"}, "no class token"),
        ({"name": "beit_base_patch16_224", "reg_tokens": 2}, "reg_tokens=2"),
        ({"name": "deit_tiny_distilled_patch16_224", "reg_tokens": 2}, "reg_tokens=2"),
        ({"name": "beit_base_patch16_224", "dynamic_img_size": True}, "leave it at false"),
    ],
)
def test_a_vit_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        Timm.check(**VIT | changes)
    assert str(error.value).startswith("encoder.image")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_size": 4}, "patch_size=4: test_convnext has no such thing; leave it at null"),
        ({"dim": 32}, "dim=32"),
        ({"depth": 2}, "depth=2"),
        ({"num_heads": 2}, "num_heads=2"),
        ({"reg_tokens": 1}, "reg_tokens=1"),
        ({"dynamic_img_size": True}, "dynamic_img_size=True"),
        ({"dropout": 0.1}, "dropout=0.1"),
        ({"pooling": "cls"}, "could be mean or attention"),
        ({"image_size": 36}, "tokens of 8 pixels"),
        ({"output_stride": None, "image_size": 48}, "tokens of 32 pixels"),
    ],
)
def test_a_convnext_has_no_settings_of_a_vit(changes: dict[str, Any], says: str) -> None:
    Timm.check(**CONVNEXT)
    with pytest.raises(UserError, match=says):
        Timm.check(**CONVNEXT | changes)
    with pytest.raises(UserError, match=says):  # as a library, without the check before
        Timm(**CONVNEXT | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "naflexvit_base_patch16_mapp"}, "did you mean 'naflexvit_base_patch16_map'"),
        ({"name": "vit_tiny_patch16_224"}, "not a vision transformer for pictures of any shape"),
        ({"name": "naflexvit_base_patch16_parfac_gap"}, "position embeddings are factorized"),
        ({"num_heads": 5}, "these sizes"),
        ({"pretrained": "absent.safetensors"}, "no such file"),
    ],
)
def test_naflex_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    NaFlex.check(**NAFLEX)
    with pytest.raises(UserError, match=says):
        NaFlex.check(**NAFLEX | changes)


# In training


@pytest.mark.parametrize("build", [vit, naflex])
@pytest.mark.parametrize("key", ["dropout", "drop_path"])
def test_dropout_is_honoured(build: Any, key: str) -> None:
    for rate in (0.0, 0.5):
        encoder = build(**{key: rate}).train()
        inputs = batch_for(encoder)
        torch.manual_seed(1)
        first = encoder(inputs).tokens
        assert (apart(encoder(inputs).tokens, first) > 0) == (rate > 0)
        encoder.eval()
        assert apart(encoder(inputs).tokens, encoder(inputs).tokens) == 0


def test_a_convnext_skips_blocks() -> None:
    encoder = convnext(drop_path=0.9).train()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("gamma"):  # from 1e-6, where skipping would hardly be seen
                parameter.fill_(1.0)
    assert apart(encoder(bytes_of(32)).pooled, encoder(bytes_of(32)).pooled) > 1e-3


@pytest.mark.parametrize(
    ("build", "changes"), [(vit, {"depth": 6}), (convnext, {}), (naflex, {"depth": 6})]
)
def test_recomputing_keeps_fewer_activations_and_the_same_gradients(
    build: Any, changes: dict[str, Any]
) -> None:
    kept, gradients = [], []
    for frugal in (False, True):
        encoder = build(**changes).train()
        inputs = batch_for(encoder)
        if frugal:
            encoder.checkpoint_activations()
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            pooled = encoder(inputs).pooled
        pooled.square().sum().backward()
        kept.append(sum(sizes))
        gradients.append([p.grad for p in encoder.parameters()])
    assert kept[1] < 0.6 * kept[0]
    for one, other in zip(*gradients, strict=True):
        assert apart(one, other) < 1e-5
