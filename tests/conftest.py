"""What every test may count on: one thread, no network, no telemetry, the sample data."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest


# Set before anything imports torch, mlflow or matplotlib, and inherited by the programs the
# tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(
    DO_NOT_TRACK="true",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    MMNET_CACHE=tempfile.mkdtemp(prefix="mmnet-cache-"),
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="offline",
)

atexit.register(shutil.rmtree, os.environ["MMNET_CACHE"], ignore_errors=True)

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of sample data: MMNET_TEST_DATA, else ../shared/data beside the project."""
    folder = Path(os.environ.get("MMNET_TEST_DATA", PROJECT / "../shared/data")).resolve()
    if not folder.is_dir():
        missing = f"no sample data at {folder}; set MMNET_TEST_DATA to where it is"
        if os.environ.get("MMNET_CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return folder
