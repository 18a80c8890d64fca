"""Readings of the machine under MLflow's own names, spooled like every other metric."""

import contextlib
import time
from pathlib import Path

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from mmnet.track.recorder import Recorder


class Monitors:
    """system.jsonl: one line every so many seconds; its step counts the readings."""

    def __init__(self, folder: Path, every: float) -> None:
        self._every, self._due = every, time.monotonic()
        self._recorder = Recorder(folder, "system.jsonl")
        self._monitors: list[BaseMetricsMonitor] = []
        for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
            with contextlib.suppress(Exception):  # no GPU, no network
                self._monitors.append(kind())

    def take(self) -> None:
        """Take a reading if one is due."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        values: dict[str, float] = {}
        for monitor in self._monitors:
            with contextlib.suppress(Exception):
                monitor.collect_metrics()  # type: ignore[no-untyped-call]
                values |= monitor.aggregate_metrics()  # type: ignore[no-untyped-call]
                monitor.clear_metrics()  # type: ignore[no-untyped-call]
        step = self._recorder.last + 1
        self._recorder.log(step, {f"system/{name}": value for name, value in values.items()})

    def close(self) -> None:
        self._recorder.close()
