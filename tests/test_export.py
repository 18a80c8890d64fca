"""Every part goes through ONNX and torch.compile whole, at other batch sizes as well."""

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import mmnet
from mmnet.config import CONF
from mmnet.data.batch import read
from mmnet.export import Flat, to_onnx
from tests.combinations import FUSIONS, HEADS, IMAGES, TEXTS, Combination, sensible, words


def name(one):
    return "-".join(str(choice) for choice in one.values())


def each_part() -> list[Combination]:
    """Each fusion, head and encoder once, beside the simplest of the others."""
    plain: Combination = {
        "image": "vit_micro",
        "text": "bytes_micro",
        "fusion": "concat",
        "head": "classification",
    }
    beside = {"contrastive": {"fusion": "separate"}, "separate": {"head": "contrastive"}}
    found = [plain | {"fusion": one} | beside.get(one, {}) for one in FUSIONS]
    found += [plain | {"head": one} | beside.get(one, {}) for one in HEADS]
    found += [plain | {"image": one} for one in IMAGES]
    found += [plain | {"text": one} for one in TEXTS]
    unique = {name(one): one for one in found}
    assert all(sensible(one) for one in unique.values())
    return list(unique.values())


def samples(count: int):
    rng = np.random.default_rng(0)
    text = "what colour is the triangle on the left"
    for index in range(count):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        yield {"image": Image.fromarray(pixels), "text": text[: 9 + 3 * index]}


@pytest.fixture(scope="module")
def vocabulary(data):
    return data / "bert_vocab" / "bert-base-uncased" / "vocab.txt"


@pytest.mark.train
@pytest.mark.parametrize("one", each_part(), ids=name)
def test_onnx_runtime_answers_the_same(one, tmp_path, vocabulary):
    torch.manual_seed(0)
    network = mmnet.build("model=micro", *words(one, vocabulary)).eval()
    example, other = (read(network.prepare(), list(samples(n))) for n in (3, 5))
    made = to_onnx(network, example, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(str(made.path))
    flat = Flat(network, example)
    feed = dict(zip(made.inputs, (t.numpy() for t in flat.arguments(other)), strict=True))
    given = session.run(made.outputs, feed)
    with torch.inference_mode():
        expected = flat(*flat.arguments(other))
    for ours, theirs in zip(expected, given, strict=True):
        assert np.abs(ours.float().numpy() - theirs.astype(np.float32)).max() < 1e-4


@pytest.mark.train
def test_a_missing_modality_reaches_the_graph(tmp_path):
    network = mmnet.build("model=micro").eval()
    example = read(network.prepare(), list(samples(3)))
    made = to_onnx(network, example, tmp_path / "network.onnx")
    mixed = list(samples(4))
    del mixed[1]["image"], mixed[2]["text"]
    inputs = read(network.prepare(), mixed)
    feed = {
        name: tensor.numpy()
        for name, tensor in zip(made.inputs, Flat(network, example).arguments(inputs), strict=True)
    }
    session = onnxruntime.InferenceSession(str(made.path))
    with torch.inference_mode():
        assert np.abs(session.run(None, feed)[0] - network(inputs).numpy()).max() < 1e-5


PRESETS = [path.stem for path in sorted((CONF / "model").glob("*.yaml"))]


@pytest.mark.train
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_compiles_without_a_graph_break(preset, vocabulary):
    small: tuple[str, ...] = ()
    if preset == "guide":  # as it is, but a twentieth of its size
        small = (
            f"encoder.text.tokenizer={vocabulary}",
            *(f"encoder.{m}.{s}" for m in ("image", "text") for s in ("dim=64", "depth=2")),
            *("fusion.dim=64", "fusion.depth=2", "dataset.image_size=32"),
        )
    network = mmnet.build(f"model={preset}", *small)
    inputs = read(network.prepare(), list(samples(4)))
    groups = torch.arange(4)
    torch._dynamo.reset()  # it counts the graphs of all networks of a process together
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    answers = compiled(inputs, groups)
    assert answers is not None
    inputs = (
        read(network.prepare(), [*samples(3), {"text": "only words"}])
        if len(inputs) > 1
        else inputs
    )
    assert compiled(inputs, groups) is not None
