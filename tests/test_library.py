"""mmnet without a command line: parts, networks, training and what was trained."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

import mmnet
from mmnet.data.batch import read
from mmnet.errors import ConfigError, UserError
from mmnet.interfaces import Inputs, Sample


RED = Image.new("RGB", (40, 30), "red")


def test_individual_components():
    image = mmnet.part("encoder/image=vit_micro", dim=64)
    text = mmnet.part("encoder/text=bytes_micro")
    pictures = image(Inputs(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), None))
    words = text(text.prepare.collate([text.prepare("hello"), text.prepare("you")]))
    assert (pictures.pooled.shape, words.pooled.shape) == ((2, 64), (2, 32))


def test_a_custom_network():
    image, text = mmnet.part("encoder/image=vit_micro"), mmnet.part("encoder/text=bytes_micro")
    fusion = mmnet.part("fusion=gated", dims={"image": image.dim, "text": text.dim}, dim=48)
    head = mmnet.part("head=classification", dim=fusion.dim, num_classes=10)
    network = mmnet.Multimodal({"image": image, "text": text}, fusion, head)
    answers = network(read(network.prepare(), [{"image": RED, "text": "a"}, {"text": "b"}]))
    assert answers.shape == (2, 10) and answers.isfinite().all()


def test_a_network_in_the_words_of_the_command_line():
    network = mmnet.build("model=micro", "fusion.dim=16", "dataset.num_classes=7")
    assert network.head.logits.weight.shape == (7, 16)


@pytest.mark.parametrize(
    ("choice", "settings", "said"),
    [
        ("fusoin=concat", {}, "did you mean 'fusion'?"),
        ("fusion=concatt", {"dims": {"image": 3}}, "did you mean 'concat'?"),
        ("fusion=concat", {}, "needs dims="),
        ("fusion=concat", {"dims": {"image": 3}, "dimm": 3}, "did you mean 'dim'?"),
        ("fusion=concat", {"dims": {"image": 3}, "dim": "big"}, "fusion.dim"),
        ("fusion", {}, "expected <group>=<file>"),
    ],
)
def test_a_part_that_cannot_be_is_refused_in_words(choice, settings, said):
    with pytest.raises(ConfigError) as told:
        mmnet.part(choice, **settings)
    assert said in str(told.value)


def test_importing_mmnet_does_not_load_torch():
    code = "import mmnet, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        mmnet.lod  # noqa: B018


@pytest.mark.train
def test_basic_training_and_what_it_leaves(tmp_path):
    trained = mmnet.fit(
        "model=micro",
        "hardware.precision=fp32",
        "trainer.steps=8",
        "dataset.val_samples=40",
        "tracker=none",
        f"paths.output={tmp_path}",
    )
    assert trained.summary["status"] == "FINISHED"
    assert trained.names.classes == ["red", "green", "blue", "yellow"]
    assert "8 steps of 128 samples" in (trained.folder / "train.log").read_text()
    again = mmnet.load(trained.folder)
    samples: list[Sample] = [{"image": RED, "text": "what colour is the bar"}, {"text": "and here"}]
    answers = again.answer(samples)
    assert isinstance(answers, torch.Tensor) and answers.shape == (2, 4)
    torch.testing.assert_close(answers, trained.answer(samples), rtol=0, atol=0)
    with pytest.raises(UserError, match="sample 1 has nothing"):
        again.answer([samples[0], {}])
    (trained.folder / "model.safetensors").unlink()  # as of a run that has not ended
    torch.testing.assert_close(mmnet.load(trained.folder).answer(samples), answers)
    (trained.folder / "checkpoints/best").unlink()  # as of one that has not been evaluated
    torch.testing.assert_close(mmnet.load(trained.folder).answer(samples), answers)
    path = tmp_path / "model.onnx"
    assert again.to_onnx(path)[0].startswith("image") and path.stat().st_size > 1000


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="dataset=coco wants"):
        mmnet.fit("model=micro", "dataset=coco", "tracker=none", f"paths.output={tmp_path}/out")
    assert not list(tmp_path.rglob("train.log"))


@pytest.mark.parametrize("what", ["nowhere", "empty", "no record"])
def test_what_is_not_a_run_is_not_loaded(tmp_path, what):
    folder = tmp_path / "run"
    if what != "nowhere":
        folder.mkdir()
    if what == "no record":
        (folder / "config.yaml").write_text("format: 1\n")
    with pytest.raises(UserError, match=str(folder)):
        mmnet.load(folder)
