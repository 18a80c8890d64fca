"""The program from its command line to its folder: real processes, signals and bad input."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmnet.assembly import assemble
from mmnet.compose import load
from mmnet.data.loader import eval_batches
from mmnet.evaluation import evaluate
from mmnet.stop import Stop
from tests.command import (
    MICRO,
    ROOT,
    Ended,
    begin,
    checkpoints,
    end,
    everything,
    run,
    run_folders,
    until,
    weights,
)


pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run of MICRO that nobody disturbed."""
    ended = run(tmp_path_factory.mktemp("whole"), *MICRO)
    assert ended.code == 0, ended.err
    return ended


def failed(ended: Ended, code: int, says: str) -> None:
    """It told the one thing that is wrong, on its last line, and nothing else went wrong."""
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("mmnet: error: ") and re.search(says, last), ended.err
    assert ended.code == code
    assert ended.out == "" and "Traceback" not in ended.err


def nothing_began(where: Path) -> None:
    """No run folder, not even an empty one."""
    assert [path.name for path in where.iterdir() if path.name.startswith("outputs")] == []


# A run that goes through


def test_a_run_leaves_a_folder_that_says_it_all(whole: Ended) -> None:
    there = {path.relative_to(whole.folder).as_posix() for path in whole.folder.rglob("*.*")}
    assert there >= {
        "config.yaml",
        "record.json",
        "metrics.jsonl",
        "summary.json",
        "train.log",
        "model.safetensors",
        "checkpoints/step_00000040/manifest.json",
        *(f"plots/{name}.png" for name in ("loss", "rate", "confusion", "predictions")),
    }
    assert not [name for name in there if ".tmp" in name]
    for name in ("train/loss", "train/grad_norm", "train/lr", "train/samples_per_second"):
        assert list(whole.metric(name)) == list(range(1, 41)), name
    assert list(whole.metric("val/loss")) == [10, 20, 30, 40]

    summary = whole.summary
    assert summary["status"] == "FINISHED" and summary["error"] == ""
    assert summary["steps"] == 40
    assert summary["final"]["val/loss"] == whole.metric("val/loss")[40]
    assert summary["best"]["val/loss"] == min(whole.metric("val/loss").values())
    measured = ("loss", "accuracy", "macro_f1", "auroc", "ece")
    assert set(summary["best"]) == {f"val/{name}" for name in measured}
    assert summary["samples_per_second"] > 0 and summary["peak_memory_mb"] > 50
    assert 0 < summary["seconds_to_first_step"] < 100
    assert summary["bad_samples"] == {"train": {}, "val": {}}


def test_the_console_is_plain_and_ends_with_where_things_are(whole: Ended) -> None:
    assert whole.out == ""
    assert whole.err.isprintable() or set(whole.err) - {"\n"} <= set(
        filter(str.isprintable, whole.err)
    )
    lines = whole.err.splitlines()
    assert len(lines) < 15  # not one a step
    assert lines[-1] == f"run folder: {whole.folder}"
    log = (whole.folder / "train.log").read_text()
    assert all(line in log for line in lines)


def test_the_final_weights_give_the_metrics_of_the_summary(whole: Ended, tmp_path: Path) -> None:
    job = assemble(load(*MICRO), tmp_path)
    job.model.load_state_dict(load_file(whole.folder / "model.safetensors"))
    batches = eval_batches(
        job.val, job.reading, batch_size=16, num_workers=0, device=torch.device("cpu")
    )
    found = evaluate(job.model, batches, job.machine, Stop(), 16).values
    assert {f"val/{name}": value for name, value in found.items()} == whole.summary["final"]


def test_a_finished_run_resumed_is_finished_still(whole: Ended) -> None:
    before = everything(whole.folder)
    ended = run(whole.folder.parents[2], f"resume={whole.folder}")
    assert ended.code == 0
    last = ended.err.splitlines()[-1]
    assert last == "the run is finished: 40 of 40 steps; give trainer.steps=<more> to go on"
    assert ended.folder == whole.folder and everything(whole.folder) == before
    assert list(ended.metric("train/loss")) == list(range(1, 41))
    assert ended.summary["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("model", "workers"), [("late_fusion", 1), ("image_only", 0), ("text_only", 0)]
)
def test_coco_photos_and_captions(data: Path, tmp_path: Path, model: str, workers: int) -> None:
    ended = run(
        tmp_path,
        "experiment=coco_late_fusion",
        f"model={model}",
        f"paths.data={data}",
        "tracker=none",
        "hardware=cpu",
        "hardware.threads=1",
        f"hardware.num_workers={workers}",
        "trainer.steps=3",
        "trainer.batch_size=8",
    )
    assert ended.code == 0, ended.err
    assert ended.folder.parent.name == f"coco_{model}"
    assert list(ended.metric("train/loss")) == [1, 2, 3]
    measured = ("loss", "accuracy", "top5", "macro_f1", "auroc", "ece")
    assert set(ended.summary["final"]) == {f"val/{name}" for name in measured}
    assert (ended.folder / "plots/predictions.png").stat().st_size > 10_000


# Signals


def interrupt(where: Path, sent: Sequence[int], at: str, *words: str, group: bool) -> Ended:
    """Start a run and send it signals: while it `start`s, after some `steps`, while a
    `checkpoint` is written, in an `evaluation`.
    """
    process = begin(where, *MICRO, *words, process_group=0 if group else None)
    if at == "start":
        until(lambda: run_folders(where), process)
        time.sleep(0.5)  # into the import of torch
    elif at == "evaluation":
        until(lambda: 35 in checkpoints(where), process)
        time.sleep(0.4)
    else:
        until(lambda: checkpoints(where), process)
    if at == "checkpoint":
        until(lambda: list(where.glob("outputs/*/*/checkpoints/.tmp-step_*")), process)
    for number in sent:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    return end(process, where)


WORKERS = "hardware.num_workers=2"
LONG_EVALUATION = ("trainer.eval_every=40", "dataset.val_samples=600")
SIGNALS = {
    "SIGTERM": ([signal.SIGTERM], "steps", [], False),
    "SIGINT to all, with workers": ([signal.SIGINT], "steps", [WORKERS], True),
    "SIGTERM twice to all, with workers": ([signal.SIGTERM] * 2, "steps", [WORKERS], True),
    "SIGINT twice": ([signal.SIGINT] * 2, "steps", [], False),
    "SIGTERM while a checkpoint is written": ([signal.SIGTERM], "checkpoint", [], False),
    "SIGINT in an evaluation": ([signal.SIGINT], "evaluation", LONG_EVALUATION, False),
}


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_saves_the_run_and_resuming_ends_as_if_nothing_had_been(
    whole: Ended, tmp_path: Path, kind: str
) -> None:
    sent, at, words, group = SIGNALS[kind]
    ended = interrupt(tmp_path, sent, at, *words, group=group)
    name = signal.Signals(sent[0]).name
    failed(
        ended, 128 + sent[0], rf"stopped by {name} .*after step \d+; go on .*resume={ended.folder}"
    )
    assert ended.summary["status"] == "KILLED" and ended.summary["steps"] < 41
    assert not (ended.folder / "model.safetensors").exists()
    if at == "evaluation":
        assert "evaluation at step 40 given up" in ended.err

    resumed = run(tmp_path, f"resume={ended.folder}")
    assert resumed.code == 0, resumed.err
    assert resumed.folder == ended.folder and resumed.summary["status"] == "FINISHED"
    assert list(resumed.metric("train/loss")) == list(range(1, 41))
    if words == LONG_EVALUATION:  # its evaluations are others, its weights are not
        assert weights(resumed.folder) == weights(whole.folder)
    else:
        assert everything(resumed.folder) == everything(whole.folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_leaves_nothing(tmp_path: Path, number: int) -> None:
    ended = interrupt(tmp_path, [number], "start", group=False)
    assert ended.code == 128 + number
    assert ended.err == ""
    nothing_began(tmp_path)


def test_a_tracked_run_is_resumed_by_its_id(whole: Ended, tmp_path: Path) -> None:
    words = ("tracker=mlflow", "tracker.uri=sqlite:///runs.db", "tracker.system_every=60")

    def ask(query: str) -> list[tuple]:
        with closing(sqlite3.connect(tmp_path / "runs.db", timeout=20)) as database:
            return database.execute(query).fetchall()

    stopped = interrupt(tmp_path, [signal.SIGTERM], "steps", *words, group=False)
    assert stopped.code == 143, stopped.err
    address = stopped.folder / "tracker.json"
    stop = time.monotonic() + 60  # it is made by a process in the background
    while not (address.exists() and ask("select status from runs") == [("KILLED",)]):
        assert time.monotonic() < stop
        time.sleep(0.2)

    run_id = json.loads(address.read_text())["run_id"]
    # From another place, so that it cannot be found beside the working directory.
    resumed = run(
        tmp_path / "elsewhere", f"resume={run_id}", f"tracker.uri=sqlite:///{tmp_path}/runs.db"
    )
    assert resumed.code == 0, resumed.err
    assert run_folders(tmp_path / "elsewhere") == []
    assert f"run folder: {stopped.folder}" in resumed.err
    shown = f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs.db"
    assert resumed.err.splitlines()[-1].endswith(shown)
    assert ask("select run_uuid, status from runs") == [(run_id, "FINISHED")]
    stored = ask("select step, value from metrics where key = 'train/loss' order by step")
    assert stored == list(whole.metric("train/loss").items())
    assert everything(stopped.folder) == everything(whole.folder)


# Bad input


def test_all_mistakes_of_a_command_line_are_told_at_once(tmp_path: Path) -> None:
    mistakes = {
        "trainer.stpes=5": "no such setting; did you mean 'trainer.steps'?",
        "hardware=a1000": "no such file; did you mean 'a100'?",
        "dataset.train_samples=0": "expected a whole number of at least 1",
        "optimizer.lr=nan": "expected a finite number",
    }
    ended = run(tmp_path, *mistakes)
    assert ended.code == 2 and ended.out == ""
    head, *lines = ended.err.splitlines()
    assert head == "mmnet: error: 4 problems in the configuration:" and len(lines) == 4
    for mistake, says in mistakes.items():
        assert any(f"{mistake} (command line): {says}" in line for line in lines), ended.err
    nothing_began(tmp_path)


COCO = (
    "experiment=coco_late_fusion",
    "model=micro",
    "dataset.image_size=32",
    "tracker=none",
    "hardware=cpu",
    "hardware.threads=1",
    "trainer.steps=4",
    "trainer.batch_size=40",
)


def copy_of_coco(data: Path, to: Path) -> Path:
    """COCO with links for photos, to be spoilt."""
    for split in ("train2017", "val2017"):
        (to / split).mkdir(parents=True)
        for photo in (data / "coco" / split).iterdir():
            (to / split / photo.name).symlink_to(photo)
    (to / "annotations").mkdir()
    for file in (data / "coco/annotations").glob("[ci][an]*.json"):  # captions, instances
        (to / "annotations" / file.name).write_bytes(file.read_bytes())
    return to


@pytest.fixture(scope="module")
def damaged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """COCO with bad samples among the good ones, and the reason why each is bad."""
    root = copy_of_coco(data, tmp_path_factory.mktemp("data") / "coco")
    instances = json.loads((root / "annotations/instances_train2017.json").read_text())
    used = {one["image_id"] for one in instances["annotations"] if not one["iscrowd"]}
    path = root / "annotations/captions_train2017.json"
    captions = json.loads(path.read_text())
    photos = [photo for photo in captions["images"] if photo["id"] in used]

    def put(number: int, content: bytes | None) -> str:
        file = root / "train2017" / photos[number]["file_name"]
        whole = file.read_bytes()
        file.unlink()
        if content is not None:
            file.write_bytes(content or whole[: len(whole) // 2])
        return f"train2017/{file.name}"

    nasty = data / "nasty_images/pillow"
    reasons = {
        put(0, b""): "damaged picture: image file is truncated",
        put(1, None): "missing file",
        put(2, b"<html>not found</html>"): "not a picture",
        put(3, (nasty / "bmp/b/reallybig.bmp").read_bytes()): "picture too large",
        put(4, (nasty / "bmp/b/badbitcount.bmp").read_bytes()): "damaged picture: Unsupported BMP",
    }
    reasons[f"train2017/{photos[5]['file_name']}"] = "empty caption"
    for caption in captions["annotations"]:
        if caption["image_id"] == photos[5]["id"]:
            caption["caption"] = "\0 \u202e\x1b"
        if caption["image_id"] == photos[6]["id"]:  # these are mended, and no reason to leave out
            caption["caption"] = "a\0 \ud800 man \udc00 on a \u202ehorse"
    path.write_text(json.dumps(captions))
    return root, reasons


def test_bad_samples_are_left_out_counted_and_named(
    damaged: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, reasons = damaged
    ended = run(tmp_path, *COCO, f"dataset.root={root}", "dataset.max_bad_fraction=0.1")
    assert ended.code == 0, ended.err
    counts = ended.summary["bad_samples"]
    assert counts["val"] == {} and sum(counts["train"].values()) == len(reasons)
    for key, reason in reasons.items():
        assert re.search(rf"left out of train: {key}: {reason}", ended.err), key
        assert any(found.startswith(reason) for found in counts["train"])
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("dataset.on_bad_sample=fail", r"sample train2017/\d+\.jpg of train cannot be read: "),
        ("dataset.max_bad_fraction=0.01", r"1 of the \d+ samples of train .* \(1 x .*=0.01 allows"),
    ],
)
def test_too_many_bad_samples_end_the_run(
    damaged: tuple[Path, dict[str, str]], tmp_path: Path, setting: str, says: str
) -> None:
    ended = run(tmp_path, *COCO, f"dataset.root={damaged[0]}", setting)
    failed(ended, 1, says)
    assert ended.summary["status"] == "FAILED"
    assert re.search(says, ended.summary["error"])


def empty(root: Path) -> None:
    for name in ("captions", "instances"):
        path = root / f"annotations/{name}_train2017.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))


@pytest.mark.parametrize(
    ("spoil", "words", "says"),
    [
        (empty, [], r"train_split=train: .* no such samples; it has val \(79\)"),
        (None, ["dataset.num_classes=5"], r"num_classes=5, but .* has 12: person"),
        (None, ["dataset.root=null"], r"dataset=coco wants one folder .* paths\.data=data"),
        (None, [f"dataset.root={'a' * 300}"], r"dataset\.root=a+: file name too long"),
        (
            None,
            [f"encoder.image.pretrained={'a' * 300}.safetensors"],
            r"encoder\.image\.pretrained=.*too long",
        ),
    ],
    ids=["empty", "labels out of range", "missing", "unreadable data", "unreadable weights"],
)
def test_data_that_cannot_be_used_is_told_before_anything_is_built(
    data: Path, tmp_path: Path, spoil: Callable[[Path], None] | None, words: list[str], says: str
) -> None:
    root = data / "coco"
    if spoil is not None:
        spoil(root := copy_of_coco(data, tmp_path / "coco"))
    ended = run(tmp_path / "here", *COCO, f"dataset.root={root}", *words)
    failed(ended, 2, says)
    nothing_began(tmp_path / "here")


# A run folder that is not as it was


@pytest.fixture
def copied(whole: Ended, tmp_path: Path) -> Path:
    """A copy of a run folder, in which the last checkpoints are those of step 35 and 40."""
    folder = tmp_path / "outputs/micro/run"
    shutil.copytree(whole.folder, folder, symlinks=True)
    (folder / "model.safetensors").unlink()
    return folder


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    whole: Ended, copied: Path, tmp_path: Path
) -> None:
    flip_a_byte(copied / "checkpoints/step_00000040/model.safetensors")
    ended = run(tmp_path, f"resume={copied}")
    assert ended.code == 0, ended.err
    assert "step_00000040: damaged: model.safetensors does not match" in ended.err
    assert "going on from" in ended.err and "step_00000035" in ended.err
    assert everything(copied) == everything(whole.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "train.log")
    }


def test_without_a_sound_checkpoint_the_run_is_refused(copied: Path, tmp_path: Path) -> None:
    for path in copied.glob("checkpoints/step_*"):
        flip_a_byte(path / "state.pt")
    before = contents(copied)
    ended = run(tmp_path, f"resume={copied}")
    failed(
        ended, 2, r"step_00000040: damaged: state\.pt does not match its digest; .*step_00000035"
    )
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format: 1", "format: 2", r"its config\.yaml was written by a newer mmnet \(format 2"),
        ("trainer:", "trainer: [", r"its config\.yaml cannot be read"),
        (
            "  steps: 40",
            "  stpes: 40",
            r"trainer\.stpes.*no such setting; did you mean 'trainer.steps'\?",
        ),
    ],
    ids=["newer", "broken", "misspelt"],
)
def test_a_stored_config_is_not_trusted(
    copied: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    config = (copied / "config.yaml").read_text()
    assert old in config
    (copied / "config.yaml").write_text(config.replace(old, new))
    before = contents(copied)
    ended = run(tmp_path, f"resume={copied}")
    assert ended.code == 2 and ended.out == "" and "Traceback" not in ended.err
    assert re.search(says, ended.err), ended.err
    assert contents(copied) == before


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    first = begin(tmp_path, *MICRO, "trainer.steps=1000000")
    try:
        until(lambda: checkpoints(tmp_path), first)
        (folder,) = run_folders(tmp_path)
        resumed = run(tmp_path, f"resume={folder}")
        failed(resumed, 2, f"{folder}: in use by process {first.pid} on ")
        anew = run(tmp_path, *MICRO, f"hydra.run.dir={folder}")
        failed(anew, 2, "not an empty folder, and nothing is overwritten here")
    finally:
        first.terminate()
        ended = end(first, tmp_path)
    failed(ended, 143, "stopped by SIGTERM")


# Installed


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_command_of_the_wheel_works_anywhere(tmp_path: Path) -> None:
    """Built, unpacked and run in folders that know nothing of the checkout."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel")]
    subprocess.run([*wheel, str(ROOT)], check=True, cwd=tmp_path)
    (built,) = (tmp_path / "wheel").glob("mmnet-*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(built)],
        check=True,
        cwd=tmp_path,
    )
    (command,) = (site / "bin").glob("mmnet-train")
    environment = {"PYTHONPATH": str(site)}

    helped = run(tmp_path / "empty", "--help", program=[str(command)], env=environment)
    assert helped.code == 0 and "model: bottleneck, cross_attention, " in helped.out
    ended = run(tmp_path / "empty", *MICRO, program=[str(command)], env=environment)
    assert ended.code == 0, ended.err
    assert list(ended.metric("train/loss")) == list(range(1, 41))
    resumed = run(tmp_path, f"resume={ended.folder}", program=[str(command)], env=environment)
    assert resumed.code == 0, resumed.err
    assert not list(site.rglob("outputs"))
