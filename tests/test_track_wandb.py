"""Weights & Biases as a tracker, offline: what its package wrote is read back."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmnet.track.recorder import read
from tests.track_loop import make_folder, start, values


pytestmark = pytest.mark.train
pytest.importorskip("wandb")

OFFLINE = {"project": "tests", "mode": "offline", "linger": 30.0}


def records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file, which is a LevelDB log behind a header of 7 bytes."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def written(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """History rows and config of all starts of a run; the step metric is config["*"]."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    rows, config = [], {}
    for path in sorted((folder / "tracker/wandb").glob("offline-run-*/*.wandb")):
        for data in records(path):
            record = Record.FromString(data)
            for item in record.run.config.update:
                config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            if record.HasField("metric"):
                config[record.metric.glob_name] = record.metric.step_metric
            if record.HasField("history"):
                rows.append(
                    {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    return rows, config


def test_run_and_its_resumption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-31cc-value"
    monkeypatch.setenv("WANDB_API_KEY", canary)
    folder = make_folder(tmp_path / "run")
    start(folder, "wandb", OFFLINE, last=60).communicate()
    out, _ = start(folder, "wandb", OFFLINE, first=51, last=80).communicate()
    told = json.loads(out)

    assert told["heavy"] == []
    assert f"wandb sync {folder}/tracker/wandb/" in told["lines"][-1]
    rows, config = written(folder)
    found = sorted(
        (row["step"], name, value)
        for row in rows
        for name, value in row.items()
        if name.startswith("train/")
    )
    assert found == [(s, name, value) for s in range(1, 81) for name, value in values(s).items()]
    times = {line["step"]: line["time"] for line in read(folder) if "event" not in line}
    assert {row["step"]: row["_timestamp"] for row in rows} == pytest.approx(
        times, rel=0, abs=0.002
    )
    assert config["*"] == "step"
    assert config["optimizer.lr"] == "0.001"
    for file in folder.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file
