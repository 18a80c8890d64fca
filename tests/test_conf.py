"""Every file in conf/ composes, and says exactly what its constructor wants."""

import ast
import inspect
import re
import typing
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

import mmnet
from mmnet.bounds import Section
from mmnet.compose import load
from mmnet.config import CONF, PASSED, Hardware, Paths, Run, Trainer, Tuning
from mmnet.signature import find, signature
from mmnet.trust import mark_of
from tests.official import NAMES, official


PACKAGE = Path(mmnet.__file__).parent
OPTIONS = sorted(
    f"{path.parent.relative_to(CONF).as_posix()}={path.stem}"
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF
)
# What an option cannot do without.
BESIDE = {
    "optimizer=schedule_free": ["schedule=constant"],
    "head=contrastive": ["fusion=separate"],
    "fusion=separate": ["head=contrastive"],
    "dataset=stream": ["head=contrastive", "fusion=separate"],
    **{f"dataset={name}": [*official(name).WORDS] for name in NAMES},
}
TARGETS = sorted(
    {
        line.split()[1]
        for path in CONF.rglob("*.yaml")
        for line in path.read_text().splitlines()
        if line.startswith("_target_:")
    }
)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_to_a_sound_run(option: str) -> None:
    run = load(option, *BESIDE.get(option, []))
    assert run.modalities


@pytest.mark.parametrize("target", TARGETS)
def test_the_source_text_says_what_the_imported_constructor_takes(target: str) -> None:
    called = get_object(target)
    real = inspect.signature(called).parameters
    function = called.__init__ if inspect.isclass(called) else called
    hints = typing.get_type_hints(function, include_extras=True) if real else {}
    read = signature(target).parameters
    assert list(read) == list(real)
    for name, parameter in read.items():
        assert parameter.required == (real[name].default is inspect.Parameter.empty)
        if isinstance(mark := mark_of(parameter.annotation), Section):
            assert dict(mark.fields) == typing.get_type_hints(hints[name], include_extras=True)
        elif parameter.setting:
            assert parameter.annotation == hints[name]


@pytest.mark.parametrize("target", TARGETS)
def test_a_constructor_has_no_defaults_and_reads_all_its_settings(target: str) -> None:
    assert not [n for n, p in signature(target).parameters.items() if not p.required]
    module, _, name = target.rpartition(".")
    tree = ast.parse(find(module).read_text())
    node = next(n for n in ast.walk(tree) if getattr(n, "name", None) == name)
    if isinstance(node, ast.ClassDef):
        found = [n for n in node.body if getattr(n, "name", None) == "__init__"]
        if not found:
            return
        node = found[0]
    read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    given = set(signature(target).parameters) - {
        name for names in PASSED.values() for name in names
    }
    assert given <= read, f"{target} does not read {given - read}"


@pytest.mark.parametrize(
    "setting",
    [
        f"{kind.__name__}.{f.name}"
        for kind in (Run, Trainer, Tuning, Hardware, Paths)
        for f in fields(kind)
    ],
)
def test_every_typed_setting_is_read_by_the_program(setting: str) -> None:
    kind, name = setting.split(".")
    holder = {"Run": r"run|self|composed\.run", "Paths": "paths"}.get(kind, kind.lower())
    config_code = ("config.py", "check.py", "rules.py")
    program = "\n".join(
        path.read_text() for path in PACKAGE.rglob("*.py") if path.name not in config_code
    )
    if kind == "Run" and name == "model":
        assert "${model.name}" in (CONF / "train.yaml").read_text()
    else:
        assert re.search(rf"\b({holder})\.{name}\b", program), f"nothing in mmnet/ reads {setting}"


def test_the_command_line_beats_the_experiment_beats_the_model_beats_the_main_file() -> None:
    assert load("model=micro").fusion["dim"] == 32  # model/micro.yaml over fusion/concat.yaml
    assert load("model=micro", "fusion.dim=48").fusion["dim"] == 48
    steps = [
        OmegaConf.load(CONF / f"{name}.yaml").trainer.steps
        for name in ("train", "experiment/coco_late_fusion")
    ]
    assert [load().trainer.steps, load("experiment=coco_late_fusion").trainer.steps] == steps
    assert steps[0] != steps[1]
    assert load("experiment=coco_late_fusion", "trainer.steps=7").trainer.steps == 7
    assert load("experiment=coco_late_fusion", "dataset=shapes").dataset["num_classes"] == 4
    assert load("experiment=coco_pretrained").encoder["image"]["name"] == "vit_small_patch16_224"
    assert load("experiment=coco_pretrained", "model=text_only").modalities == ("image", "text")


def test_the_baselines_of_an_experiment_run_by_naming_another_model() -> None:
    for model, modalities in [("image_only", ("image",)), ("text_only", ("text",))]:
        run = load("experiment=coco_late_fusion", f"model={model}")
        assert run.modalities == modalities
        assert run.name == f"coco_{model}"


def test_hardware_changes_how_never_what() -> None:
    here, there = load("hardware=cpu"), load("hardware=a100", "trainer.batch_size=1024")
    assert there.hardware.device == "cuda"
    assert (there.micro_batch_size, there.accumulate) == (256, 4)
    assert (here.micro_batch_size, here.accumulate) == (128, 1)
    what = set(vars(here)) - {"hardware", "trainer"}
    assert all(getattr(here, name) == getattr(there, name) for name in what)
    assert load("hardware=h100").hardware.micro_batch_size == 256  # taken over from a100


def test_a_part_is_left_out_with_a_tilde() -> None:
    assert load("~encoder/text").modalities == ("image",)
    assert load("encoder.text=null").modalities == ("image",)


def test_values_arrive_with_their_types() -> None:
    run = load("trainer.steps=1e3", "optimizer.lr=1", "name=2026", "optimizer.betas=[0,0.5]")
    assert (run.trainer.steps, run.optimizer["lr"], run.name) == (1000, 1.0, "2026")
    assert isinstance(run.trainer.steps, int)
    assert isinstance(run.optimizer["lr"], float)
    assert run.optimizer["betas"] == (0.0, 0.5)
