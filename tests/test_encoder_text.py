"""Text encoders: transformers' own hidden states, padding that nothing sees, causal towers."""

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # it is, by its __all__
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, CLIPConfig, CLIPModel

from mmnet.encoder import hub
from mmnet.encoder.text.bytes import Bytes
from mmnet.encoder.text.huggingface import HuggingFace
from mmnet.encoder.text.sources import FAMILY
from mmnet.errors import UserError
from mmnet.interfaces import Inputs
from tests.towers import (
    BERT,
    BYTES,
    CAPTIONS,
    alone,
    apart,
    batch_for,
    bert,
    parameters_in,
    text_bytes,
)


NAMED = dict.fromkeys(("architecture", "dim", "depth", "num_heads"))  # `name` says it


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters, at the start of a word and within it: a hundredth of BERT's, as good here."""
    letters = "abcdefghijklmnopqrstuvwxyz?"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    file = tmp_path_factory.mktemp("words") / "vocab.txt"
    file.write_text("\n".join([*special, *letters, *(f"##{letter}" for letter in letters)]))
    return file


@pytest.fixture(scope="session")
def published(data: Path) -> Path:
    return data / "bert_vocab" / "bert-base-uncased" / "vocab.txt"


KINDS: dict[str, dict[str, Any]] = {
    "bytes": {},
    "bytes attention": {"pooling": "attention"},
    "bytes causal": {"causal": True, "pooling": "last"},
    "bytes causal mean": {"causal": True},
    "bert": {},
    "bert mean": {"pooling": "mean"},
    "bert attention": {"pooling": "attention"},
    "bert last": {"pooling": "last"},
    "distilbert": {"architecture": "distilbert"},
    "roberta": {"architecture": "roberta"},
    "modernbert": {"architecture": "modernbert"},
    "clip": {"architecture": "clip", "pooling": "last"},
    "clip attention": {"architecture": "clip", "pooling": "attention"},
}


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Any:
    changes = KINDS[request.param]
    if request.param.startswith("bytes"):
        return text_bytes(**changes).eval()
    return bert(request.getfixturevalue("vocabulary"), **changes).eval()


# Padding and order


def test_padding_changes_no_feature(encoder: Any) -> None:
    values, mask, _ = batch_for(encoder)
    singly = alone(encoder)
    assert mask is not None
    assert mask.sum(1).tolist() == [one.tokens.shape[1] for one in singly]
    pad = values.new_full((len(values), 3), int(values[~mask][0]))
    longer = Inputs(torch.cat([values, pad], 1), nn.functional.pad(mask, (0, 3)))
    for inputs in (Inputs(values, mask), longer):
        together = encoder(inputs)
        for row, one in enumerate(singly):
            assert apart(together.pooled[row], one.pooled[0]) < 1e-5
            assert apart(together.tokens[row][together.mask[row]], one.tokens[0]) < 1e-5


def test_what_stands_in_the_padding_is_never_seen(encoder: Any) -> None:
    values, mask, _ = batch_for(encoder)
    assert mask is not None
    noise = torch.where(mask, values, torch.full_like(values, 42))
    one, other = encoder(Inputs(values, mask)), encoder(Inputs(noise, mask))
    assert apart(one.pooled, other.pooled) < 1e-5


def test_permuting_the_batch_permutes_the_features(encoder: Any) -> None:
    values, mask, _ = batch_for(encoder)
    order = torch.tensor([2, 0, 3, 1])
    straight = encoder(Inputs(values, mask)).pooled[order]
    assert apart(encoder(Inputs(values[order], mask[order])).pooled, straight) < 1e-5


def test_every_parameter_gets_a_finite_gradient(encoder: Any) -> None:
    encoder(batch_for(encoder)).pooled.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_layers_hold_each_parameter_once_in_the_order_of_use(encoder: Any) -> None:
    layers = encoder.layers()
    found = [id(parameter) for parameter in parameters_in(layers)]
    assert len(found) == len(set(found)) and len(layers) == 4
    assert set(found) == {id(p) for n, p in encoder.named_parameters() if not n.startswith("pool.")}
    names = {id(p): n for n, p in encoder.named_parameters()}
    for number, layer in enumerate(layers[1:3]):
        assert all(f".{number}." in f".{names[id(p)]}" for p in parameters_in([layer]))
    assert any("embed" in names[id(p)] for p in parameters_in(layers[:1]))
    assert all("norm" in names[id(p)] for p in parameters_in(layers[3:]))


# Agreement with transformers


def golden(data: Path) -> list[dict[str, Any]]:
    lines = (data / "bert_vocab" / "golden_uncased.jsonl").read_text().splitlines()
    assert len(lines) > 50
    return [json.loads(line) for line in lines]


def test_bert_tokens_equal_the_reference(data: Path, published: Path) -> None:
    prepare = bert(published, max_length=512).prepare
    for line in golden(data):
        assert prepare(line["text"]).tolist() == line["ids"], line["text"]


def test_bert_hidden_states_equal_the_reference(data: Path, published: Path) -> None:
    """The golden tokenisations one by one through transformers, ours padded in batches."""
    encoder = bert(published, max_length=512).eval()
    reference = BertModel(
        BertConfig(
            vocab_size=30522,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
        ),
        add_pooling_layer=False,
    ).eval()
    reference.load_state_dict(encoder.body.state_dict())
    lines = golden(data)
    with torch.no_grad():
        for start in range(0, len(lines), 16):
            some = lines[start : start + 16]
            features = encoder(
                encoder.prepare.collate([encoder.prepare(one["text"]) for one in some])
            )
            for row, line in enumerate(some):
                ids = torch.tensor([line["ids"]])
                expected = reference(input_ids=ids).last_hidden_state[0]
                assert apart(features.tokens[row][features.mask[row]], expected) < 1e-5
                assert apart(features.pooled[row], expected[0]) < 1e-5


def test_clip_pools_where_transformers_does(vocabulary: Path) -> None:
    encoder = bert(vocabulary, architecture="clip", pooling="last").eval()
    inputs = batch_for(encoder)
    body: Any = encoder.body
    expected = body(input_ids=inputs.values, attention_mask=inputs.mask.long()).pooler_output
    assert apart(encoder(inputs).pooled, expected) < 1e-5


@pytest.mark.parametrize("family", FAMILY)
def test_every_family_that_a_name_may_be_of(family: str, vocabulary: Path, tmp_path: Path) -> None:
    names = ("pad", "bos", "eos", "cls", "sep")
    config = AutoConfig.for_model(
        family,
        **dict(zip((f"{name}_token_id" for name in names), (0, 2, 3, 2, 3), strict=True)),
        vocab_size=59,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    build: Any = AutoModel
    build.from_config(config).save_pretrained(tmp_path)
    settings = BERT | NAMED | {"name": str(tmp_path), "tokenizer": str(vocabulary)}
    settings |= {"pooling": "mean", "pretrained": "hub"}
    HuggingFace.check(**settings)
    encoder = HuggingFace(**settings).eval()
    together = encoder(batch_for(encoder))
    for row, one in enumerate(alone(encoder)):
        assert apart(together.pooled[row], one.pooled[0]) < 1e-5
    parameters = {id(p) for n, p in encoder.named_parameters() if not n.startswith("pool.")}
    assert {id(p) for p in parameters_in(encoder.layers())} == parameters


# Causal towers


@pytest.mark.parametrize("kind", ["bytes", "clip"])
def test_a_causal_tower_does_not_look_ahead(kind: str, request: pytest.FixtureRequest) -> None:
    causal: Any
    plain: Any
    if kind == "bytes":
        causal, plain = text_bytes(causal=True).eval(), text_bytes().eval()
    else:
        words = request.getfixturevalue("vocabulary")
        causal, plain = bert(words, architecture="clip", pooling="last").eval(), bert(words).eval()
    for tower, sees in ((causal, False), (plain, True)):
        values, mask, _ = tower.prepare.collate([tower.prepare("a red circle and a star")])
        changed = values.clone()
        changed[0, -2] = 42
        one, other = (tower(Inputs(ids, mask)).tokens[0, :-2] for ids in (values, changed))
        assert (apart(one, other) > 1e-4) == sees
    values, mask, _ = causal.prepare.collate([causal.prepare("a red circle and a star")])
    changed = values.clone()
    changed[0, 0] = 42
    assert apart(causal(Inputs(changed, mask)).pooled, causal(Inputs(values, mask)).pooled) > 1e-4


def test_the_first_token_of_a_causal_tower_is_no_summary(vocabulary: Path) -> None:
    settings = BERT | {"tokenizer": str(vocabulary), "architecture": "clip"}
    with pytest.raises(UserError, match="could be last, mean or attention"):
        HuggingFace.check(**settings)


# Pooling


@pytest.mark.parametrize("pooling", ["cls", "mean", "attention", "last"])
def test_what_stands_for_the_caption(pooling: str, vocabulary: Path) -> None:
    encoder = bert(vocabulary, pooling=pooling).eval()
    features = encoder(batch_for(encoder))
    for tokens, mask, pooled in zip(features.tokens, features.mask, features.pooled, strict=True):
        real = tokens[mask]
        pool: Any = encoder.pool
        expected = {"cls": real[0], "mean": real.mean(0), "last": real[-1]}
        if pooling == "attention":
            expected["attention"] = pool(real[None], None)[0]
        distances = {name: apart(pooled, one) for name, one in expected.items()}
        assert distances.pop(pooling) < 1e-5 < min(distances.values())


# Preprocessing


def test_long_captions_are_cut_to_max_length(vocabulary: Path) -> None:
    assert text_bytes(max_length=5).prepare("abcdefgh").tolist() == list(b"abcde")
    ids = bert(vocabulary, max_length=6).prepare("one two three four five six seven")
    assert len(ids) == 6 and ids[-1] == 3  # [SEP] is kept


def test_a_caption_that_spells_the_pad_token_is_not_padding(vocabulary: Path) -> None:
    prepare = bert(vocabulary).prepare
    mask = prepare.collate([prepare("[PAD] [PAD]"), prepare("a")]).mask
    assert mask is not None and mask.tolist() == [[True] * 4, [True] * 3 + [False]]


def test_preprocessing_travels_without_the_weights(vocabulary: Path) -> None:
    assert len(pickle.dumps(text_bytes().prepare)) < 1_000
    pickle.loads(pickle.dumps(bert(vocabulary).prepare))


# Where it comes from


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokenizer": "absent/vocab.txt"}, "encoder.text.tokenizer=absent/vocab.txt"),
        ({"tokenizer": "no/such-tokenizer"}, "encoder.text.tokenizer=no/such-tokenizer"),
        ({"max_length": 513}, "has 512 positions"),
        ({"max_length": 78, "architecture": "clip", "pooling": "last"}, "has 77 positions"),
        ({"architecture": None}, "architecture, dim, depth and num_heads are needed"),
        ({"pretrained": "hub"}, "needs encoder.text.name"),
        ({"pretrained": "weights.bin"}, "expected null, hub or a .safetensors file"),
        ({"pretrained": "absent.safetensors"}, "no such file"),
        ({"name": "no/such-model"}, "leave them null"),
        ({"name": "no/such-model"} | NAMED, "encoder.text.name=no/such-model"),
    ],
)
def test_a_bert_is_refused_by_name(vocabulary: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        HuggingFace.check(**BERT | {"tokenizer": str(vocabulary)} | changes)


@pytest.mark.parametrize(
    ("pretrained", "says"),
    [("hub", "no weights of this tower are published"), ("absent.safetensors", "no such file")],
)
def test_bytes_are_refused_by_name(pretrained: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Bytes.check(**BYTES | {"pretrained": pretrained})


def test_a_bert_from_a_local_folder(
    vocabulary: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By name: weights, config and vocabulary from a folder in the hub's layout."""
    source = bert(vocabulary)
    body: Any = source.body
    body.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    capfd.readouterr()
    named = {"name": str(tmp_path), "pretrained": "hub", **NAMED}
    HuggingFace.check(**BERT | {"tokenizer": str(vocabulary)} | named)
    copy = bert(vocabulary, **named)
    assert capfd.readouterr() == ("", "")  # no progress bars, no report but the one in the log
    inputs = batch_for(copy)
    assert torch.equal(copy.eval()(inputs).pooled, source.eval()(inputs).pooled)


def test_weights_that_are_not_those_of_the_folders_config_are_refused(
    vocabulary: Path, tmp_path: Path
) -> None:
    bert(vocabulary, architecture="distilbert").body.save_pretrained(tmp_path)
    bert(vocabulary).body.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"not the weights of this tower: \d of its \d+ tensors"):
        bert(vocabulary, name=str(tmp_path), pretrained="hub", **NAMED)


def test_the_text_tower_of_a_whole_clip(vocabulary: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    whole = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": 59, "bos_token_id": 2, "eos_token_id": 3},
            vision_config={**small, "image_size": 32, "patch_size": 16},
        )
    )
    whole.save_pretrained(tmp_path)
    file = str(tmp_path / "model.safetensors")
    for pretrained in ("hub", file):
        named = {"name": str(tmp_path), "pretrained": pretrained, "pooling": "last", **NAMED}
        body: Any = bert(vocabulary, **named).body
        for name, value in whole.text_model.state_dict().items():
            assert torch.equal(body.state_dict()[name], value), name


# In training


def test_dropout_is_honoured(vocabulary: Path) -> None:
    for architecture in (None, "bert", "modernbert", "clip"):
        for rate in (0.0, 0.5):
            tower: Any = (
                text_bytes(dropout=rate)
                if architecture is None
                else bert(vocabulary, architecture=architecture, pooling="mean", dropout=rate)
            )
            inputs = batch_for(tower.train())
            assert (apart(tower(inputs).pooled, tower(inputs).pooled) > 0) == (rate > 0)
            tower.eval()
            assert apart(tower(inputs).pooled, tower(inputs).pooled) == 0


@pytest.mark.parametrize("kind", ["bytes", "bert", "modernbert", "clip"])
def test_recomputing_keeps_fewer_activations_and_the_same_gradients(
    kind: str, request: pytest.FixtureRequest
) -> None:
    kept, gradients = [], []
    for frugal in (False, True):
        tower: Any = (
            text_bytes(depth=6)
            if kind == "bytes"
            else bert(
                request.getfixturevalue("vocabulary"), architecture=kind, depth=6, pooling="mean"
            )
        ).train()
        inputs = batch_for(tower)
        if frugal:
            tower.checkpoint_activations()
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            pooled = tower(inputs).pooled
        pooled.square().sum().backward()
        kept.append(sum(sizes))
        gradients.append([p.grad for p in tower.parameters()])
    assert kept[1] < kept[0] / 2
    for one, other in zip(*gradients, strict=True):
        assert apart(one, other) < 1e-5


def test_captions_of_the_tests_are_of_several_lengths() -> None:
    """Or else there would be nothing to pad."""
    assert len({len(caption) for caption in CAPTIONS}) == len(CAPTIONS)


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("listens", [True, False])
def test_a_hub_that_cannot_be_reached_is_not_waited_for(
    listens: bool, proxy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if proxy:  # the name behind it is nobody's: only the proxy is asked
            monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid" if proxy else address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        if not listens:
            server.close()
        with hub.asked("some/model"):
            assert constants.is_offline_mode() is not listens
        with hub.asked(str(tmp_path)):  # a folder: nothing to ask for
            assert not constants.is_offline_mode()
    assert not constants.is_offline_mode()


@pytest.mark.parametrize("error", [httpx.ProxyError, httpx.InvalidURL])
def test_a_proxy_that_is_of_no_use_is_told_as_an_unreadable_file_is(
    error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="cannot be asked: 403 Forbidden"), hub.asked(str(tmp_path)):
        raise error("403 Forbidden")


def test_a_vocabulary_that_is_not_there_is_told_with_the_way_to_name_one(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").mkdir()
    for source in (str(tmp_path / "vocab.txt"), "no/such-tokenizer"):
        with pytest.raises(UserError) as told:
            HuggingFace.check(**BERT | {"tokenizer": source})
        assert "encoder.text.tokenizer=<a vocab.txt or a local folder>" in str(told.value)
        assert "encoder/text=bytes needs none" in str(told.value)
