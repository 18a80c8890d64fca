"""A config that is wrong says so: all of it at once, with what would have worked and where."""

import os
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra.errors import InstantiationException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmnet
from mmnet.bounds import PositiveInt
from mmnet.compose import load, make
from mmnet.config import PACKAGES, PARTS
from mmnet.errors import ConfigError, UserError
from mmnet.preflight import preflight
from mmnet.trust import trusted_signature
from mmnet.values import Misfit, fit


def problems(*words: str) -> list[str]:
    """What preflight has to say about a command line."""
    try:
        preflight(words)
    except ConfigError as error:
        return error.problems
    return []


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, in which nothing may appear."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def study(folder: Path, **files: str) -> tuple[str, str]:
    """A --config-dir with private files; keys are paths with __ for /."""
    for name, text in files.items():
        file = folder / "study" / f"{name.replace('__', '/')}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return "--config-dir", str(folder / "study")


ONE_MISTAKE = [
    # unknown keys, however they are forced
    ("hardwre=a100", "hardwre=a100 (command line): no such setting; did you mean 'hardware'?"),
    ("trainer.stpes=5", "no such setting; did you mean 'trainer.steps'?"),
    ("+trainer.stpes=5", "no such setting; did you mean 'trainer.steps'?"),
    ("++trainer.stpes=5", "no such setting; did you mean 'trainer.steps'?"),
    ("trainer={stpes: 5}", "trainer.stpes=5 (command line): no such setting; did you mean"),
    ("lr=3e-4", "did you mean 'optimizer.lr'?"),
    ("trainer.micro_batch_size=8", "did you mean 'hardware.micro_batch_size'?"),
    ("+fusion.num_headz=4", "mmnet.fusion.concat.Concat has no such setting; it has dim, "),
    ("fusion.dropuot=0.1", "did you mean 'dropout'?"),
    (
        "encoder.txt.dim=3",
        "encoder.txt.dim=3 (command line): no such setting; did you mean 'encoder",
    ),
    ("+encoder.txt.dim=3", "no such setting; did you mean 'encoder.text'?"),
    ("+fusion._partial_=true", "no such setting"),
    ("+fusion._execution_whitelist_=[os.*]", "no such setting"),
    ("+x._target_=os.system", "x._target_=os.system (command line): no such setting"),
    # files
    ("hardware=a1000", "hardware=a1000 (command line): no such file; did you mean 'a100'?"),
    ("hardware=a1000", "there are a100, auto, consumer, cpu, h100, h200"),
    ("hardware=3", "no such file"),
    ("encodr/image=vit_small", "no such group; did you mean 'encoder/image'?"),
    ("~encodr/image", "no such group; did you mean 'encoder/image'?"),
    ("encoder=vit_small", "choose one of encoder/image=..., encoder/text=..."),
    ("encoder/text=null", "to leave this part out write ~encoder/text"),
    ("+experiment=coco_late_fusion", "leave out the +"),
    ("encoder/image.dim=3", "a setting is written with dots: encoder.image.dim=..."),
    ("encoder.image=vit_small", "to choose a file write encoder/image=vit_small"),
    ("fusion=null", "a run needs one: there are bottleneck, concat"),
    ("~fusion", "fusion: must be set: choose one with fusion=..."),
    ("trainer=3", "trainer=3 (command line): expected a section of settings; trainer.<name>="),
    ("trainer=foo", "trainer=foo (command line): expected a section of settings; trainer.<name>="),
    ("trainer.steps.foo=1", "trainer.steps.foo=1 (command line): no such setting; trainer.steps: "),
    ("resume=", "resume: expected a run folder or the id of an MLflow run"),
    ("paths.output=", "paths.output='' (command line): expected a folder"),
    ("paths.output=/proc/no", "paths.output=/proc/no: nothing can be written into /proc: "),
    # types, choices, bounds
    ("trainer.steps=many", "trainer.steps=many (command line): expected a whole number"),
    ("trainer.steps=0", "expected a whole number of at least 1"),
    ("trainer.steps=1.5", "expected a whole number"),
    ("trainer.steps=true", "expected a whole number"),
    ("trainer.steps='5'", "expected a whole number of at least 1 or null; this is text"),
    ("seed=1e30", "expected a whole number of no more than 18 digits"),
    ("hardware.precision=bf61", "expected one of auto, fp32, bf16, fp16; did you mean 'bf16'?"),
    ("hardware.compile=maybe", "expected true or false"),
    ("optimizer.lr=0", "expected a number above 0"),
    ("optimizer.lr=nan", "expected a finite number"),
    ("optimizer.lr=1e999", "expected a finite number"),
    ("fusion.dropout=1", "expected a number in [0, 1)"),
    ("optimizer.betas=[0.9]", "expected a list of 2 (a number in [0, 1))"),
    ("optimizer.betas=[0.9,1.0]", "expected a list of 2 (a number in [0, 1))"),
    ("optimizer.betas=0.9", "expected a list of 2"),
    ("name=1.5", "quote it if it is meant as text"),
    ('name="a\tb"', "without control characters"),
    ("dataset.num_classes=9", "expected a whole number from 2 to 8"),
    ("trainer.steps=[1]", "expected a whole number of at least 1 or null"),
    # what must be there
    ("fusion.dim=???", "fusion.dim=??? (command line): must be set"),
    ("~fusion.dim", "fusion.dim: must be set: mmnet.fusion.concat.Concat needs it"),
    ("~trainer.steps", "trainer.steps: must be set"),
    ("~trainer.stepz", "there is nothing to leave out"),
    ("+trainer.steps=5", "it is set already: leave out the +"),
    # what the program passes itself
    ("+fusion.dims={image: 3}", "the program passes this to mmnet.fusion.concat.Concat"),
    ("+dataset.data=/data", "the program passes this"),
    ("+optimizer.model=x", "the program passes this"),
    ("+head.dim=3", "the program passes this"),
    # what cannot be read
    ("trainer.steps", "expected key=value"),
    ("=3", "expected key=value"),
    ("trainer.steps=[1,2", "cannot be read"),
    ("name=${model.name", "cannot be read"),
    ("trainer.steps=" + "[" * 500 + "]" * 500, "nested too deeply"),
    ("name=" + "a" * 30_000, "longer than 20,000 characters"),
    ("trainer.steps=1,2", "add -m to run each of them"),
    # references
    ("name=${modle.name}", "there is no 'modle.name' to refer to; did you mean 'model.name'?"),
    ("name=${oc.env:NO_SUCH_VARIABLE}", "the environment variable NO_SUCH_VARIABLE is not set"),
    ("name=${now:%Y}", "may use oc.env, oc.decode, oc.select, not 'now'"),
    ("name=${oc.evn:HOME}", "did you mean 'oc.env'?"),
    ("name=${name}", "refers to itself: name -> name"),
    ("trainer.steps.x=3", "expected a whole number"),
    ("head.num_classes.x=3", "is a reference, ${dataset.num_classes}: set what it refers to"),
    # rules across keys
    ("trainer.epochs=3", "trainer.epochs=3 (command line): set one of the two"),
    ("trainer.steps=null", "set one of the two and the other to null"),
    ("hardware.micro_batch_size=48", "whole number of micro-batches; 144 would be"),
    ("head.num_classes=7", "as many classes as the data has"),
    ("encoder.image.patch_size=7", "whole number of patches wide; 35 would be"),
    ("encoder.text.num_heads=5", "attention splits dim among its heads; 95 would do"),
    ("optimizer=schedule_free", "add schedule=constant"),
    ("trainer.monitor=val/acuracy", "did you mean 'val/accuracy'?"),
    ("trainer.monitor=loss", "expected one of val/loss, val/accuracy, "),
    ("name=../x", "expected 1 to 100 characters without slashes"),
    ("name=..", "expected 1 to 100 characters"),
    # Hydra's own
    ("+hydra.job.env_set.LD_PRELOAD=x.so", "(LD_PRELOAD): a config may not change the environment"),
    ("hydra.job.env_copy=[HOME]", "(HOME): a config may not change the environment"),
    ("hydra.rnu.dir=x", "hydra.rnu"),
]


@pytest.mark.parametrize(("word", "says"), ONE_MISTAKE)
def test_a_mistake_is_told_with_what_would_have_worked(
    word: str, says: str, elsewhere: Path
) -> None:
    told = problems(word)
    assert any(says in problem for problem in told), told
    assert len(told) == 1, told
    assert "\n" not in told[0]
    assert not list(elsewhere.iterdir())


def test_fine_command_lines_pass_untouched() -> None:
    for line in (
        [],
        ["model=late_fusion", "hardware=a100", "trainer.steps=10", "~encoder/text"],
        ["-m", "model=image_only,text_only", "trainer.steps=1,2", "seed=range(1,4)"],
        ["--cfg", "job", "optimizer=schedule_free", "schedule=constant"],
        ["hardware=cpu", "hardware.precision=fp16", "trainer.steps=null", "trainer.epochs=2"],
        ["--help", "nonsense"],
        ["--info", "defaults"],
    ):
        assert preflight(line) == line


def test_nothing_is_dropped_from_what_a_head_cannot_do_without() -> None:
    (told,) = problems("model=two_tower", "trainer.modality_dropout=0.2")
    assert told.endswith("this head cannot do without any of the modalities")
    assert not problems("model=multitask", "trainer.modality_dropout=0.2")


def test_a_setting_of_a_part_that_is_not_chosen_says_so() -> None:
    (told,) = problems("model=text_only", "encoder.image.dim=96")
    assert told.startswith("encoder.image.dim=96 (command line): nothing is chosen")
    assert told.endswith("choose it with encoder/image=...")


def test_everything_wrong_is_told_at_once_with_its_file_and_line(tmp_path: Path) -> None:
    option = study(
        tmp_path,
        experiment__mine="""# @package _global_
defaults:
  - override /fusion: concatt
  - override /hardware: cpu

trainer:
  stpes: 5
  batch_size: 100
fusion:
  dim: wide
hardware:
  micro_batch_size: 32
  precision: bf61
dataset:
  image_size: 36
""",
    )
    told = problems(*option, "experiment=mine", "optimizer.lr=-1", "encodr/text=bytes")
    file = option[1] + "/experiment/mine.yaml"
    for says in (
        f"fusion=concatt ({file}, line 3): no such file; did you mean 'concat'?",
        f"trainer.stpes=5 ({file}, line 7): no such setting; did you mean 'trainer.steps'?",
        f"trainer.batch_size=100 ({file}, line 8) and hardware.micro_batch_size=32 "
        f"({file}, line 12): a batch must be a whole number of micro-batches; 96 would be",
        f"fusion.dim=wide ({file}, line 10): expected a whole number of at least 1",
        f"hardware.precision=bf61 ({file}, line 13): expected one of",
        f"encoder.image.image_size=36 (${{dataset.image_size}}, {file}, line 15)",
        "optimizer.lr=-1 (command line): expected a number above 0",
        "encodr/text=bytes (command line): no such group; did you mean 'encoder/text'?",
    ):
        assert any(says in problem for problem in told), (says, told)
    assert len(told) == 8


def test_a_number_left_over_from_another_part_is_told_with_its_file(tmp_path: Path) -> None:
    option = study(
        tmp_path, experiment__tuned="# @package _global_\nschedule:\n  decay_ratio: 0.1\n"
    )
    assert problems(*option, "experiment=tuned", "schedule=wsd") == []
    (told,) = problems(*option, "experiment=tuned", "schedule=linear")
    assert "study/experiment/tuned.yaml, line 3): mmnet.schedule.linear.linear has no such" in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trainer: [1\n", "while parsing"),
        ("trainer:\n\t- x\n", "found character"),
        ("defaults:\n  - override /fusoin: concat\n", "fusoin"),
        ("- a\n- b\n", ""),
        ("a: &a [*a]\n", ""),
        ("x: !!python/object/apply:os.system ['touch owned']\n", ""),
        ("a: " + "[" * 2000 + "]" * 2000, "nesting depth"),
    ],
)
def test_a_broken_file_is_told_on_one_line(tmp_path: Path, text: str, says: str) -> None:
    option = study(tmp_path, experiment__broken="# @package _global_\n" + text)
    told = problems(*option, "experiment=broken")
    assert told
    assert says in told[0]
    assert all("\n" not in problem for problem in told)
    assert not Path("owned").exists()


# Rules that want more than one word.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["~encoder/text", "~encoder/image"], "a network needs an encoder"),
        (["encoder/text=bert", "encoder.text.max_length=513"], "reads at most 512 tokens"),
        (["encoder/text=distilbert", "encoder.text.max_length=600"], "reads at most 512 tokens"),
        (["encoder/text=bert_micro", "encoder.text.max_length=513"], "reads at most 512 tokens"),
        (["optimizer=sgd", "optimizer.momentum=0"], "nesterov needs a momentum above 0"),
        (["schedule=wsd", "schedule.decay_ratio=1"], "longer than the run"),
        (["trainer.batch_size=100", "hardware=a100", "hardware.micro_batch_size=30"], "90 would"),
    ],
)
def test_settings_must_fit_each_other(words: list[str], says: str) -> None:
    (told,) = problems(*words)
    assert says in told


def test_limits_are_limits_and_no_more() -> None:
    assert problems("encoder/text=bert", "encoder.text.max_length=512") == []
    assert problems("encoder.text.max_length=5000") == []  # bytes know no limit
    Path("bert-long").mkdir()  # a local model says itself how long it reads
    longer = ["encoder/text=bert", "encoder.text.name=bert-long", "encoder.text.max_length=999"]
    assert problems(*longer) == []
    assert problems("trainer.batch_size=32", "hardware=a100") == []  # less than a micro-batch
    assert problems("trainer.monitor=val/accuracy", "name='a b.c'") == []


# What a config may call.

REFUSED = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.run",
    "pickle.loads",
    "torch.load",
    "torch.serialization.load",
    "torch.hub.load",
    "torch.utils.collect_env.run",
    "torch.utils.collect_env.subprocess.run",
    "torch.os.system",
    "numpy.load",
    "pandas.read_pickle",
    "functools.partial",
    "hydra.utils.get_method",
    "timm.create_model",
    "transformers.AutoConfig.from_pretrained",
    "mmnet.os.system",
    "mmnet.encoder.os.system",
    "mmnet.encoder.text.huggingface.os.system",
    "mmnet.encoder.text.huggingface.AutoModel",
    "mmnet.encoder.text.huggingface.AutoModel.from_pretrained",
    "mmnet.track.mlflow.subprocess.run",
    "mmnet.dataset.coco.Path",
    "mmnet.fusion.concat.torch.load",
    "mmnet.fusion.concat.torch.hub.load",
    "mmnet.checkpoint.load",
    "mmnet.compose.make",
    "experiments.os.system",
    "mmnet.fusion...system",
    "mmnet.fusion.*",
]
PLACES = ("encoder.image", "encoder.text", *PARTS)


@pytest.mark.parametrize("start", range(0, len(REFUSED), len(PLACES)))
def test_a_config_cannot_call_what_is_not_a_part(start: int, elsewhere: Path) -> None:
    command = f"touch {elsewhere}/owned"
    targets = dict(zip(PLACES, REFUSED[start:], strict=False))
    words = [f"{place}._target_={target}" for place, target in targets.items()]
    told = problems(*words, *(f"+{place}.command='{command}'" for place in targets))
    for word in words:
        assert any(problem.startswith(f"{word} (command line): ") for problem in told), told
    for target in targets.values():
        with pytest.raises((InstantiationException, ImportError, ValueError)):
            make({"_target_": target, "_args_": [command]})
    assert not list(elsewhere.iterdir())


def test_nothing_inside_a_part_is_called(elsewhere: Path) -> None:
    inner = f"{{_target_: os.system, command: 'touch {elsewhere}/owned'}}"
    assert problems(f"fusion.dim={inner}") != []
    assert problems(f"+tracker.callback={inner}") != []
    part = {
        "_target_": "mmnet.head.classification.Classification",
        "dim": {"_target_": "os.system", "command": f"touch {elsewhere}/owned"},
        "num_classes": 3,
        "label_smoothing": 0.0,
        "dropout": 0.0,
    }
    with pytest.raises((InstantiationException, TypeError)):
        make(part)
    assert not list(elsewhere.iterdir())


def test_settings_stay_data_even_when_they_name_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "experiments"
    package.mkdir(parents=True)
    (package / "holder.py").write_text(
        "class Holder:\n    def __init__(self, inner: dict):\n        self.inner = inner\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    inner = {"_target_": "mmnet.controller.fixed.Fixed"}
    assert make({"_target_": "experiments.holder.Holder", "inner": inner}).inner == inner


def test_a_class_of_another_package_is_refused_however_well_it_would_fit() -> None:
    (told,) = problems("tracker=none", "tracker._target_=multiprocessing.pool.Pool")
    assert "not among what a config may name here: mmnet.track.*, experiments.*" in told


def test_a_part_of_another_group_is_refused() -> None:
    told = problems("fusion._target_=mmnet.head.classification.Classification")
    assert "not among what a config may name here: mmnet.fusion.*, experiments.*" in told[0]
    told = problems("encoder.text._target_=mmnet.encoder.text.sources.load_tokenizer")
    assert "it is a function, not a class" in told[0]
    told = problems("tracker._target_=mmnet.track.launch.Shipper")
    assert "tracker._target_" in told[0]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("mmnet.fusion.concatt.Concat", "no module 'mmnet.fusion.concatt'; did you mean"),
        ("mmnet.fusion.concat.Concatt", "defines no public 'Concatt'; did you mean 'Concat'?"),
        ("mmnet.fusion.concat._private", "defines no public '_private'"),
    ],
)
def test_a_misspelt_part_is_told_with_the_nearest(target: str, says: str) -> None:
    assert says in problems(f"fusion._target_={target}")[0]


# Functions and classes below the trusted packages that take something which could be made to
# run code or to read any file, each looked at: names of timm and hub models, remote code off.
REVIEWED = {
    "mmnet.encoder.image.naflex.NaFlex": {"name"},
    "mmnet.encoder.image.timm.Timm": {"name"},
    "mmnet.encoder.text.huggingface.HuggingFace": {"name"},
}


def test_no_part_takes_a_command_a_dotted_name_or_a_pickle() -> None:
    root = Path(mmnet.__file__).parent
    suspicious = {"command", "path", "name", "target", "checkpoint", "trust_remote_code", "kwargs"}
    found, seen = {}, 0
    for group, package in PACKAGES.items():
        for file in root.joinpath(*package.split(".")[1:]).rglob("*.py"):
            module = ".".join(file.relative_to(root.parent).with_suffix("").parts)
            for name in re.findall(r"^(?:class|def) ([a-zA-Z]\w*)", file.read_text(), re.M):
                try:
                    declared = trusted_signature(f"{module}.{name}", group)
                except UserError:
                    continue  # cannot be called from a config
                seen += 1
                risky = {n for n, p in declared.parameters.items() if p.setting} & suspicious
                if risky:
                    found[f"{module}.{name}"] = risky
    assert seen > 15
    assert found == REVIEWED


# Secrets.


def test_a_secret_of_the_environment_reaches_no_setting_but_the_trackers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUD_SECRET_ACCESS", "hunter2-hunter2")
    for word in (
        "name=${oc.env:CLOUD_SECRET_ACCESS}",
        "paths.data=hunter2-hunter2",
        "name=run-${oc.env:CLOUD_SECRET_ACCESS}-1",
    ):
        (told,) = problems(word)
        assert "CLOUD_SECRET_ACCESS, by its name a secret" in told
        assert "hunter2" not in told
    assert problems("tracker.experiment=${oc.env:CLOUD_SECRET_ACCESS}") == []
    assert "hunter2" not in str(problems("trainer.steps=hunter2-hunter2", "x=hunter2-hunter2"))


# Size and time.


def tenfold(key: str) -> str:
    return f"${{{key}}}" * 10


def grown(first: str, last: int) -> str:
    """a0 holds `first`; each next key holds the one before ten times."""
    return f"a0: {first}\n" + "".join(
        f"a{i}: '{tenfold(f'a{i - 1}')}'\n" for i in range(1, last + 1)
    )


def in_known_keys() -> str:
    keys = ["model.name", "paths.data", "paths.output", "tracker.uri", "tracker.artifacts"]
    keys += ["tracker.experiment", "trainer.monitor", "name"]
    text = "model: {name: xxxxxxxxxx}\n"
    for before, key in pairwise(keys):
        section, _, last = key.rpartition(".")
        line = f"{last}: '{tenfold(before)}'"
        text += f"{section}: {{{line}}}\n" if section else f"{line}\n"
    return text.replace("}\npaths: {", ", ").replace("}\ntracker: {", ", ")


def in_sections() -> str:
    text = "a0: [x,x,x,x,x,x,x,x,x,x]\n"
    for i in range(1, 9):
        text += f"a{i}: [" + ",".join([f"'${{a{i - 1}}}'"] * 10) + "]\n"
    return text


def in_aliases() -> str:
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    for i in range(1, 8):
        text += f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 10) + "]\n"
    return text


BOMBS = {
    "unknown keys": grown("xxxxxxxxxx", 9),
    "empty text": grown("''", 9),
    "known keys": in_known_keys(),
    "sections": in_sections(),
    "aliases": in_aliases(),
    "chain": "a0: x\n" + "".join(f"a{i}: ${{a{i - 1}}}\n" for i in range(1, 200)),
    "loop": "name: ${model.name}\nmodel: {name: '${name}'}\n",
    "large": "model: {name: '" + "x" * 2_000_000 + "'}\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_config_that_expands_without_end_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    option = study(tmp_path, experiment__bomb="# @package _global_\n" + BOMBS[kind])
    begin = time.process_time()
    told = problems(*option, "experiment=bomb")
    assert time.process_time() - begin < 2
    assert told
    assert all(len(problem) <= 400 for problem in told)


@pytest.mark.train  # two seconds of computing are what it allows
def test_files_that_merge_into_such_a_reference_are_refused_too(tmp_path: Path) -> None:
    option = study(
        tmp_path,
        experiment__bomb=f"# @package _global_\n{grown('xxxxxxxxxx', 9)}trainer: ${{a9}}\n",
        experiment__more="# @package _global_\ntrainer: {steps: 3}\n",
    )
    begin = time.process_time()
    (told,) = problems(*option, "experiment=[bomb,more]")
    assert time.process_time() - begin < 4
    assert "not done after 2 seconds of computing" in told


def test_reasonable_references_are_no_bombs() -> None:
    run = load(
        "name=${oc.select:model.name}_${seed}",
        "paths.output='${oc.env:NO_SUCH_VARIABLE,${paths.data}}/out'",
        "trainer.eval_every=${trainer.steps}",
        "fusion.dim=${encoder.image.dim}",
        "trainer.patience=${oc.decode:'3'}",
    )
    assert run.name == "late_fusion_0"
    assert run.paths.output == "data/out"
    assert run.trainer.eval_every == run.trainer.steps
    assert run.fusion["dim"] == 96
    assert run.trainer.patience == 3


# Anything else that one may type.

# fmt: off
KEYS = [
    "trainer.steps", "trainer", "hardware", "hardware.device", "encoder/text", "encoder.text",
    "encoder.image.dim", "fusion._target_", "optimizer.betas", "optimizer.betas[0]",
    "paths.data", "name", "seed", "hydra", "hydra.run.dir", "hydra.searchpath",
    "hydra/launcher", "hydra.mode", "resume", "experiment", "a.b.c", "tracker.uri", "x@y",
    "encoder", "hydra.callbacks.x", "hydra.job_logging", "schedule",
]
VALUES = [
    "1", "null", "true", "[1,2]", "{a:1}", "${name}", "${oc.env:HOME}", "${a", "nan", "-1",
    "1e999", "'q'", "???", "a,b", "range(1,3)", "choice(1,2)", "glob(*)", "interval(0,1)",
    "${.x}", "${..x.y}", "${now:%Y}", "${hydra:run.dir}", "${oc.create:{}}", "[[[[1]]]]",
    "a100", "os.system", "[", "}", "\\", "$", "${}", "${:}", "${a.${b}}", "tag(x)",
    "sort(1,2)", "${trainer}", "..", "=", "${oc.select:name}", "${trainer.steps}", "'é'",
    "{a:{b:{c:1}}}",
]
# fmt: on
WORDS = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "", "+", "++", "~"]),
        st.sampled_from(KEYS),
        st.sampled_from(["=", "=", "=", "==", ""]),
        st.sampled_from(VALUES) | st.text(max_size=20),
    ),
    st.text(st.characters(codec=None), max_size=30),
).filter(lambda word: not word.startswith("-"))


def end_in_lines_of_text(folder: Path, words: list[str], multirun: bool) -> None:
    begin = time.process_time()
    told = problems(*words, *(["-m"] if multirun else []))
    assert time.process_time() - begin < 2
    for problem in told:
        assert problem.isprintable()
        assert 0 < len(problem) <= 400
    assert not list(folder.iterdir())


any_line = given(words=st.lists(WORDS, min_size=1, max_size=4), multirun=st.booleans())
patient = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(patient, max_examples=12)
@any_line
def test_whatever_is_typed_ends_in_lines_of_text(
    elsewhere: Path, words: list[str], multirun: bool
) -> None:
    end_in_lines_of_text(elsewhere, words, multirun)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(patient, max_examples=3000 if os.environ.get("MMNET_FULL") else 500)
@any_line
def test_whatever_is_typed_ends_in_lines_of_text_at_length(
    elsewhere: Path, words: list[str], multirun: bool
) -> None:
    end_in_lines_of_text(elsewhere, words, multirun)


# Parts of a study.


def test_a_private_part_is_judged_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "experiments" / "gates"
    package.mkdir(parents=True)
    (package / "weighed.py").write_text(
        """raise SystemExit("imported")
from dataclasses import dataclass
from typing import Literal
from mmnet.bounds import PositiveInt

Kind = Literal["soft", "hard"]

class Weighed:
    joins: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    modalities: ClassVar[int] = 1

    def __init__(self, dims: dict[str, int], dim: PositiveInt, kind: Kind, extra: int = 3): ...

class _Hidden(Weighed):
    pass

class Doubly(Weighed):
    pass

class Odd:
    joins = True
    pools = True
    modalities = 1

    def __init__(self, dims: dict[str, int], net: "torch.nn.Module"): ...
"""
    )
    monkeypatch.syspath_prepend(str(package.parents[1]))
    text = "_target_: experiments.gates.weighed.Weighed\ndim: 8\nkind: soft\n"
    option = study(tmp_path, fusion__weighed=text)
    assert problems(*option, "fusion=weighed") == []
    assert problems(*option, "fusion=weighed", "+fusion.extra=4") == []
    (told,) = problems(*option, "fusion=weighed", "fusion.kind=sift")
    assert "expected one of soft, hard; did you mean 'soft'?" in told
    (told,) = problems(*option, "fusion=weighed", "+fusion.extras=4")
    assert "did you mean 'extra'?" in told
    (told,) = problems(*option, "fusion=weighed", "fusion.extra=4")
    assert "no file sets this; add a +" in told
    assert (
        problems(*option, "fusion=weighed", "fusion._target_=experiments.gates.weighed.Doubly")
        == []
    )
    (told,) = problems(
        *option, "fusion=weighed", "fusion._target_=experiments.gates.weighed._Hidden"
    )
    assert "defines no public '_Hidden'" in told
    (told,) = problems(*option, "fusion=weighd")
    assert "did you mean 'weighed'?" in told
    (told,) = problems(*option, "fusion._target_=experiments.gates.weighed.Odd", "~fusion.dim",
                       "~fusion.dropout")  # fmt: skip
    assert "its parameter 'net' has a type that no setting can have" in told
    (told,) = problems("fusion._target_=experiments.nowhere.weighed.Weighed")
    assert "no module 'experiments.nowhere.weighed'" in told


def test_a_head_of_a_study_may_build_on_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "experiments"
    package.mkdir(parents=True)
    (package / "focal.py").write_text(
        """from mmnet.head.classification import Classification

class Focal(Classification):
    higher_is_better = {"accuracy": True, "focus": True}
"""
    )
    monkeypatch.syspath_prepend(str(package.parent))
    focal = "head._target_=experiments.focal.Focal"
    assert problems(focal, "trainer.monitor=val/focus") == []
    (told,) = problems(focal, "trainer.monitor=val/focsu", "head.dropout=0.5")
    assert "did you mean 'val/focus'?" in told


def test_errors_of_a_part_come_through_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "experiments"
    package.mkdir(parents=True)
    (package / "moody.py").write_text(
        """from mmnet.errors import UserError

class Moody:
    def __init__(self, mood: str):
        raise UserError(f"mood={mood}: not today")
"""
    )
    monkeypatch.syspath_prepend(str(package.parent))
    with pytest.raises(UserError, match="mood=bad: not today"):
        make({"_target_": "experiments.moody.Moody", "mood": "bad"})


# Types, by themselves.


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        (3, float, 3.0),
        (1e4, int, 10_000),
        (2026, str, "2026"),
        (None, int | None, None),
        ([1, 2], list[float], [1.0, 2.0]),
        ([1, 2], tuple[int, float], (1, 2.0)),
        ([], tuple[int, ...], ()),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ("b", Literal["a", "b"] | None, "b"),
        ({"x": [1]}, Any, {"x": [1]}),
        ([1, "a"], list, [1, "a"]),
    ],
)
def test_a_value_that_fits_is_made_what_its_type_says(
    value: object, annotation: Any, fitted: object
) -> None:
    made = fit(value, annotation)
    assert made == fitted
    assert type(made) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        (True, int, "a whole number"),
        (True, float, "a number"),
        (1, bool, "true or false"),
        (True, Literal[1, 2], "one of 1, 2"),
        ("1", int, "a whole number"),
        (None, str, "text (quote it if it is meant as text)"),
        (True, str, "text (quote it if it is meant as text)"),
        ([1, "a"], list[int], "a list (a whole number each)"),
        ([1], tuple[int, int], "a list of 2 (a whole number)"),
        ("ab", list[str], "a list (text each)"),
        ({"a": "b"}, dict[str, int], "a whole number"),
        ([], dict[str, int], "a section of settings"),
        ("c", Literal["a", "b"] | None, "one of a, b or null"),
        (1.5, PositiveInt | None, "a whole number of at least 1 or null"),
    ],
)
def test_a_value_that_does_not_fit_is_told_what_would(
    value: object, annotation: Any, says: str
) -> None:
    with pytest.raises(Misfit, match=f"^expected {re.escape(says)}$"):
        fit(value, annotation)
