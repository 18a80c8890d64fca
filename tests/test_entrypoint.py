"""The command: quick to answer, leaves nothing behind, resumes what it is told to."""

import json
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

import mmnet
from mmnet import resume
from mmnet.compose import FORMAT, Composed, Source, compose, load, make_loader
from mmnet.config import CONF, Run
from mmnet.errors import ConfigError
from mmnet.overrides import read
from mmnet.preflight import preflight


ROOT = Path(mmnet.__file__).parents[1]
SMALL = [
    "model=micro",
    "hardware=cpu",
    "tracker=none",
    "trainer.steps=2",
    "trainer.batch_size=16",
    "dataset.train_samples=64",
    "dataset.val_samples=32",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def problems(*words: str) -> list[str]:
    try:
        preflight(words)
    except ConfigError as error:
        return error.problems
    return []


def composed(*words: str) -> Composed:
    return compose(read(words, [CONF], multirun=False), Source())[0]


def start(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the working directory of the test."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS")}
    return subprocess.run(
        [sys.executable, "-m", "mmnet.train", *words],
        capture_output=True,
        text=True,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
    )


# What needs a process of its own.


@pytest.mark.parametrize("words", ["train --help", "train --version", "inspect --help"])
def test_who_has_seen_enough_may_leave(words: str) -> None:
    command = [sys.executable, "-m", *f"mmnet.{words}".split()]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == -signal.SIGPIPE


def test_the_package_itself_says_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("mmnet", run_name="__main__")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "python -m mmnet.train" in line and "python -m mmnet.inspect" in line


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--version"], 0, f"mmnet {mmnet.__version__}"),
        (["--help"], 0, "hardware: a100, auto, consumer, cpu, h100, h200"),
        (["--cfg", "job", "hardware=a100"], 0, "micro_batch_size: 256"),
        (["--info", "searchpath"], 0, "conf"),
        (["hardwre=a100"], 2, "mmnet: error: hardwre=a100 (command line): no such setting"),
        (["trainer.stpes=1", "lr=3", "seed=x"], 2, "mmnet: error: 3 problems in the configuration"),
    ],
)
def test_answers_take_no_time_and_no_torch(
    words: list[str], code: int, says: str, elsewhere: Path
) -> None:
    heavy = ("torch", "timm", "transformers", "mlflow", "numpy", "PIL")
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('LOADED', [m for m in {heavy} if m in sys.modules]))\n"
        "from mmnet.train import cli\n"
        "cli()\n"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS")}
    spent = []
    for _ in range(3):  # the best of three: others use this machine too
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True,
            text=True,
            env={**inherited, "PYTHONPATH": str(ROOT)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if spent[-1] <= 0.6:
            break
    assert ended.returncode == code
    assert says in ended.stdout + ended.stderr
    assert "LOADED []" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert min(spent) <= 0.6
    assert not list(elsewhere.iterdir())


def test_an_installed_package_finds_its_conf_from_anywhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "mmnet", site / "mmnet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, site / "mmnet" / "conf")
    ended = start("--cfg", "job", "model=micro", PYTHONPATH=str(site))
    assert ended.returncode == 0, ended.stderr
    assert "vit_tiny_patch16_224" in ended.stdout


def test_without_torch_the_command_says_what_to_install(elsewhere: Path) -> None:
    script = "import sys; sys.modules['torch'] = None\nfrom mmnet.train import cli\ncli()\n"
    ended = subprocess.run(
        [sys.executable, "-c", script, *SMALL],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "mmnet: error: torch is not installed: pip install 'mmnet[train]'"
    ]
    assert not list(elsewhere.iterdir())


def test_options_of_hydra_that_do_not_fit_together_are_told() -> None:
    assert "only one of" in problems("--cfg", "job", "-m")[0]
    assert "--resolve: only together with --cfg" in problems("--resolve")[0]
    assert "resume=<run folder>" in problems("--experimental-rerun", "x")[0]
    assert "there is no folder" in problems("--config-dir", "nowhere")[0]
    assert "--config-path conff: there is no folder" in problems("--config-path", "conff")[0]
    assert "--config-dir /dev/null: /dev/null: not" in problems("--config-dir", "/dev/null")[0]
    assert "did you mean 'train'?" in problems("--config-name", "trian")[0]


def test_help_with_completion_is_told_as_what_it_is() -> None:
    for words in ([], ["install"], ["install=csh"], ["install=bash", "query=bash"]):
        (told,) = problems("--shell-completion", *words)
        line = " ".join(["--shell-completion", *words])
        assert told == f"{line}: expected install=, uninstall= or query= bash or fish or zsh"
    assert problems("--shell-completion", "install=bash") == []


def test_each_value_of_a_sweep_is_looked_at_before_the_first_job() -> None:
    assert problems("-m", "trainer.steps=1,2", "hardware=cpu,auto", "seed=range(0,3)") == []
    (told,) = problems("-m", "trainer.steps=1,many,0")[:1]
    assert told.startswith("trainer.steps=many (command line): expected a whole number")
    assert len(problems("-m", "trainer.steps=1,many,0")) == 2
    (told,) = problems("-m", "hardware=cpu,a1000")
    assert "did you mean 'a100'?" in told
    (told,) = problems("-m", "hardwre=a,b")
    assert "did you mean 'hardware'?" in told
    assert "not a range of values" in problems("-m", "seed=range(1,2,0)")[0]


def test_a_folder_that_holds_something_is_left_alone(elsewhere: Path) -> None:
    (elsewhere / "old").mkdir()
    (elsewhere / "old" / "precious").write_text("precious")
    for words in (["hydra.run.dir=old"], ["-m", "seed=1,2", "hydra.sweep.dir=old"]):
        (told,) = problems(*words)
        assert "old: old is not an empty folder, and nothing is overwritten here" in told
    assert problems("hydra.run.dir=new") == []
    assert [p.name for p in elsewhere.rglob("*")] == ["old", "precious"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("file/runs", "file is a file"),
        ("x" * 300, "File name too long"),
        ("'a\0b'", "hydra.run.dir"),
        ("/proc/nope", "nothing can be written into /proc"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told(place: str, says: str, elsewhere: Path) -> None:
    (elsewhere / "file").touch()
    (told,) = problems(f"hydra.run.dir={place}")
    assert says in told
    if place == "file/runs":
        (told,) = problems(f"paths.output={place}")
        assert says in told and told.startswith(f"paths.output={place}: ")


def test_hydra_itself_calls_nothing_foreign(elsewhere: Path) -> None:
    call = f"{{_target_: os.system, command: 'touch {elsewhere}/owned'}}"
    study = elsewhere.parent / "study"
    (study / "hydra" / "job_logging").mkdir(parents=True)
    (study / "hydra" / "job_logging" / "bad.yaml").write_text(
        f"version: 1\nhandlers: {{h: {{(): os.system, command: 'touch {elsewhere}/owned'}}}}\n"
        "root: {handlers: [h]}\n"
    )
    (study / "hydra" / "launcher").mkdir()
    (study / "hydra" / "launcher" / "bad.yaml").write_text("_target_: os.system\n")
    option = ("--config-dir", str(study))
    for words in (
        [f"+hydra.callbacks.x={call}"],
        ["hydra.sweeper._target_=os.system", "-m", "seed=1,2"],
        [*option, "hydra/launcher=bad", "-m", "seed=1,2"],
        [*option, "hydra/job_logging=bad"],
    ):
        assert "os.system" in problems(*words)[0]
    assert "relative paths" in problems("hydra.job.chdir=true")[0]
    assert not (elsewhere / "owned").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["trainer={steps: 9, epochs: null}", "hardware.device=cpu", "hardware=a100"],
        ["optimizer.betas[0]=0.5", "optimizer.betas.1=0.7", "++trainer.steps=8"],
        ["+dataset.seed=3", "~encoder/text", "name='a b'"],
        ["experiment=coco_late_fusion", "fusion={dim: 64}", "dataset.root=/x"],
        ["experiment=coco_late_fusion", "model=text_only", "trainer.steps=1e3"],
        ["encoder.text=null", "fusion.dim=${encoder.image.dim}", "name=${model.name}_x"],
        ["encoder={image: null}", "trainer.grad_clip=null", "hydra.verbose=true"],
        ["+fusion={dropout: 0.1}", "paths.data=${oc.env:HOME}"],
        ["model=text_only", "encoder={image: null}"],
        ["~trainer.steps", "trainer.steps=5"],
        ["encoder={text: {dim: 12}, image: {dim: 16}}", "+trainer={steps: 3}"],
        ["~trainer.steps=7"],
        ["~trainer.steps=800", "+trainer.steps=5"],
    ],
)
def test_preflight_and_hydra_compose_the_same_or_refuse_together(words: list[str]) -> None:
    try:
        theirs = make_loader(Source()).load_configuration("train", words, RunMode.RUN)
    except HydraException:
        assert problems(*words) != []
    else:
        plain = OmegaConf.to_container(theirs, resolve=False)
        assert isinstance(plain, dict)
        assert composed(*words).config == {k: v for k, v in plain.items() if k != "hydra"}


# What is stored.


def test_the_stored_config_names_the_environment_and_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "hunter2-hunter2")
    monkeypatch.setenv("MMNET_DATA", "/somewhere")
    text = composed(
        "tracker.uri=http://me:hunter3@store/x",  # pragma: allowlist secret
        "tracker.artifacts=hunter2-hunter2",
        "tracker.experiment=${oc.env:STORE_PASSWORD}",
    ).text
    assert "hunter" not in text
    assert "http://***@store/x" in text
    assert "${oc.env:STORE_PASSWORD}" in text
    assert "${oc.env:MMNET_DATA,data}" in text
    assert f"\nformat: {FORMAT}\n" in text


# Going on with a run.


@pytest.fixture
def run_folder(elsewhere: Path) -> Path:
    return stored(elsewhere / "outputs" / "micro" / "2026-01-31_12-00-00-000000")


def stored(folder: Path, *words: str) -> Path:
    """A run folder, as far as its config and its checkpoints are looked at here."""
    (folder / "checkpoints" / "step_00000002").mkdir(parents=True)
    (folder / "checkpoints" / "step_00000002" / "manifest.json").write_text("{}")
    (folder / "config.yaml").write_text(composed(*SMALL, "optimizer.lr=5e-3", *words).text)
    return folder


def resumed(folder: Path, *words: str) -> Run:
    return composed(f"resume={folder}", *words).run


def test_a_run_goes_on_as_it_was_asked_for(run_folder: Path) -> None:
    before, after = load(*SMALL, "optimizer.lr=5e-3"), resumed(run_folder)
    assert after.resume == str(run_folder)
    assert {**vars(after), "resume": None} == vars(before)
    assert composed(f"resume={run_folder}").text == (run_folder / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["plain", 'it\'s "a" b', "back\\slash=[1,2]"])
def test_hydra_is_told_the_folder_of_the_run(elsewhere: Path, name: str) -> None:
    folder = stored(elsewhere / name)
    words = resume.words_for_hydra(
        ["resume=x", "trainer.steps=9", "tracker=csv", "+tracker.linger=3"],
        read(["resume=x", "trainer.steps=9", "tracker=csv", "+tracker.linger=3"], [CONF], False),
        folder,
    )
    assert words[:3] == ["tracker=csv", "++trainer.steps=9", "++tracker.linger=3"]
    parsed = OverridesParser.create().parse_overrides(words[3:])
    assert [(p.key_or_group, p.value()) for p in parsed] == [
        ("resume", str(folder)),
        ("hydra.run.dir", str(folder)),
    ]


def test_the_command_line_of_a_resumed_run_is_rewritten_for_hydra(run_folder: Path) -> None:
    relative = run_folder.relative_to(Path.cwd())
    words = preflight([f"resume={relative}", "trainer.steps=9"])
    assert words == ["++trainer.steps=9", f"resume='{run_folder}'", f"hydra.run.dir='{run_folder}'"]


def test_how_it_runs_may_change(run_folder: Path) -> None:
    run = resumed(
        run_folder,
        "hardware=a100",
        "hardware.num_workers=3",
        "tracker=csv",
        "paths.data=/elsewhere",
        "trainer.steps=9",
        "trainer.eval_every=3",
        "trainer.checkpoint_every=4",
        "trainer.keep_checkpoints=5",
        "trainer.patience=6",
        "trainer.max_nonfinite=7",
    )
    before = load(*SMALL, "optimizer.lr=5e-3")
    assert (run.hardware.device, run.hardware.num_workers) == ("cuda", 3)
    assert run.tracker == {"_target_": "mmnet.track.csv.Csv"}
    assert run.paths.data == "/elsewhere"
    trainer = run.trainer
    assert (trainer.steps, trainer.eval_every, trainer.checkpoint_every) == (9, 3, 4)
    assert (trainer.keep_checkpoints, trainer.patience, trainer.max_nonfinite) == (5, 6, 7)
    same = set(vars(run)) - {"hardware", "tracker", "paths", "trainer", "resume"}
    assert all(getattr(run, name) == getattr(before, name) for name in same)


def test_settings_of_the_stored_tracker_may_change_though_hydra_would_choose_another(
    elsewhere: Path,
) -> None:
    folder = stored(elsewhere / "run", "tracker=wandb")
    words = preflight([f"resume={folder}", "tracker.mode=offline"])
    assert words[0] == "++tracker.mode=offline"
    assert resumed(folder, "tracker.mode=offline").tracker["mode"] == "offline"
    assert resumed(folder, "++tracker.mode=offline").tracker["mode"] == "offline"


@pytest.mark.parametrize(
    "word",
    [
        "model=late_fusion",
        "fusion=concat",
        "experiment=coco_late_fusion",
        "fusion.dim=64",
        "optimizer.lr=1",
        "trainer.batch_size=8",
        "trainer.monitor=val/accuracy",
        "seed=3",
        "name=other",
        "dataset.num_classes=3",
        "~encoder/text",
    ],
)
def test_what_is_trained_may_not_change(run_folder: Path, word: str) -> None:
    told = problems(f"resume={run_folder}", word, "trainer.steps=0")
    assert f"{word} (command line): would make another run of the resumed one" in told[0]
    assert "trainer.steps=0 (command line): expected a whole number of at least 1" in told[-1]


def test_mistakes_beside_resume_are_told_with_their_place(run_folder: Path) -> None:
    (told,) = problems(f"resume={run_folder}", "trainer.stpes=3")
    assert "no such setting; did you mean 'trainer.steps'?" in told
    (told,) = problems(f"resume={run_folder}", "hardware.precision=bf61")
    assert "hardware.precision=bf61 (command line): expected one of" in told
    (told,) = problems(f"resume={run_folder}", "hydra.run.dir=x")
    assert "goes on in its own folder" in told
    (told,) = problems(f"resume={run_folder}", "-m")
    assert "leave out -m" in told
    (told,) = problems(f"resume={run_folder}", "--cfg", "job")
    assert f"{run_folder}/config.yaml" in told
    edited = (run_folder / "config.yaml").read_text().replace("lr: 0.005", "lr: fast")
    (run_folder / "config.yaml").write_text(edited)
    (told,) = problems(f"resume={run_folder}")
    line = edited.splitlines().index("  lr: fast") + 1
    file = run_folder.relative_to(Path.cwd()) / "config.yaml"
    assert told == f"optimizer.lr=fast ({file}, line {line}): expected a number above 0"


def test_a_run_is_found_by_its_id(run_folder: Path, elsewhere: Path) -> None:
    run_id = "0123456789abcdef" * 2
    address = json.dumps({"uri": "sqlite:///x", "run_id": run_id})
    (run_folder / "tracker.json").write_text(address)
    assert composed(f"resume={run_id}").run.resume == str(run_folder)
    job = stored(elsewhere / "outputs" / "micro" / "2026-02-01" / "3")
    (job / "tracker.json").write_text(address.replace(run_id, "f" * 32))
    assert composed(f"resume={'f' * 32}", "tracker=none").run.resume == str(job)
    (told,) = problems(f"resume={'e' * 32}", "tracker=none")
    assert "no run below outputs has this id, and no MLflow store is configured" in told


def test_what_cannot_be_resumed_is_told_in_one_line(run_folder: Path, elsewhere: Path) -> None:
    config = (run_folder / "config.yaml").read_text()

    def told(name: object = run_folder) -> str:
        (problem,) = problems(f"resume={name}")
        return problem

    near = str(run_folder.relative_to(elsewhere))
    assert f"there is no such folder; did you mean '{near}'?" in told(f"{near[:-1]}1")
    (elsewhere / "empty").mkdir()
    assert told(elsewhere / "empty").endswith("not a run folder: it holds no config.yaml")
    no_config, mean = "not a run folder: it holds no config.yaml; ", f"did you mean '{run_folder}'?"
    assert no_config + mean in told(elsewhere / "outputs")
    older = stored(elsewhere / "outputs" / "other" / "2026-12-31_12-00-00-000000" / "7")
    os.utime(older / "checkpoints/step_00000002/manifest.json", (1, 1))
    for name in ("outputs", elsewhere / "outputs"):
        newest = f"of the 2 runs in it the newest is '{run_folder}'"
        assert no_config + newest in told(name)
    assert no_config + mean in told(run_folder / "checkpoints" / "step_00000002")
    assert f"a file: want a run folder; {mean}" in told(run_folder / "config.yaml")
    assert told(CONF / "train.yaml").endswith("a file: want a run folder")
    for text, says in [
        (config.replace("format: 1", "format: 2"), "written by a newer mmnet (format 2"),
        (config.replace("format: 1", ""), "does not say its format"),
        ("format: 1\nname: [", "its config.yaml cannot be read"),
        ("[]", "does not say its format"),
        ("", "does not say its format"),
        (config.replace("batch_size: 16", "batch_sise: 16"), "did you mean 'trainer.batch_size'?"),
    ]:
        (run_folder / "config.yaml").write_text(text)
        assert says in " ".join(problems(f"resume={run_folder}")), text
    (run_folder / "config.yaml").write_text(config)
    (run_folder / "checkpoints" / "step_00000002" / "manifest.json").unlink()
    assert "there is no checkpoint to go on from" in told()


def test_a_secret_is_asked_for_again(elsewhere: Path) -> None:
    folder = stored(elsewhere / "run", "tracker=mlflow", "tracker.uri=http://me:hunter2@store")
    (told,) = problems(f"resume={folder}")
    assert told == "tracker.uri: a secret, and so not stored with the run: set it again"
    again = "tracker.uri=http://me:hunter2@store"  # pragma: allowlist secret
    assert problems(f"resume={folder}", again) == []


# Whole runs.


@pytest.mark.train
def test_a_run_its_log_its_resume_and_no_secret_anywhere(elsewhere: Path) -> None:
    secret = {"CANARY_TOKEN": "canary-canary-canary"}
    ended = start(*SMALL, **secret)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (elsewhere / "outputs" / "micro").iterdir()
    assert ended.stdout == ""
    assert f"run folder: {folder}" in ended.stderr.splitlines()
    assert re.search(
        r"^\d{4}-\d\d-\d\d .* INFO run folder:", (folder / "train.log").read_text(), re.M
    )
    assert OmegaConf.load(folder / "config.yaml").trainer.steps == 2
    again = start(f"resume={folder}", "trainer.steps=3", **secret)
    assert again.returncode == 0, again.stderr
    assert json.loads((folder / "summary.json").read_text())["steps"] == 3
    assert OmegaConf.load(folder / "config.yaml").trainer.steps == 3
    assert [p.name for p in (elsewhere / "outputs" / "micro").iterdir()] == [folder.name]
    for file in folder.rglob("*"):
        assert file.is_dir() or b"canary-canary" not in file.read_bytes()


@pytest.mark.train
def test_a_missing_gpu_leaves_one_line_and_nothing_else(elsewhere: Path) -> None:
    ended = start(*SMALL, "hardware=a100", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("mmnet: error: hardware.device=cuda: torch sees no CUDA device here")
    assert not list(elsewhere.iterdir())


@pytest.mark.train
def test_in_a_sweep_a_failed_job_is_told_and_the_next_one_runs(elsewhere: Path) -> None:
    ended = start(*SMALL, "-m", "hardware=a100,cpu", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 1
    assert "mmnet: error: hardware.device=cuda" in ended.stderr
    assert "Traceback" not in ended.stderr
    (sweep,) = (elsewhere / "outputs" / "micro").iterdir()
    assert not (sweep / "0").exists()
    assert (sweep / "1" / "summary.json").is_file()
