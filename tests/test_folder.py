"""A run folder has one trainer at a time, and small files that are never half there."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmnet.errors import UserError
from mmnet.folder import hold, put


HOLDER = """
import os, signal, sys, time
from pathlib import Path
from mmnet.folder import hold
lock = hold(Path(sys.argv[1]))
if os.fork() == 0:  # a data worker, that outlives its trainer for some seconds
    signal.pause()
print("held", flush=True)
signal.pause()
"""


def test_a_folder_is_held_by_one_process_while_it_lives(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on "):
            hold(tmp_path)
        holder.kill()
        holder.wait()
        hold(tmp_path).close()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


def test_a_small_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    put(file, "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))  # as if the disk were full
    try:
        with pytest.raises(OSError, match="too large"):
            put(file, "after it")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_text() == "before"
    put(file, "after")
    assert file.read_text() == "after"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
