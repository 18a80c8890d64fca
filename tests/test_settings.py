"""Every key in conf/ is a promise: setting it otherwise has the effect it says, or is refused."""

import json
import math
import random
import re
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmnet.compose import load
from mmnet.job import Job
from mmnet.track.recorder import read
from tests import (  # noqa: F401 (they register their cases)
    settings_controller,
    settings_datasets,
    settings_fusion,
    settings_loader,
    settings_parts,
    settings_trackers,
)
from tests.command import Ended, run
from tests.jobs import fingerprint, metrics, run_job
from tests.official import official
from tests.settings import (
    CASES,
    THREE_STEPS,
    Bench,
    Words,
    case,
    checkpoints,
    first_batch,
    keys,
    rates,
    shape,
    weights,
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), lambda: request.getfixturevalue("data"))


def test_every_key_has_its_case() -> None:
    without = {key: option for key, option in keys().items() if key not in CASES}
    assert not without, f"set by conf/, and no test here shows what for: {without}"
    gone = CASES.keys() - keys().keys()
    assert not gone, f"tested here, and no file of conf/ sets them: {gone}"


@pytest.mark.parametrize("kind", ["shapes", "bert", "coco"])
def test_the_same_settings_give_the_same_run(kind: str, bench: Bench) -> None:
    """Or else every difference found here would mean nothing."""
    words = () if kind == "shapes" else getattr(bench, kind)
    assert weights(bench.trained(*words)) == weights(run_job(bench.job(*words)))


# The run


@case("model.name")
def _(bench: Bench) -> None:
    assert load("model.name=other").name == "other"


@case("seed")
def _(bench: Bench) -> None:
    one, other = bench.trained(), bench.trained("seed=1")
    assert fingerprint(first_batch(one).targets) != fingerprint(first_batch(other).targets)
    assert weights(bench.job()) != weights(bench.job("seed=1"))
    assert one.train.digest == other.train.digest


class Runs(NamedTuple):
    """The program, started once and then resumed."""

    first: Ended
    resumed: Ended
    elsewhere: Path


@cache
def commands(bench: Bench) -> Runs:
    where = bench.new_folder()
    words = [word for word in THREE_STEPS if not word.startswith("trainer.steps")]
    output = where / "outputs/further"  # below what Ended looks through
    first = run(where, *words, "name=called", f"paths.output='{output}'", "trainer.steps=2")
    [folder] = output.glob("*/*")
    resumed = run(where, f"resume='{folder}'", "trainer.steps=4")
    return Runs(first, resumed, folder)


@case("name", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    assert commands(bench).elsewhere.parent.name == "called"
    assert json.loads((commands(bench).elsewhere / "record.json").read_text())["name"] == "called"


@case("paths.output", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    assert commands(bench).first.code == 0
    assert commands(bench).elsewhere.parents[1].name == "further"


@case("resume", marks=pytest.mark.train)
def _(bench: Bench) -> None:
    assert commands(bench).resumed.code == 0
    lines = list(read(commands(bench).elsewhere))
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if line.get("event") == "resumed"] == [2]


@case("paths.data")
def _(bench: Bench) -> None:
    assert len(bench.job(*bench.coco).train) == 80
    empty = bench.new_folder()
    empty.mkdir()
    assert f"paths.data={empty}" in bench.refusal("dataset=coco", f"paths.data='{empty}'")


# How long, how much at once, how often to look


@case("trainer.steps")
def _(bench: Bench) -> None:
    assert bench.trained().counters.step == 3
    assert bench.trained("trainer.steps=5").counters.step == 5


@case("trainer.epochs")
def _(bench: Bench) -> None:
    job = bench.trained("trainer.steps=null", "trainer.epochs=2", "dataset.train_samples=16")
    assert job.counters.samples == 32
    assert "set one of the two" in bench.refusal("trainer.epochs=2")


@case("trainer.batch_size")
def _(bench: Bench) -> None:
    assert bench.trained().counters.samples == 3 * 8
    assert bench.trained("trainer.batch_size=4").counters.samples == 3 * 4


@case("trainer.eval_every")
def _(bench: Bench) -> None:
    found = [line["step"] for line in read(bench.trained().folder) if "val/loss" in line]
    assert found == [3]
    often = bench.trained("trainer.eval_every=2", "trainer.steps=5")
    found = [line["step"] for line in read(often.folder) if "val/loss" in line]
    assert found == [2, 4, 5]


@case("trainer.checkpoint_every")
def _(bench: Bench) -> None:
    kept = ("trainer.keep_checkpoints=9", "trainer.steps=5")
    assert checkpoints(bench.trained(*kept)) == [5]
    assert checkpoints(bench.trained(*kept, "trainer.checkpoint_every=2")) == [2, 4, 5]


@case("trainer.keep_checkpoints")
def _(bench: Bench) -> None:
    every = ("trainer.checkpoint_every=1", "trainer.steps=5")
    for kept, expected in ((1, [5]), (3, [3, 4, 5])):
        assert checkpoints(bench.trained(*every, f"trainer.keep_checkpoints={kept}")) == expected


@case("trainer.grad_clip")
def _(bench: Bench) -> None:
    """One step of plain gradient descent moves the weights by rate x norm."""
    plain = (
        "optimizer=sgd",
        "optimizer.lr=1",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "optimizer.weight_decay=0",
        "trainer.steps=1",
    )

    def moved(*words: str) -> tuple[float, float]:
        before = bench.job(*plain, *words).model.state_dict()
        job = bench.trained(*plain, *words)
        after = job.model.state_dict()
        square = sum(float((after[name] - before[name]).square().sum()) for name in before)
        return math.sqrt(square), metrics(job, "train/grad_norm")[0]

    distance, norm = moved("trainer.grad_clip=null")
    assert distance == pytest.approx(norm, rel=1e-3)
    assert norm > 0.01
    distance, unclipped = moved("trainer.grad_clip=0.01")
    assert distance == pytest.approx(0.01, rel=1e-3)
    assert unclipped == norm


@case("trainer.ema_decay")
def _(bench: Bench) -> None:
    plain, averaged = bench.trained(), bench.trained("trainer.ema_decay=0.9")
    assert weights(plain) == weights(averaged)
    assert plain.average.averaged() is None
    assert fingerprint(averaged.average.averaged()) != fingerprint(averaged.model.state_dict())
    assert metrics(plain, "val/loss") != metrics(averaged, "val/loss")


@case("trainer.monitor")
def _(bench: Bench) -> None:
    restless = (
        "trainer.steps=20",
        "trainer.eval_every=1",
        "optimizer.lr=0.01",
        "dataset.val_samples=40",
    )
    found = set()
    for name, sign in (("loss", -1), ("accuracy", 1), ("macro_f1", 1)):
        job = bench.trained(*restless, f"trainer.monitor=val/{name}")
        values = [sign * value for value in metrics(job, f"val/{name}")]
        assert job.counters.best_step == 1 + values.index(max(values))
        found.add(job.counters.best_step)
    assert len(found) > 1


@case("trainer.patience")
def _(bench: Bench) -> None:
    idle = ("optimizer.lr=1e-30", "trainer.eval_every=1", "trainer.steps=8")
    assert bench.trained(*idle).counters.step == 8
    assert bench.trained(*idle, "trainer.patience=2").counters.step == 3


@case("trainer.max_nonfinite")
def _(bench: Bench) -> None:
    wild = ("optimizer=sgd", "optimizer.lr=1e30", "trainer.grad_clip=null", "trainer.steps=30")
    for allowed in (0, 4):
        said = bench.refusal(*wild, f"trainer.max_nonfinite={allowed}")
        assert f"{allowed + 1} of the last 100 steps were not finite" in said


# The machine


def seen_in_fusion(bench: Bench, *words: str) -> list[Any]:
    """(rows, dtype, children of this process) at every training step, inside the network."""
    job, seen = bench.job(*words), []

    def look(module: torch.nn.Module, args: Any, output: Tensor) -> None:
        if module.training:
            seen.append((len(output), output.dtype, len(psutil.Process().children())))

    job.model.fusion.mlp[0].register_forward_hook(look)
    run_job(job)
    return seen


@case("hardware.device")
def _(bench: Bench) -> None:
    auto, cpu = bench.job("hardware.device=auto"), bench.job("hardware.device=cpu")
    assert next(cpu.model.parameters()).device.type == "cpu"
    if torch.cuda.is_available():
        assert next(bench.job("hardware.device=cuda").model.parameters()).is_cuda
        assert next(auto.model.parameters()).is_cuda
    else:
        assert "no CUDA device here" in bench.refusal("hardware.device=cuda")
        assert next(auto.model.parameters()).device.type == "cpu"


@case("hardware.precision")
def _(bench: Bench) -> None:
    for name, dtype in (
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ):
        seen = seen_in_fusion(bench, f"hardware.precision={name}")
        assert {row[1] for row in seen} == {dtype}
    auto = seen_in_fusion(bench, "hardware.precision=auto")
    assert {row[1] for row in auto} <= {torch.float32, torch.bfloat16}


@case("hardware.compile", marks=(pytest.mark.slow, pytest.mark.timeout(600)))
def _(bench: Bench) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    plain = run_job(bench.job())
    assert not counters["stats"]
    compiled = run_job(bench.job("hardware.compile=true"))
    assert counters["stats"]["unique_graphs"] >= 1
    assert metrics(compiled, "train/loss") == pytest.approx(metrics(plain, "train/loss"), abs=1e-4)


@case("hardware.activation_checkpointing")
def _(bench: Bench) -> None:
    def kept(*words: str) -> int:
        job, sizes = bench.job("encoder.image.depth=4", *words), [0]
        batch = first_batch(job)
        job.model.train()

        def keep(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            job.model(batch.inputs)
        return sum(sizes)

    assert kept("hardware.activation_checkpointing=true") < 0.6 * kept()


@case("hardware.micro_batch_size")
def _(bench: Bench) -> None:
    whole, parts = seen_in_fusion(bench), seen_in_fusion(bench, "hardware.micro_batch_size=2")
    assert [row[0] for row in whole] == 3 * [8]
    assert [row[0] for row in parts] == 12 * [2]


@case("hardware.num_workers")
def _(bench: Bench) -> None:
    before = len(psutil.Process().children())
    for workers in (0, 2):
        seen = seen_in_fusion(bench, f"hardware.num_workers={workers}")
        assert {row[2] for row in seen} == {before + workers}


@case("hardware.threads")
def _(bench: Bench) -> None:
    before = torch.get_num_threads()
    try:
        bench.job("hardware.threads=2")
        assert torch.get_num_threads() == 2
        bench.job("hardware.threads=null")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Encoders


VIT = "encoders.image.body."
BYTES = "encoders.text."
BERT = "encoders.text.body."


@case("encoder.image.timm.name")
def _(bench: Bench) -> None:
    own = [f"encoder.image.{key}=null" for key in ("dim", "depth", "num_heads", "patch_size")]
    named = bench.job(*own, "encoder.image.name=test_vit")
    assert shape(named, f"{VIT}patch_embed.proj.weight") == (64, 3, 16, 16)
    assert "did you mean 'test_vit'?" in bench.refusal("encoder.image.name=tst_vit")


@case("encoder.image.timm.pretrained")
def _(bench: Bench) -> None:
    published = bench.job("seed=7").model.encoders["image"].body.state_dict()
    file = bench.folder / "published.safetensors"
    save_file(published, file)
    job = bench.job(f"encoder.image.pretrained='{file}'")
    assert fingerprint(job.model.encoders["image"].body.state_dict()) == fingerprint(published)
    assert weights(job) != weights(bench.job())
    assert "cannot load weights" in bench.refusal("encoder.image.pretrained=hub")  # no network


@case("encoder.image.timm.image_size")
def _(bench: Bench) -> None:
    job = bench.job("encoder.image.image_size=64")
    assert shape(job, f"{VIT}pos_embed") == (1, 1 + 64, 32)
    assert first_batch(job).inputs["image"].values.shape == (8, 3, 64, 64)


@case("encoder.text.bytes.max_length")
def _(bench: Bench) -> None:
    assert first_batch(bench.job()).inputs["text"].values.shape[1] > 9
    job = bench.job("encoder.text.max_length=9")
    assert first_batch(job).inputs["text"].values.shape[1] == 9


def published(bench: Bench) -> tuple[str, dict[str, Tensor]]:
    """A folder in the hub's layout, with its weights, and what names it."""
    folder = bench.folder / "published"
    body: Any = bench.job(*bench.bert, "encoder.text.dim=24", "seed=7").model.encoders["text"].body
    body.save_pretrained(folder)
    return str(folder), body.state_dict()


def named(bench: Bench, folder: str) -> Words:
    own = [f"encoder.text.{key}=null" for key in ("architecture", "dim", "depth", "num_heads")]
    return (*bench.bert, *own, f"encoder.text.name='{folder}'")


@case("encoder.text.huggingface.name")
def _(bench: Bench) -> None:
    folder, _ = published(bench)
    assert shape(bench.job(*bench.bert), f"{BERT}embeddings.word_embeddings.weight") == (30522, 16)
    job = bench.job(*named(bench, folder))
    assert shape(job, f"{BERT}embeddings.word_embeddings.weight") == (30522, 24)
    assert "encoder.text.name=no/such" in bench.refusal(*named(bench, "no/such"))


@case("encoder.text.huggingface.pretrained")
def _(bench: Bench) -> None:
    folder, stored = published(bench)
    read_in = bench.job(*named(bench, folder), "encoder.text.pretrained=hub")
    drawn = bench.job(*named(bench, folder), "encoder.text.pretrained=null")
    body = {
        name.removeprefix(BERT): value
        for name, value in read_in.model.state_dict().items()
        if name.startswith(BERT)
    }
    assert fingerprint(body) == fingerprint(stored)
    assert weights(read_in) != weights(drawn)


@case("encoder.text.huggingface.architecture")
def _(bench: Bench) -> None:
    def queries(job: Job) -> set[str]:
        return {n.split(".")[-2] for n in job.model.state_dict() if n.startswith(BERT)}

    assert "query" in queries(bench.job(*bench.bert))
    assert "q_lin" in queries(bench.job(*bench.bert, "encoder.text.architecture=distilbert"))


@case("encoder.text.huggingface.tokenizer")
def _(bench: Bench) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "circle", "square", "triangle"]
    file = bench.folder / "few_words.txt"
    file.write_text("\n".join(words))
    job = bench.job(*bench.bert, f"encoder.text.tokenizer='{file}'")
    assert shape(job, f"{BERT}embeddings.word_embeddings.weight") == (len(words), 16)
    assert first_batch(job).inputs["text"].values.max() < len(words)


@case("encoder.text.huggingface.max_length")
def _(bench: Bench) -> None:
    assert first_batch(bench.job(*bench.bert)).inputs["text"].values.shape[1] > 5
    job = bench.job(*bench.bert, "encoder.text.max_length=5")
    assert first_batch(job).inputs["text"].values.shape[1] == 5


@case("head.classification.num_classes")
def _(bench: Bench) -> None:
    said = bench.refusal("head.num_classes=5")
    assert "head.num_classes=5" in said and "dataset.num_classes=4" in said
    both = bench.job("head.num_classes=5", "dataset.num_classes=5")
    assert shape(both, "head.logits.bias") == (5,)


def has_the_size(word: str, tensor: str, expected: tuple[int, ...] | None, bench: Bench) -> None:
    """A tensor of the network is there and so large; None: it is the last of its kind."""
    words = bench.bert if tensor.startswith(BERT) else ()
    before, after = bench.job(*words), bench.job(*words, word)
    if expected is not None:
        assert shape(after, tensor) == expected != shape(before, tensor)
    else:
        number = re.search(r"\d+", tensor)
        assert number is not None
        one_more = tensor.replace(number.group(), str(int(number.group()) + 1))
        assert tensor in after.model.state_dict() and tensor not in before.model.state_dict()
        assert one_more not in after.model.state_dict()


for _key, _word, _tensor, _expected in (
    ("encoder.image.timm.patch_size", "encoder.image.patch_size=16", f"{VIT}pos_embed", (1, 5, 32)),
    ("encoder.image.timm.dim", "encoder.image.dim=48", f"{VIT}norm.weight", (48,)),
    ("encoder.image.timm.depth", "encoder.image.depth=5", f"{VIT}blocks.4.norm1.weight", None),
    ("encoder.text.bytes.dim", "encoder.text.dim=48", f"{BYTES}norm.weight", (48,)),
    ("encoder.text.bytes.depth", "encoder.text.depth=3", f"{BYTES}blocks.2.norm1.weight", None),
    (
        "encoder.text.huggingface.dim",
        "encoder.text.dim=40",
        f"{BERT}embeddings.LayerNorm.weight",
        (40,),
    ),
    (
        "encoder.text.huggingface.depth",
        "encoder.text.depth=3",
        f"{BERT}encoder.layer.2.output.dense.weight",
        None,
    ),
    ("fusion.concat.dim", "fusion.dim=48", "fusion.mlp.3.weight", (48, 96)),
):
    case(_key)(partial(has_the_size, _word, _tensor, _expected))


# Data


@case("dataset.shapes.train_samples")
def _(bench: Bench) -> None:
    assert len(bench.job("dataset.train_samples=99").train) == 99


@case("dataset.shapes.val_samples")
def _(bench: Bench) -> None:
    assert len(bench.job("dataset.val_samples=99").val) == 99


@case("dataset.shapes.num_classes")
def _(bench: Bench) -> None:
    job = bench.job("dataset.num_classes=6")
    labels = [job.train.sample(i, (), None)["label"] for i in range(64)]
    assert set(labels) == set(range(6)) and len(job.names.classes) == 6


@case("dataset.shapes.image_size")
def _(bench: Bench) -> None:
    job = bench.job("dataset.image_size=48")
    assert job.train.sample(0, ("image",), None)["image"].size == (48, 48)
    assert shape(job, f"{VIT}pos_embed") == (1, 1 + 36, 32)  # the encoder follows


@case("dataset.shapes.seed")
def _(bench: Bench) -> None:
    one, other = bench.job().train, bench.job("dataset.seed=1").train
    assert one.digest != other.digest
    pictures = [split.sample(0, ("image",), None)["image"].tobytes() for split in (one, other)]
    assert pictures[0] != pictures[1]


@case("dataset.coco.root")
def _(bench: Bench) -> None:
    empty = bench.new_folder()
    empty.mkdir()
    words = ("dataset=coco", f"paths.data='{empty}'")
    assert len(bench.job(*words, f"dataset.root='{bench.data / 'coco'}'").train) == 80
    assert f"dataset.root={empty}" in bench.refusal(*words, f"dataset.root='{empty}'")


@case("dataset.coco.num_classes")
def _(bench: Bench) -> None:
    assert shape(bench.job(*bench.coco), "head.logits.bias") == (12,)
    assert "dataset.num_classes=11" in bench.refusal(*bench.coco, "dataset.num_classes=11")


@case("dataset.coco.image_size")
def _(bench: Bench) -> None:
    job = bench.job(*bench.coco, "dataset.image_size=40")
    assert job.val.sample(0, ("image",), None)["image"].shape == (3, 40, 40)


@case("dataset.coco.splits")
def _(bench: Bench) -> None:
    assert "lacks dataset_coco.json" in bench.refusal(*bench.coco, "dataset.splits=karpathy")


@case("dataset.coco.edition")
def _(bench: Bench) -> None:
    assert "captions_{train,val}2014" in bench.refusal(*bench.coco, "dataset.edition=2014")


@case("dataset.coco.train_split")
def _(bench: Bench) -> None:
    assert len(bench.job(*bench.coco, "dataset.train_split=[train,val]").train) == 80 + 79


@case("dataset.coco.val_split")
def _(bench: Bench) -> None:
    assert bench.job(*bench.coco, "dataset.val_split=[train]").val.key(0).startswith("train2017/")


def whole_and_drawn(bench: Bench, *words: str) -> tuple[Any, Any]:
    """A photo as evaluation sees it, and as training does."""
    split = bench.job(*bench.coco, *words).train
    plain = split.sample(0, ("image",), None)["image"]
    return plain, split.sample(0, ("image",), random.Random(0))["image"]


@case("dataset.coco.augment.random_crop")
def _(bench: Bench) -> None:
    still = "dataset.augment.random_flip=0"
    plain, drawn = whole_and_drawn(bench, still, "dataset.augment.random_crop=1")
    assert torch.equal(plain, drawn)
    plain, drawn = whole_and_drawn(bench, still, "dataset.augment.random_crop=0.1")
    assert not torch.equal(plain, drawn)


@case("dataset.coco.augment.random_flip")
def _(bench: Bench) -> None:
    words = ("dataset.augment.random_crop=1", "dataset.augment.random_flip=1")
    plain, drawn = whole_and_drawn(bench, *words)
    assert torch.equal(plain.flip(-1), drawn)


GENOME = ("dataset=visual_genome", *official("visual_genome").WORDS, "dataset.image_size=32")


def genome(bench: Bench) -> tuple[Path, Words]:
    """A small Visual Genome with COCO's val beside it, and the words of a run on it."""
    root = settings_datasets.folder_of("visual_genome", bench.data)
    return root, (*GENOME, f"paths.data='{root}'")


@case("dataset.visual_genome.what")
def _(bench: Bench) -> None:
    said = bench.refusal(*genome(bench)[1], "dataset.what=regions")
    assert "what=regions offers group and match, and a head wants label" in said


@case("dataset.visual_genome.coco_root")
def _(bench: Bench) -> None:
    root, words = genome(bench)
    shared = "images that COCO evaluates with"
    assert shared not in bench.job(*words).train.notes
    assert bench.job(*words, f"dataset.coco_root='{root}'").train.notes[shared] == 10
    assert "lacks annotations/" in bench.refusal(*words, f"dataset.coco_root='{root}/VG_100K'")


@case("dataset.visual_genome.leave_out_coco")
def _(bench: Bench) -> None:
    root, words = genome(bench)
    leaving = bench.job(*words, f"dataset.coco_root='{root}'", "dataset.leave_out_coco=true")
    plain = bench.job(*words)
    assert len(leaving.train) < len(plain.train) and len(leaving.val) == len(plain.val)
    assert "dataset.coco_root=" in bench.refusal(*words, "dataset.leave_out_coco=true")


def damaged(bench: Bench) -> Words:
    """COCO with one val photo of 79 cut short."""
    root = bench.folder / "damaged"
    if not root.exists():
        shutil.copytree(bench.data / "coco", root, copy_function=shutil.copyfile)
        photo = sorted((root / "val2017").glob("*.jpg"))[3]
        photo.write_bytes(photo.read_bytes()[:900])
    return ("dataset=coco", f"paths.data='{root}'", "dataset.image_size=32", "trainer.steps=1")


@case("dataset.coco.on_bad_sample")
def _(bench: Bench) -> None:
    allowed = "dataset.max_bad_fraction=0.1"
    skipped = bench.trained(*damaged(bench), allowed, "dataset.on_bad_sample=skip")
    assert sum(skipped.bad.counts()["val"].values()) == 1
    said = bench.refusal(*damaged(bench), allowed, "dataset.on_bad_sample=fail")
    assert "dataset.on_bad_sample=fail" in said


@case("dataset.coco.max_bad_fraction")
def _(bench: Bench) -> None:
    bench.trained(*damaged(bench), "dataset.max_bad_fraction=0.02")
    said = bench.refusal(*damaged(bench), "dataset.max_bad_fraction=0.01")
    assert "1 of the 79 samples of val cannot be read" in said


# What acts in training alone


def drops(place: str, bench: Bench) -> None:
    """Dropout changes the loss of a training step, and not that of an evaluation."""
    base = (
        *(bench.bert if "huggingface" in place else ()),
        "optimizer.lr=1e-30",
        "trainer.steps=1",
    )
    *words, _, name = place.split(".")
    key = ".".join([*words, name])
    plain, dropping = bench.trained(*base), bench.trained(*base, f"{key}=0.5")
    assert metrics(plain, "train/loss") != metrics(dropping, "train/loss")
    assert metrics(plain, "val/loss") == pytest.approx(metrics(dropping, "val/loss"))


for _place in (
    "encoder.image.timm.dropout",
    "encoder.text.bytes.dropout",
    "encoder.text.huggingface.dropout",
    "fusion.concat.dropout",
    "head.classification.dropout",
):
    case(_place)(partial(drops, _place))


# What leads to other weights, of the same shapes, by the same learning rates


def goes_another_way(base: Words, changes: Words, bench: Bench) -> None:
    base = bench.bert if base == BERT_MICRO else base
    before = bench.trained(*base)
    for change in changes:
        after = bench.trained(*base, change)
        assert rates(after) == rates(before)
        sizes = [
            [value.shape for value in job.model.state_dict().values()] for job in (before, after)
        ]
        assert sizes[0] == sizes[1]
        assert all(value.isfinite().all() for value in after.model.state_dict().values())
        assert weights(after) != weights(before), change


BERT_MICRO: Words = ("encoder/text=bert_micro",)
FREE: Words = ("optimizer=schedule_free", "schedule=constant")
ANOTHER_WAY: dict[str, tuple[Words, Words]] = {
    "encoder.image.timm.num_heads": ((), ("encoder.image.num_heads=4",)),
    "encoder.text.bytes.num_heads": ((), ("encoder.text.num_heads=4",)),
    "encoder.text.huggingface.num_heads": (BERT_MICRO, ("encoder.text.num_heads=4",)),
    "encoder.text.huggingface.pooling": (BERT_MICRO, ("encoder.text.pooling=mean",)),
    "head.classification.label_smoothing": ((), ("head.label_smoothing=0.2",)),
    "optimizer.muon.momentum": (("optimizer=muon",), ("optimizer.momentum=0.5",)),
    "optimizer.sgd.momentum": (("optimizer=sgd",), ("optimizer.momentum=0.5",)),
    "optimizer.sgd.nesterov": (("optimizer=sgd",), ("optimizer.nesterov=false",)),
    "optimizer.sgd.weight_decay": (("optimizer=sgd",), ("optimizer.weight_decay=0.5",)),
}
for _name, _base in (
    ("adamw", ()),
    ("nadamw", ("optimizer=nadamw",)),
    ("muon", ("optimizer=muon",)),
    ("prodigy", ("optimizer=prodigy",)),
    ("schedule_free", FREE),
):
    ANOTHER_WAY |= {
        f"optimizer.{_name}.weight_decay": (_base, ("optimizer.weight_decay=0.5",)),
        f"optimizer.{_name}.betas": (
            _base,
            ("optimizer.betas=[0.5,0.98]", "optimizer.betas=[0.9,0.5]"),
        ),
        f"optimizer.{_name}.eps": (_base, ("optimizer.eps=0.1",)),
    }
for _key, (_base, _changes) in ANOTHER_WAY.items():
    case(_key)(partial(goes_another_way, _base, _changes))


# The learning rate and its course


def sets_the_rate(base: Words, bench: Bench) -> None:
    before = bench.trained(*base)
    after = bench.trained(*base, f"optimizer.lr={2 * before.run.optimizer['lr']}")
    assert metrics(after, "train/lr") == [2 * rate for rate in metrics(before, "train/lr")]
    assert weights(after) != weights(before)


for _name, _base in {
    "adamw": (),
    "nadamw": ("optimizer=nadamw",),
    "muon": ("optimizer=muon",),
    "prodigy": ("optimizer=prodigy",),
    "sgd": ("optimizer=sgd",),
    "schedule_free": FREE,
}.items():
    case(f"optimizer.{_name}.lr")(partial(sets_the_rate, _base))


def course(bench: Bench, schedule: str, **ratios: float) -> list[float]:
    """Factors on the rate over a run of ten steps; ratios that are not named are 0."""
    known = [key.split(".")[-1] for key in keys() if key.startswith(f"schedule.{schedule}.")]
    words = [f"schedule.{name}={ratios.get(name, 0.0)}" for name in known]
    return rates(bench.trained(f"schedule={schedule}", *words, "trainer.steps=10"))


def warms_up(schedule: str, bench: Bench) -> None:
    assert course(bench, schedule)[:2] != pytest.approx([0.25, 0.5])
    rising = course(bench, schedule, warmup_ratio=0.4)[:4]
    assert rising == pytest.approx([0.25, 0.5, 0.75, 1.0])


def ends_at(schedule: str, bench: Bench) -> None:
    decay = {"decay_ratio": 0.5} if schedule == "wsd" else {}
    deep, shallow = (course(bench, schedule, final_ratio=ratio, **decay) for ratio in (0.0, 0.6))
    assert shallow == pytest.approx([0.6 + 0.4 * factor for factor in deep])
    assert deep[-1] < 0.25


@case("schedule.wsd.decay_ratio")
def _(bench: Bench) -> None:
    assert course(bench, "wsd", decay_ratio=0.4) == pytest.approx(7 * [1.0] + [0.75, 0.5, 0.25])
    assert course(bench, "wsd", decay_ratio=0.2) == pytest.approx(9 * [1.0] + [0.5])


for _name in ("constant", "cosine", "linear", "wsd"):
    case(f"schedule.{_name}.warmup_ratio")(partial(warms_up, _name))
for _name in ("cosine", "linear", "wsd"):
    case(f"schedule.{_name}.final_ratio")(partial(ends_at, _name))


@pytest.mark.train
@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=marks) for key, (_, marks) in CASES.items()]
)
def test_setting_it_otherwise_is_felt(key: str, bench: Bench) -> None:
    CASES[key][0](bench)
