"""Every part by its contract: shapes, masks, gradients, agreement with the libraries' own."""

import json
import pickle

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from mmnet.encoder.image.vit import ViT
from mmnet.encoder.text.bytes import Bytes
from mmnet.encoder.text.huggingface import HuggingFace
from mmnet.errors import UserError
from mmnet.fusion.concat import Concat
from mmnet.head.classification import Classification
from mmnet.interfaces import Features, Inputs
from mmnet.model import Multimodal


def vit(**changes):
    settings = {
        "name": "vit_tiny_patch16_224",
        "pretrained": None,
        "image_size": 32,
        "patch_size": 8,
        "dim": 32,
        "depth": 2,
        "num_heads": 2,
        "dropout": 0.0,
    }
    return ViT(**settings | changes)


def text_bytes(**changes):
    settings = {"max_length": 40, "dim": 32, "depth": 2, "num_heads": 2, "dropout": 0.0}
    return Bytes(**settings | changes)


def bert_settings(vocabulary, **changes):
    settings = {
        "name": None,
        "architecture": "bert",
        "tokenizer": str(vocabulary),
        "pretrained": False,
        "max_length": 77,
        "pooling": "cls",
        "dim": 32,
        "depth": 2,
        "num_heads": 2,
        "dropout": 0.0,
    }
    return settings | changes


@pytest.fixture
def vocabulary(data):
    return data / "bert_vocab" / "bert-base-uncased" / "vocab.txt"


@pytest.fixture(params=["bytes", "bert cls", "bert mean", "distilbert", "roberta"])
def text_encoder(request, vocabulary):
    torch.manual_seed(0)
    if request.param == "bytes":
        return text_bytes().eval()
    family, _, pooling = request.param.partition(" ")
    return HuggingFace(
        **bert_settings(vocabulary, architecture=family, pooling=pooling or "cls")
    ).eval()


CAPTIONS = ["a red circle", "which colour has the very small star?", "so", "ünïcode ✓"]


def test_padding_changes_no_feature(text_encoder):
    prepare = text_encoder.prepare
    alone = [text_encoder(prepare.collate([prepare(caption)])) for caption in CAPTIONS]
    values, mask = prepare.collate([prepare(caption) for caption in CAPTIONS])
    assert mask.sum(1).tolist() == [one.tokens.shape[1] for one in alone]
    pad = values.new_full((len(values), 3), int(values[~mask][0]))
    longer = Inputs(torch.cat([values, pad], 1), nn.functional.pad(mask, (0, 3)))
    for inputs in (Inputs(values, mask), longer):
        together = text_encoder(inputs)
        for row, one in enumerate(alone):
            assert (together.pooled[row] - one.pooled[0]).abs().max() < 1e-5
            real = together.tokens[row][together.mask[row]]
            assert (real - one.tokens[0]).abs().max() < 1e-5


def test_what_stands_in_the_padding_is_never_seen(text_encoder):
    prepare = text_encoder.prepare
    values, mask = prepare.collate([prepare(caption) for caption in CAPTIONS])
    noise = torch.where(mask, values, torch.full_like(values, 42))
    one, other = text_encoder(Inputs(values, mask)), text_encoder(Inputs(noise, mask))
    assert (one.pooled - other.pooled).abs().max() < 1e-5


def test_permuting_the_batch_permutes_the_features(text_encoder):
    prepare = text_encoder.prepare
    values, mask = prepare.collate([prepare(caption) for caption in CAPTIONS])
    order = torch.tensor([2, 0, 3, 1])
    straight = text_encoder(Inputs(values, mask)).pooled[order]
    assert (text_encoder(Inputs(values[order], mask[order])).pooled - straight).abs().max() < 1e-5


def test_long_captions_are_cut_to_max_length(vocabulary):
    assert text_bytes(max_length=5).prepare("abcdefgh").tolist() == list(b"abcde")
    encoder = HuggingFace(**bert_settings(vocabulary, max_length=6))
    ids = encoder.prepare("one two three four five six seven")
    assert len(ids) == 6 and ids[-1] == 102  # [SEP] is kept


def test_bert_tokens_equal_the_reference(data, vocabulary):
    prepare = HuggingFace(**bert_settings(vocabulary, max_length=512)).prepare
    golden = (data / "bert_vocab" / "golden_uncased.jsonl").read_text().splitlines()
    assert len(golden) > 50
    for line in map(json.loads, golden):
        assert prepare(line["text"]).tolist() == line["ids"], line["text"]


def test_a_caption_that_spells_the_pad_token_is_not_padding(vocabulary):
    prepare = HuggingFace(**bert_settings(vocabulary)).prepare
    _, mask = prepare.collate([prepare("[PAD] [PAD]"), prepare("a")])
    assert mask.tolist() == [[True] * 4, [True] * 3 + [False]]


def test_vit_gives_the_features_of_timm():
    torch.manual_seed(0)
    encoder = vit().eval()
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean = torch.tensor(encoder.body.pretrained_cfg["mean"]).view(3, 1, 1)
    std = torch.tensor(encoder.body.pretrained_cfg["std"]).view(3, 1, 1)
    expected = encoder.body((image / 255 - mean) / std)
    features = encoder(Inputs(image, None))
    assert (features.pooled - expected).abs().max() < 1e-5
    assert features.tokens.shape == (2, 1 + 16, 32)


def test_vit_loads_a_local_file_and_resamples_positions(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    same = {"patch_size": None, "dim": None, "depth": None, "num_heads": None}
    encoder = vit(image_size=32, pretrained=str(tmp_path / "vit.safetensors"), **same)
    weight = encoder.body.blocks[3].mlp.fc1.weight
    assert torch.equal(weight, source.blocks[3].mlp.fc1.weight)
    assert encoder.body.pos_embed.shape == (1, 1 + 4, 192)


def test_vit_refuses_a_file_that_does_not_fit(tmp_path):
    from safetensors.torch import save_file

    save_file({"blocks.0.norm1.weight": torch.zeros(5)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"encoder\.image\.pretrained"):
        vit(pretrained=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("deit_tiny_distilled_patch16_224", 2),
        ("vit_small_patch16_dinov3", 5),
        ("vit_base_patch16_siglip_224", 0),
        ("beit_base_patch16_224", 1),
    ],
)
def test_vits_of_every_kind(name, first):
    """With their class, distillation or register tokens, if any, before the 16 patches."""
    ViT.check(name=name, pretrained=None)
    encoder = vit(name=name, image_size=64, patch_size=None)
    features = encoder(Inputs(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), None))
    assert features.tokens.shape == (2, first + 16, 32) and features.pooled.shape == (2, 32)
    features.pooled.sum().backward()


def test_vit_refuses_a_damaged_file_and_odd_sizes(tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"not a header")
    with pytest.raises(UserError, match=r"encoder\.image\.pretrained"):
        vit(pretrained=str(tmp_path / "damaged.safetensors"))
    with pytest.raises(UserError, match="these sizes"):
        vit(dim=None, num_heads=5)
    with pytest.raises(UserError, match="patches of 16 pixels"):
        vit(image_size=40, patch_size=None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "vit_tiny_patch16_225"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"name": "resnet50"}, "not a vision transformer"),
        ({"pretrained": "weights.bin"}, r"\.safetensors file"),
        ({"pretrained": "absent.safetensors"}, "no such file"),
    ],
)
def test_vit_check_refuses_by_name(changes, says):
    settings = {"name": "vit_tiny_patch16_224", "pretrained": None} | changes
    with pytest.raises(UserError, match=says):
        ViT.check(**settings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokenizer": "absent/vocab.txt"}, "encoder.text.tokenizer=absent/vocab.txt"),
        ({"tokenizer": "no/such-tokenizer"}, "encoder.text.tokenizer=no/such-tokenizer"),
        ({"max_length": 513}, "has 512 positions"),
        ({"architecture": None}, "architecture, dim, depth and num_heads are needed"),
        ({"pretrained": True}, "needs encoder.text.name"),
        ({"name": "no/such-model"}, "leave them null"),
        (
            {
                "name": "no/such-model",
                "architecture": None,
                "dim": None,
                "depth": None,
                "num_heads": None,
            },
            "encoder.text.name=no/such-model",
        ),
    ],
)
def test_text_check_refuses_by_name(vocabulary, changes, says):
    with pytest.raises(UserError, match=says):
        HuggingFace.check(**bert_settings(vocabulary, **changes))


def test_text_encoder_from_a_local_folder(vocabulary, tmp_path):
    """By name: weights, config and vocabulary from a folder in the hub's layout."""
    torch.manual_seed(0)
    source = HuggingFace(**bert_settings(vocabulary))
    source.body.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    named = bert_settings(
        vocabulary,
        name=str(tmp_path),
        tokenizer=str(vocabulary),
        pretrained=True,
        architecture=None,
        dim=None,
        depth=None,
        num_heads=None,
    )
    HuggingFace.check(**named)
    copy = HuggingFace(**named)
    inputs = copy.prepare.collate([copy.prepare("a plane on a lake")])
    assert torch.equal(copy.eval()(inputs).pooled, source.eval()(inputs).pooled)


def test_preprocessing_travels_without_the_weights(vocabulary):
    assert len(pickle.dumps(vit().prepare)) < 1_000
    assert len(pickle.dumps(text_bytes().prepare)) < 1_000
    pickle.loads(pickle.dumps(HuggingFace(**bert_settings(vocabulary)).prepare))


def test_the_whole_picture_is_squeezed_to_bytes():
    picture = Image.new("RGB", (60, 20), (255, 0, 10))
    inputs = vit().prepare.collate([vit().prepare(picture)] * 2)
    assert inputs.values.dtype == torch.uint8 and inputs.values.shape == (2, 3, 32, 32)
    assert inputs.values[0, :, 5, 5].tolist() == [255, 0, 10]


def network(vocabulary):
    torch.manual_seed(0)
    encoders = {"image": vit(), "text": HuggingFace(**bert_settings(vocabulary))}
    fusion = Concat({"image": 32, "text": 32}, 24, 0.0)
    return Multimodal(encoders, fusion, Classification(24, 5, 0.0, 0.0))


def inputs_for(model):
    prepare = model.prepare()
    pictures = [Image.effect_noise((32, 32), 90).convert("RGB") for _ in CAPTIONS]
    return {
        "image": prepare["image"].collate([prepare["image"](p) for p in pictures]),
        "text": prepare["text"].collate([prepare["text"](c) for c in CAPTIONS]),
    }


def test_every_parameter_gets_a_finite_gradient(vocabulary):
    model = network(vocabulary)
    logits = model(inputs_for(model))
    assert logits.shape == (4, 5)
    model.head.loss(logits, {"label": torch.arange(4)}).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_answer_depends_on_each_modality(vocabulary, modality):
    model = network(vocabulary).eval()
    inputs = inputs_for(model)
    values, mask = inputs[modality]
    moved = Inputs(values.roll(1, 0), None if mask is None else mask.roll(1, 0))
    rolled = inputs | {modality: moved}
    assert (model(inputs) - model(rolled)).abs().max() > 1e-4


def test_recomputing_activations_changes_no_gradient(vocabulary):
    plain, frugal = network(vocabulary), network(vocabulary)
    for encoder in frugal.encoders.values():
        encoder.checkpoint_activations()
    inputs = inputs_for(plain)
    for model in (plain, frugal):
        model.train().head.loss(model(inputs), {"label": torch.arange(4)}).backward()
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() < 1e-6


@pytest.mark.parametrize("encoder", ["image", "text", "bytes"])
def test_recomputing_keeps_fewer_activations(vocabulary, encoder):
    build = {
        "image": lambda: vit(depth=6),
        "text": lambda: HuggingFace(**bert_settings(vocabulary, depth=6)),
        "bytes": lambda: text_bytes(depth=6),
    }[encoder]
    kept = []
    for frugal in (False, True):
        part = build().train()
        raw = Image.new("RGB", (32, 32)) if encoder == "image" else CAPTIONS[1]
        if frugal:
            part.checkpoint_activations()
        sizes: list[int] = []

        def note(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            part(part.prepare.collate([part.prepare(raw)] * 4))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_concat_adds_up():
    """Norms are identities on these numbers, so the MLP sees exactly the two vectors."""
    fusion = Concat({"a": 2, "b": 2}, 3, 0.0)
    seen = []
    fusion.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pair = torch.tensor([[1.0, -1.0]])
    features = {"b": Features(pair[:, None], -pair, None), "a": Features(pair[:, None], pair, None)}
    assert fusion(features).shape == (1, 3)
    assert torch.allclose(seen[0], torch.tensor([[1.0, -1.0, -1.0, 1.0]]), atol=1e-4)


def test_classification_loss_and_metrics_by_hand():
    head = Classification(4, 3, 0.0, 0.0)
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    targets = {"label": torch.tensor([0, 1, 0])}
    expected = -(torch.tensor([0.5, 0.8, 0.2]).log().mean())
    assert torch.isclose(head.loss(logits, targets), expected)
    metrics = head.metrics()
    head.update(metrics, logits, targets)
    found = metrics.compute()
    assert found["accuracy"].item() == pytest.approx(2 / 3)
    assert found["confusion"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert set(head.higher_is_better) == {k for k, v in found.items() if v.ndim == 0}


def test_label_smoothing_is_honoured():
    logits, targets = torch.tensor([[4.0, 0.0]]), {"label": torch.tensor([0])}
    sharp = Classification(4, 2, 0.0, 0.0).loss(logits, targets)
    smooth = Classification(4, 2, 0.1, 0.0).loss(logits, targets)
    assert smooth - sharp == pytest.approx(0.1 / 2 * 4.0, abs=1e-5)


@pytest.mark.parametrize("part", ["image", "bytes", "fusion", "head"])
def test_dropout_is_honoured(part):
    torch.manual_seed(0)
    values = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    ids = Inputs(torch.randint(0, 256, (2, 9)), torch.ones(2, 9, dtype=torch.bool))
    feature = torch.randn(2, 32)
    call = {
        "image": lambda rate: (lambda m: m(Inputs(values, None)).pooled)(vit(dropout=rate)),
        "bytes": lambda rate: (lambda m: m(ids).pooled)(text_bytes(dropout=rate)),
        "fusion": lambda rate: Concat({"a": 32}, 8, rate)({"a": Features(feature, feature, None)}),
        "head": lambda rate: Classification(32, 4, 0.0, rate)(feature),
    }[part]

    def twice(rate):
        torch.manual_seed(1)
        first = call(rate)
        torch.manual_seed(1)
        return first, call(rate), call(rate)

    first, same, _ = twice(0.5)
    assert torch.equal(first, same)
    torch.manual_seed(2)
    assert not torch.equal(first, call(0.5))
