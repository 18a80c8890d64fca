"""Weights from files of many origins: what fitted is told, what is foreign is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from mmnet.errors import UserError
from tests.jobs import make_job, run_job
from tests.towers import OWN_SIZES, apart, batch_for, bert, convnext, naflex, text_bytes, vit


SIZES: dict[str, Any] = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def saved(folder: Path, tensors: dict[str, Tensor], prefix: str = "") -> str:
    file = folder / f"{len(list(folder.iterdir()))}.safetensors"
    save_file({f"{prefix}{name}": value.clone() for name, value in tensors.items()}, file)
    return str(file)


def moved(encoder: Any) -> dict[str, Tensor]:
    """Its weights, each a little different from those that the same seed draws."""
    return {name: value + 0.01 for name, value in encoder.state_dict().items()}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    """The one line of the report."""
    caplog.set_level(logging.INFO, "mmnet")

    def last() -> str:
        (record,) = [one for one in caplog.records if "taken over" in one.getMessage()]
        return str(record.getMessage())

    return last


def test_a_file_of_timm_fits_and_the_report_says_what_did(tmp_path: Path, said: Any) -> None:
    torch.manual_seed(1)
    source = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=7, **SIZES)
    file = saved(tmp_path, source.state_dict())
    encoder = vit(pretrained=file)
    for name, value in encoder.body.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
    assert said() == (
        f"encoder.image.pretrained={file}: {len(encoder.state_dict())} tensors taken over, "
        f"2 not used (head.bias, head.weight)"
    )


def test_positions_and_patches_are_resampled_and_the_report_says_so(
    tmp_path: Path, said: Any
) -> None:
    torch.manual_seed(1)
    other = SIZES | {"patch_size": 16}
    source = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=0, **other)
    encoder = vit(pretrained=saved(tmp_path, source.state_dict()))
    expected = resample_abs_pos_embed(source.state_dict()["pos_embed"], [4, 4])
    assert expected.shape == (1, 17, 32)
    assert apart(encoder.body.pos_embed, expected) < 1e-6
    assert torch.equal(encoder.body.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert "2 resampled to this tower's sizes" in said()
    assert "pos_embed [1, 37, 32] -> [1, 17, 32]" in said()
    assert "patch_embed.proj.weight [32, 3, 16, 16] -> [32, 3, 8, 8]" in said()


def test_naflex_takes_over_a_square_vit(tmp_path: Path, said: Any) -> None:
    torch.manual_seed(1)
    source = timm.create_model("vit_base_patch16_siglip_224", img_size=96, num_classes=0, **SIZES)
    encoder = naflex(
        name="naflexvit_base_patch16_siglip", pretrained=saved(tmp_path, source.state_dict())
    )
    assert torch.equal(encoder.body.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    weight = source.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(encoder.body.embeds.proj.weight, weight)
    assert encoder.body.embeds.pos_embed.shape == (1, 16, 16, 32)
    assert "(embeds.pos_embed [1, 144, 32] -> [1, 16, 16, 32])" in said()
    assert "not found" not in said() and "not used" not in said()


@pytest.mark.parametrize("prefix", ["", "module.", "visual.trunk.", "model.backbone."])
def test_what_stands_before_the_names_does_not_matter(prefix: str, tmp_path: Path) -> None:
    for source, build in ((convnext(), convnext), (vit(), vit)):
        tensors = {n.removeprefix("body."): v for n, v in moved(source).items()}
        encoder = build(pretrained=saved(tmp_path, tensors, prefix))
        for name, value in tensors.items():
            assert torch.equal(encoder.body.state_dict()[name], value), name


def test_a_pooling_of_our_own_starts_anew(tmp_path: Path, said: Any) -> None:
    tensors = {n.removeprefix("body."): v for n, v in moved(vit()).items()}
    encoder = vit(pooling="attention", pretrained=saved(tmp_path, tensors))
    assert torch.equal(encoder.body.norm.weight, tensors["norm.weight"])
    assert "of the tower's not found (pool.attend.latent, " in said()


@pytest.mark.train
def test_the_weights_of_a_run_are_those_of_its_towers(tmp_path: Path) -> None:
    """Both towers out of one model.safetensors, pooling included."""
    words = ("encoder.image.pooling=attention", "encoder.text.pooling=attention")
    job = run_job(make_job(tmp_path / "run", *words, "trainer.steps=2"))
    (file,) = (tmp_path / "run" / "checkpoints").glob("step_*/model.safetensors")
    same = [f"encoder.{modality}.pretrained='{file}'" for modality in ("image", "text")]
    other = make_job(tmp_path / "other", *words, *same, "seed=5")
    found, trained = other.model.state_dict(), job.model.state_dict()
    for name, value in trained.items():
        if name.startswith("encoders."):
            assert torch.equal(found[name], value), name
    assert not torch.equal(found["head.logits.weight"], trained["head.logits.weight"])


def test_a_text_tower_from_a_file(tmp_path: Path, said: Any) -> None:
    source = text_bytes(causal=True)
    file = saved(tmp_path, moved(source), "encoders.text.")
    copy = text_bytes(causal=True, pretrained=file)
    assert all(torch.equal(v, copy.state_dict()[n]) for n, v in moved(source).items())
    assert said() == f"encoder.text.pretrained={file}: {len(moved(source))} tensors taken over"


def test_a_bert_from_a_file_with_and_without_its_head(tmp_path: Path, said: Any) -> None:
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijk"]))
    source = bert(words)
    tensors = {n.removeprefix("body."): v for n, v in moved(source).items()}
    file = saved(
        tmp_path,
        {f"bert.{n}": v for n, v in tensors.items()} | {"cls.predictions.bias": torch.zeros(16)},
    )
    copy = bert(words, pretrained=file)
    assert all(torch.equal(v, copy.body.state_dict()[n]) for n, v in tensors.items())
    assert said().endswith(f"{len(tensors)} tensors taken over, 1 not used (cls.predictions.bias)")


# What is refused


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    text = saved(tmp_path, text_bytes().state_dict())
    for build in (vit, convnext, naflex):
        with pytest.raises(UserError, match="not the weights of this tower") as error:
            build(pretrained=text)
        assert str(error.value).startswith(f"encoder.image.pretrained={text}")
    image = saved(tmp_path, vit().state_dict())
    with pytest.raises(UserError, match=r"0 of its \d+ tensors found, not position, "):
        text_bytes(pretrained=saved(tmp_path, {"weight": torch.zeros(3)}))
    with pytest.raises(UserError, match="not the weights of this tower"):
        text_bytes(pretrained=image)


def test_most_of_a_tower_missing_is_refused(tmp_path: Path) -> None:
    for part in ("body.", ""):
        whole = {n.removeprefix(part): v for n, v in vit(depth=4).state_dict().items()}
        some = {n: v for n, v in whole.items() if "blocks." not in n or "blocks.0." in n}
        assert 0 < len(some) < len(whole) / 2
        says = rf"{len(some)} of its {len(whole)} tensors found, not blocks\.1\."
        with pytest.raises(UserError, match=says):
            vit(depth=4, pretrained=saved(tmp_path, some))


def test_other_sizes_are_refused_by_name(tmp_path: Path) -> None:
    file = saved(tmp_path, vit(dim=48, num_heads=3).state_dict())
    with pytest.raises(UserError, match=r"cls_token is \[1, 1, 48\] there and \[1, 1, 32\]"):
        vit(pretrained=file)
    longer = saved(tmp_path, text_bytes(max_length=64).state_dict())
    with pytest.raises(UserError, match=r"position is \[64, 32\] there and \[40, 32\]"):
        text_bytes(pretrained=longer)


def test_the_towers_of_a_run_are_not_taken_for_each_other(tmp_path: Path) -> None:
    file = saved(tmp_path, text_bytes().state_dict(), "encoders.text.")
    with pytest.raises(UserError, match="the weights of a run without encoder/image"):
        vit(pretrained=file)


def test_blocks_without_their_embeddings_are_refused(tmp_path: Path) -> None:
    """A text tower of the same width has such blocks, too."""
    some = {n: v for n, v in vit().state_dict().items() if "blocks." in n or "body.norm." in n}
    assert len(some) > 0.8 * len(vit().state_dict())
    with pytest.raises(UserError, match="not the weights of this tower"):
        vit(pretrained=saved(tmp_path, some))


def test_adapters_are_refused_by_name(tmp_path: Path) -> None:
    tensors = {"blocks.0.attn.qkv.lora_A.default.weight": torch.zeros(2, 32)}
    file = saved(tmp_path, tensors, "encoders.image.body.")
    with pytest.raises(UserError, match="holds LoRA adapters"):
        vit(pretrained=file)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(b"not a header")
    for build, key in ((vit, "image"), (naflex, "image"), (text_bytes, "text")):
        with pytest.raises(UserError, match=rf"encoder\.{key}\.pretrained=.*cannot be read"):
            build(pretrained=str(file))


def test_at_most_five_names_of_a_kind(tmp_path: Path, said: Any) -> None:
    tensors = {n.removeprefix("body."): v for n, v in vit(depth=3).state_dict().items()}
    vit(pretrained=saved(tmp_path, tensors))
    shown = said().partition("12 not used (")[2]
    assert shown.count("blocks.2.") == 5 and shown.endswith(", ...)")


def test_a_tower_of_the_models_own_sizes_takes_over_its_file(tmp_path: Path) -> None:
    """As published files are used: at another resolution, and nothing else changed."""
    torch.manual_seed(0)
    source = timm.create_model("test_vit", num_classes=7)
    encoder = vit(
        name="test_vit",
        image_size=64,
        pretrained=saved(tmp_path, source.state_dict()),
        **OWN_SIZES,
    )
    assert torch.equal(encoder.body.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert encoder(batch_for(encoder)).tokens.shape == (4, 1 + 16, 64)
