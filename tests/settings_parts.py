"""Cases of tests/test_settings.py for keys that are seen in what a run reads, builds or learns.

What a run is made of is put into one digest: the shapes of its weights, its first batches, the
policy for bad samples, and where its weights are after three steps. The digest is the same
for the same words, and another for another value of the key.
"""

from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmnet.data.loader import eval_batches
from mmnet.ending import hand_over
from mmnet.inspect import inspect
from mmnet.interfaces import Inputs
from mmnet.job import Job
from tests.jobs import fingerprint, metrics
from tests.settings import Bench, Words, case, composed, first_batch, rates, weights


def digest(job: Job, trained: Job) -> str:
    """Of what `job` is built of and reads, and of what `trained`, the same, has learnt."""
    shapes = {name: tuple(value.shape) for name, value in job.model.state_dict().items()}
    batches = eval_batches(
        job.val, job.reading, batch_size=4, num_workers=0, device=job.machine.device, limit=4
    )
    seen: list[Any] = [first_batch(job), *(found.batch for found in batches)]
    sizes = [len(job.train), len(job.val)]
    policy = [job.bad.policy, job.bad.max_bad_fraction]
    learnt = [weights(trained), rates(trained), metrics(trained, "val/loss")]
    return fingerprint([shapes, sizes, policy, [list(batch) for batch in seen], learnt])


def matters(base: Words, word: str, bench: Bench) -> None:
    before = digest(bench.job(*base), bench.trained(*base))
    assert before == digest(bench.job(*base), bench.trained(*base, "trainer.keep_checkpoints=3"))
    assert digest(bench.job(*base, word), bench.trained(*base, word)) != before


DIGITS = ("dataset=digits",)
NAFLEX = ("encoder/image=naflex_micro",)
CONVNEXT = ("encoder/image=convnext_micro",)
CONTRASTIVE = ("head=contrastive", "fusion=separate")
ASYMMETRIC = ("head=multilabel", "head.loss=asymmetric")

# Key, the words of a run that has it, and another value of it.
for _key, _base, _word in (
    ("dataset.digits.image_noise", DIGITS, "dataset.image_noise=0.5"),
    ("dataset.digits.text_noise", DIGITS, "dataset.text_noise=0.9"),
    ("dataset.digits.image_size", DIGITS, "dataset.image_size=64"),
    ("dataset.digits.num_classes", DIGITS, "dataset.num_classes=4"),
    ("dataset.digits.seed", DIGITS, "dataset.seed=1"),
    ("encoder.image.naflex.depth", NAFLEX, "encoder.image.depth=3"),
    ("encoder.image.naflex.dim", NAFLEX, "encoder.image.dim=48"),
    ("encoder.image.naflex.drop_path", NAFLEX, "encoder.image.drop_path=0.5"),
    ("encoder.image.naflex.dropout", NAFLEX, "encoder.image.dropout=0.5"),
    ("encoder.image.naflex.max_patches", NAFLEX, "encoder.image.max_patches=9"),
    ("encoder.image.naflex.normalize", NAFLEX, "encoder.image.normalize=false"),
    ("encoder.image.naflex.num_heads", NAFLEX, "encoder.image.num_heads=4"),
    ("encoder.image.naflex.patch_size", NAFLEX, "encoder.image.patch_size=4"),
    ("encoder.image.naflex.pooling", NAFLEX, "encoder.image.pooling=attention"),
    ("encoder.image.naflex.reg_tokens", NAFLEX, "encoder.image.reg_tokens=2"),
    ("encoder.image.naflex.name", NAFLEX, "encoder.image.name=naflexvit_base_patch16_gap"),
    ("encoder.image.timm.drop_path", (), "encoder.image.drop_path=0.5"),
    ("encoder.image.timm.normalize", (), "encoder.image.normalize=false"),
    ("encoder.image.timm.output_stride", CONVNEXT, "encoder.image.output_stride=8"),
    ("encoder.image.timm.pooling", (), "encoder.image.pooling=mean"),
    ("encoder.image.timm.reg_tokens", (), "encoder.image.reg_tokens=2"),
    ("encoder.text.bytes.causal", (), "encoder.text.causal=true"),
    ("encoder.text.bytes.pooling", (), "encoder.text.pooling=attention"),
    ("head.classification.class_weights", (), "head.class_weights=[1,2,3,4]"),
    ("head.classification.focal_gamma", (), "head.focal_gamma=2"),
    ("head.contrastive.embed_dim", CONTRASTIVE, "head.embed_dim=16"),
    ("head.contrastive.loss", CONTRASTIVE, "head.loss=siglip"),
    ("head.masked_lm.mask_probability", ("head=masked_lm",), "head.mask_probability=0.5"),
    ("head.matching.dropout", ("head=matching",), "head.dropout=0.5"),
    ("head.matching.hard_negatives", ("head=matching",), "head.hard_negatives=true"),
    ("head.multilabel.loss", ("head=multilabel",), "head.loss=asymmetric"),
    ("head.multilabel.clip", ASYMMETRIC, "head.clip=0.4"),
    ("head.multilabel.gamma_negative", ASYMMETRIC, "head.gamma_negative=1"),
    ("head.multilabel.gamma_positive", ASYMMETRIC, "head.gamma_positive=1"),
    ("head.multilabel.positive_weight", ("head=multilabel",), "head.positive_weight=3"),
    ("head.multilabel.dropout", ("head=multilabel",), "head.dropout=0.5"),
    ("head.multitask.weighting", ("head=multitask",), "head.weighting=pcgrad"),
    ("head.multitask.weights", ("head=multitask",), "head.weights.value=5"),
    (
        "head.multitask.alpha",
        ("head=multitask", "head.weighting=gradnorm", "trainer.steps=12"),
        "head.alpha=0",
    ),
    ("head.multitask.tasks", ("head=multitask",), "head.tasks.value.loss=huber"),
    ("head.regression.loss", ("head=regression",), "head.loss=huber"),
    ("head.regression.dropout", ("head=regression",), "head.dropout=0.5"),
    (
        "head.regression.huber_delta",
        ("head=regression", "head.loss=huber"),
        "head.huber_delta=0.1",
    ),
    (
        "head.regression.quantile",
        ("head=regression", "head.loss=quantile"),
        "head.quantile=0.9",
    ),
    ("trainer.modality_dropout", (), "trainer.modality_dropout=0.5"),
    *(
        (f"tuning.{modality}.{key}", base, f"tuning.{modality}.{word}")
        for modality in ("image", "text")
        for key, base, word in (
            ("freeze", (), "freeze=1"),
            ("layer_decay", (), "layer_decay=0.5"),
            ("lora_rank", (), "lora_rank=2"),
            ("lora_alpha", (f"tuning.{modality}.lora_rank=2",), "lora_alpha=99"),
            ("lora_dropout", (f"tuning.{modality}.lora_rank=2",), "lora_dropout=0.5"),
        )
    ),
):
    case(_key)(partial(matters, _base, _word))


def on_real_files(dataset: str, word: str, bench: Bench) -> None:
    matters((f"dataset={dataset}", f"paths.data='{bench.data}'"), word, bench)


for _key, _word in (
    ("nlvr.image_size", "dataset.image_size=32"),
    ("nlvr.augment.random_crop", "dataset.augment.random_crop=0.1"),
    ("nlvr.split_seed", "dataset.split_seed=1"),
    ("nlvr.val_fraction", "dataset.val_fraction=0.5"),
    ("nlvr.on_bad_sample", "dataset.on_bad_sample=fail"),
    ("nlvr.max_bad_fraction", "dataset.max_bad_fraction=0.5"),
    ("openmoji.image_size", "dataset.image_size=32"),
    ("openmoji.split_seed", "dataset.split_seed=1"),
    ("openmoji.val_fraction", "dataset.val_fraction=0.5"),
    ("openmoji.on_bad_sample", "dataset.on_bad_sample=fail"),
    ("openmoji.max_bad_fraction", "dataset.max_bad_fraction=0.5"),
    ("openmoji.augment.random_crop", "dataset.augment.random_crop=0.1"),
    ("openmoji.tag_probability", "dataset.tag_probability=1"),
    ("openmoji.folders", "dataset.folders=[128x128_png8]"),
):
    case(f"dataset.{_key}")(partial(on_real_files, _key.partition(".")[0], _word))


def refused(dataset: str, word: str, said: str, bench: Bench) -> None:
    base = (f"dataset={dataset}", f"paths.data='{bench.data}'")
    assert said in bench.refusal(*base, word)


for _key, _word, _said in (
    ("nlvr.root", "dataset.root=/nowhere", "/nowhere"),
    ("nlvr.num_classes", "dataset.num_classes=3", "dataset.num_classes=3"),
    ("nlvr.augment.random_flip", "dataset.augment.random_flip=0.5", "augment.random_flip=0.5"),
    ("openmoji.augment.random_flip", "dataset.augment.random_flip=0.5", "augment.random_flip=0.5"),
    ("openmoji.root", "dataset.root=/nowhere", "/nowhere"),
    ("openmoji.num_classes", "dataset.num_classes=3", "dataset.num_classes=3"),
):
    case(f"dataset.{_key}")(partial(refused, _key.partition(".")[0], _word, _said))


def from_a_file(words: Words, encoder: str, bench: Bench) -> None:
    """The weights of a run's own tower are taken from its file."""
    source = bench.trained(*words)
    file = bench.new_folder().with_suffix(".safetensors")
    save_file(dict(source.model.state_dict()), file)
    taken = bench.job(*words, f"encoder.{encoder}.pretrained={file}", "seed=7")
    theirs = source.model.encoders[encoder].state_dict()
    ours = taken.model.encoders[encoder].state_dict()
    assert fingerprint(ours) == fingerprint(theirs)


for _key, _words, _encoder in (
    ("encoder.image.naflex.pretrained", NAFLEX, "image"),
    ("encoder.text.bytes.pretrained", (), "text"),
):
    case(_key)(partial(from_a_file, _words, _encoder))


@case("hardware.memory_gb")
def _(bench: Bench) -> None:
    told = inspect(composed("model=micro", "hardware=cpu", "hardware.memory_gb=0.001"))
    assert "not one sample fits" in "\n".join(told)


@case("hardware.pin_memory")
def _(bench: Bench) -> None:
    for value in ("auto", "false"):
        assert not bench.job(f"hardware.pin_memory={value}").reading.pin_memory
    assert "hardware.pin_memory=true" in bench.refusal("hardware.pin_memory=true")


@case("trainer.modality_grid")
def _(bench: Bench) -> None:
    for samples in (8, 0):
        job = bench.trained(f"trainer.modality_grid={samples}")
        hand_over(job, None)
        assert bool(job.modalities) == (job.folder / "modalities.csv").exists() == bool(samples)


@case("encoder.image.timm.dynamic_img_size")
def _(bench: Bench) -> None:
    larger = Inputs(torch.zeros(1, 3, 48, 48, dtype=torch.uint8), None)
    free = bench.job("encoder.image.dynamic_img_size=true").model.encoders["image"]
    assert free(larger).tokens.shape[1] == 1 + 36
    with pytest.raises(AssertionError, match="48"):
        bench.job().model.encoders["image"](larger)
