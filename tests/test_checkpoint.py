"""Checkpoint folders: whole, checked, pruned; full disks and flipped bits included."""

import json
import os
import random
import resource
import subprocess
import sys
import time

import pytest
import torch

from mmnet import checkpoint
from mmnet.errors import UserError
from mmnet.manifest import digest, sealed


FULL = bool(os.environ.get("MMNET_FULL"))


def nothing():
    pass


def content(step, size=1000):
    weights = {"a.weight": torch.full((size,), float(step)), "b": torch.arange(6.0).view(2, 3)}
    averaged = {name: value / 2 for name, value in weights.items()}
    state = {
        "optimizer": {"state": {0: {"exp_avg": torch.full((size,), step + 0.5), "step": step}}},
        "rng": [1, (2, 3), None, "x", torch.arange(4, dtype=torch.uint8)],
    }
    return weights, averaged, state


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(writer, step, best=False):
    weights, averaged, state = content(step)
    writer.save(step, weights, averaged, state, best)
    writer.wait()


def test_what_was_saved_is_loaded(folder):
    writer = checkpoint.Writer(folder, 2, nothing)
    save(writer, 7)
    found = checkpoint.load_newest(folder)
    weights, averaged, state = content(7)
    assert found.step == 7
    assert all(torch.equal(found.weights[name], weights[name]) for name in weights)
    assert all(torch.equal(found.averaged[name], averaged[name]) for name in weights)
    exp_avg = found.state["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(exp_avg, state["optimizer"]["state"][0]["exp_avg"])
    assert found.state["rng"][:4] == state["rng"][:4]


def test_equal_weights_make_equal_files(tmp_path):
    """Eight times: safetensors writes the entries of its metadata in random order."""
    weights = content(7)[0]
    for number in range(8):
        checkpoint.save_weights(tmp_path / f"{number}", weights)
    assert len({digest(path) for path in tmp_path.iterdir()}) == 1


def test_the_copy_is_taken_at_once_and_the_next_one_does_not_spoil_it(folder):
    writer = checkpoint.Writer(folder, 5, nothing)
    weights, averaged, state = content(1)
    writer.save(1, weights, averaged, state, False)
    weights["a.weight"].fill_(99)
    writer.save(2, weights, averaged, state, False)
    writer.wait()
    first = checkpoint.load(folder / "step_00000001")
    assert first.weights["a.weight"].unique().tolist() == [1.0]
    assert checkpoint.load_newest(folder).weights["a.weight"].unique().tolist() == [99.0]


def test_the_newest_are_kept_and_the_best(folder):
    writer = checkpoint.Writer(folder, 2, nothing)
    for step in range(1, 7):
        save(writer, step, best=step == 2)
    assert [path.name for path in checkpoint.newest(folder)] == [
        "step_00000002",
        "step_00000005",
        "step_00000006",
    ]
    assert checkpoint.load(folder / "best").step == 2
    save(writer, 8, best=True)
    assert checkpoint.load(folder / "best").step == 8
    assert not (folder / "step_00000002").exists()


def test_saving_a_step_again_replaces_it(folder):
    writer = checkpoint.Writer(folder, 2, nothing)
    save(writer, 3)
    weights, averaged, state = content(4)
    writer.save(3, weights, averaged, state, True)
    writer.wait()
    assert checkpoint.load_newest(folder).weights["a.weight"][0] == 4
    assert not list(folder.glob(".tmp*"))


def test_leftovers_of_a_kill_are_swept_at_the_start(folder):
    (folder / ".tmp-step_00000009").mkdir(parents=True)
    (folder / ".tmp-best").symlink_to("step_00000009")
    checkpoint.Writer(folder, 2, nothing)
    assert not list(folder.iterdir())


def test_a_damaged_one_never_costs_a_sound_one(folder):
    """A run that went on before it must not have its own checkpoints pruned in its favour."""
    writer = checkpoint.Writer(folder, 1, nothing)
    save(writer, 20)
    flip(folder / "step_00000020" / "state.pt", 500, 3)
    save(writer, 11)
    save(writer, 12)
    assert checkpoint.load_newest(folder).step == 12
    assert [path.name for path in checkpoint.newest(folder)] == ["step_00000012", "step_00000020"]


def test_what_must_be_on_the_disk_before_is(folder):
    there = []
    writer = checkpoint.Writer(folder, 1, lambda: there.append(list(folder.iterdir())))
    save(writer, 1)
    assert there == [[]]


def test_a_checkpoint_is_readable_by_others_as_the_umask_says(folder):
    save(checkpoint.Writer(folder, 1, nothing), 1)
    modes = {p.stat().st_mode & 0o777 for p in (folder / "step_00000001").iterdir()}
    assert len(modes) == 1 and modes != {0o600}


def flip(path, position, bit):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.parametrize("flips", [60, pytest.param(400, marks=pytest.mark.full)])
def test_every_flipped_bit_is_noticed(folder, flips):
    """Neither loader would: 400 of 400 came through as wrong numbers."""
    writer = checkpoint.Writer(folder, 1, nothing)
    weights, averaged, state = content(1, size=40)
    writer.save(1, weights, averaged, state, False)
    writer.wait()
    dice = random.Random(0)
    for _ in range(flips):
        path = dice.choice(sorted((folder / "step_00000001").iterdir()))
        position, bit = dice.randrange(path.stat().st_size), dice.randrange(8)
        flip(path, position, bit)
        try:
            with pytest.raises(UserError, match=r"damaged|newer|not a checkpoint"):
                checkpoint.load(folder / "step_00000001")
                pytest.fail(f"bit {bit} of byte {position} of {path.name} went unnoticed")
        finally:
            flip(path, position, bit)
    checkpoint.load(folder / "step_00000001")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(folder, caplog):
    writer = checkpoint.Writer(folder, 2, nothing)
    save(writer, 1)
    save(writer, 2)
    flip(folder / "step_00000002" / "model.safetensors", 500, 3)
    assert checkpoint.load_newest(folder).step == 1
    assert "step_00000002: damaged: model.safetensors" in caplog.text
    (folder / "step_00000001" / "state.pt").unlink()
    with pytest.raises(UserError, match=r"state\.pt is missing"):
        checkpoint.load_newest(folder)


def test_a_newer_format_is_refused_by_version(folder):
    save(checkpoint.Writer(folder, 1, nothing), 1)
    manifest = folder / "step_00000001" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match=r"newer mmnet .* format 99; .* format 1"):
        checkpoint.load_newest(folder)


def test_no_checkpoint_is_said_plainly(folder):
    folder.mkdir()
    with pytest.raises(UserError, match="holds no checkpoint"):
        checkpoint.load_newest(folder)


def test_nothing_in_a_checkpoint_is_executed(folder, tmp_path, monkeypatch):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    save(checkpoint.Writer(folder, 1, nothing), 1)
    path = folder / "step_00000001"
    torch.save({"progress": Evil()}, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    state = path / "state.pt"
    manifest["files"]["state.pt"] = {
        "bytes": state.stat().st_size,
        "sha256": digest(state),
    }
    manifest.pop("sha256")
    (path / "manifest.json").write_text(sealed(manifest))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match=r"state\.pt"):
        checkpoint.load(path)
    assert not marker.exists()


def test_a_full_disk_is_said_and_the_last_good_checkpoint_stays(folder, caplog):
    writer = checkpoint.Writer(folder, 1, nothing)
    save(writer, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        save(writer, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert writer.failures == 1
    assert "checkpoint at step 2 was not written" in caplog.text
    assert "the last good one is step_00000001" in caplog.text
    assert not list(folder.glob(".tmp*"))  # it would keep the disk full
    assert checkpoint.load_newest(folder).step == 1
    save(writer, 3)
    assert checkpoint.load_newest(folder).step == 3


WRITER = """
import sys, torch
from pathlib import Path
from mmnet import checkpoint
torch.set_num_threads(1)
writer = checkpoint.Writer(Path(sys.argv[1]), 2, lambda: None)
step = 0
print("ready", flush=True)
while True:
    step += 1
    value = torch.full((200_000,), float(step))
    writer.save(step, {"w": value}, None, {"m": value, "step": step}, step % 3 == 0)
"""


@(pytest.mark.full if FULL else pytest.mark.train)
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(folder):
    dice = random.Random(0)
    for _ in range(50 if FULL else 4):
        command = [sys.executable, "-c", WRITER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.1 + dice.random() * 0.3)
            child.kill()
        found = checkpoint.load(checkpoint.newest(folder)[-1])  # the newest, not the one before
        assert found.weights["w"].unique().tolist() == [found.step]
        assert (
            found.state["m"].unique().tolist() == [found.step] and found.state["step"] == found.step
        )
        if (folder / "best").exists():
            assert checkpoint.load((folder / "best").resolve()).step % 3 == 0
