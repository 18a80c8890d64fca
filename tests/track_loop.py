"""What the training loop does for a tracker, less the training; run by the tracking tests.

python tests/track_loop.py '{"folder": ..., "tracker": "mlflow", "settings": {...}, ...}'
"""

import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mmnet.track import launch
from mmnet.track.base import Status, Tracker
from mmnet.track.csv import Csv
from mmnet.track.mlflow import Mlflow
from mmnet.track.recorder import Recorder
from mmnet.track.wandb import Wandb


ROOT = Path(__file__).resolve().parents[1]
TRACKERS = {"mlflow": Mlflow, "csv": Csv, "wandb": Wandb}
CONFIG = """\
format: 1
name: ${model.name}
seed: 3
resume: null
model: {name: late}
encoder:
  image: {_target_: mmnet.encoder.image.timm.Timm, dim: 96, patch: null, pretrained: null}
  text: null
head: {num_classes: "${dataset.num_classes}"}
dataset: {_target_: mmnet.dataset.shapes.Shapes, num_classes: 4, root: null}
optimizer: {lr: 0.001, betas: [0.9, 0.98]}
tracker: {uri: "${oc.env:MY_TRACKING_TOKEN}"}
paths: {data: "${oc.env:MMNET_DATA,data}", output: outputs}
"""


def make_folder(folder: Path) -> Path:
    """A run folder as it is when the tracker starts."""
    (folder / "plots").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    record = {
        "name": "late",
        "started": round(time.time(), 3),
        "command": "python -m mmnet.train",
        "key": "abc123",
        "git": {"commit": "c0ffee", "branch": "main", "dirty": True},
        "machine": {"host": "here", "cores": 2, "gpu": None},
        "packages": {"python": "3.11.0", "mmnet": "0.1.0", "torch": "2.8.0"},
        "dataset": {
            "train": {"samples": 50, "digest": "d" * 64, "notes": {"odd": 1}},
            "val": {"samples": 10, "digest": "e" * 64, "notes": {}},
        },
    }
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "git.diff").write_text("-a\n+b\n")
    (folder / "train.log").write_text("step 1\n")
    return folder


def values(step: int) -> dict[str, float]:
    return {f"train/m{i}": step + i / 10 for i in range(6)}


def start(folder: Path, tracker: str, settings: dict[str, Any], **more: Any) -> subprocess.Popen:
    """The loop in a process of its own; further words are those of `loop`."""
    words = {"folder": str(folder), "tracker": tracker, "settings": settings, **more}
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(words)],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def loop(
    folder: Path,
    tracker: Tracker,
    first: int = 1,
    last: int = 100,
    pause: float = 0.01,
    fail_at: int = 0,
    look: float = 10.0,
) -> dict[str, Any]:
    """Steps `first` to `last`, or until a file `enough` appears.

    Returns what the user is told, and what tracking cost this process.
    """
    launch._LOOK = look
    said = logging.handlers.BufferingHandler(1000)
    logging.getLogger("mmnet").addHandler(said)
    logging.getLogger("mmnet").setLevel(logging.INFO)
    recorder = Recorder(folder)
    tracker.check()
    if first > 1:
        recorder.event("resumed", step=first - 1)
    began = time.perf_counter()
    tracker.start(folder)
    told: dict[str, Any] = {"start": time.perf_counter() - began, "took": []}
    status: Status = "KILLED"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for step in range(first, last + 1):
            began = time.perf_counter()
            tracker.log(recorder.log(step, values(step)))
            told["took"].append(time.perf_counter() - began)
            if step == fail_at:
                status = "FAILED"
                raise SystemExit(1)
            if (folder / "enough").exists():
                break
            time.sleep(pause)
        summary = {"status": "FINISHED", "steps": step, "best": {"val/loss": 0.5}}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "model.safetensors").write_bytes(b"weights")
        status = "FINISHED"
    finally:
        recorder.close()
        began = time.perf_counter()
        told["lines"] = tracker.finish(status)
        told["finish"] = time.perf_counter() - began
        told["said"] = [record.getMessage() for record in said.buffer]
        told["heavy"] = sorted({"mlflow", "wandb", "torch"} & sys.modules.keys())
        print(json.dumps(told))
    return told


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    made = TRACKERS[given.pop("tracker")](**given.pop("settings"))
    loop(Path(given.pop("folder")), made, **given)
