"""What a run was made of: code, machine, versions, command. Kept as record.json."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import mmnet
from mmnet.config import Run
from mmnet.redact import REDACTED, USER_IN_URI, redact


PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy", "mlflow")

# Sections of the config that say how and where, not what: two machines, one key.
_NOT_IN_KEY = {"hardware", "tracker", "name", "paths", "resume"}
_LONGEST_DIFF = 1_000_000  # bytes of git.diff


def describe(run: Run) -> dict[str, Any]:
    """The facts about this run, ready for JSON, secrets taken out.

    name, started (unix seconds), command, key, git ({commit, branch, dirty} or None outside
    a checkout), machine ({host, os, cpu, cores, memory_gb, gpu}) and packages (name ->
    version).
    """
    return {
        "name": run.name,
        "started": round(time.time(), 3),
        "command": shlex.join(redact([Path(sys.executable).name, *sys.orig_argv[1:]])),
        "key": key(run),
        "git": _git(),
        "machine": _machine(run),
        "packages": {
            "python": platform.python_version(),
            "mmnet": mmnet.__version__,
            **dict(_versions()),
        },
    }


def key(run: Run) -> str:
    """Equal for runs that compute the same: sha256 of the config without what cannot matter."""
    config = {
        name: value for name, value in dataclasses.asdict(run).items() if name not in _NOT_IN_KEY
    }
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def save_diff(folder: Path) -> None:
    """git.diff: how the code differs from the commit, secrets taken out; no file if it does not.

    What `git diff HEAD` says, then the Python and YAML files that git does not know and does not
    ignore, as new ones; up to 1 MB.
    """
    checkout = _checkout()
    if checkout is None:
        return
    diff = _ask_git(checkout, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD") or ""
    diff += "".join(_new_files(checkout))
    if diff:
        # `redact` spares lines of configs that hold references; a diff is no config.
        text = USER_IN_URI.sub(REDACTED, redact(diff))
        (folder / "git.diff").write_bytes(text.encode("utf-8", "replace")[:_LONGEST_DIFF])


def _new_files(checkout: Path) -> Iterator[str]:
    """The files that git does not know, each as a diff from nothing."""
    top = Path((_ask_git(checkout, "rev-parse", "--show-toplevel") or "").rstrip("\n"))
    names = ("ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.yaml")
    for name in (_ask_git(top, *names) or "").split("\0"):
        if name and (top / name).stat().st_size < _LONGEST_DIFF:
            lines = (top / name).read_text("utf-8", "replace").splitlines()
            yield f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n"
            yield "".join(f"+{line}\n" for line in lines)


def _checkout() -> Path | None:
    """The folder this package runs from if git keeps it, else the working directory likewise."""
    for place in (Path(mmnet.__file__).resolve().parent, Path.cwd()):
        if _ask_git(place, "rev-parse", "--verify", "--quiet", "HEAD"):
            return place
    return None


def _git() -> dict[str, Any] | None:
    checkout = _checkout()
    if checkout is None:
        return None
    names = (_ask_git(checkout, "rev-parse", "HEAD", "--abbrev-ref", "HEAD") or "").split()
    return {
        "commit": names[0],
        "branch": names[1],
        "dirty": bool(_ask_git(checkout, "status", "--porcelain")),
    }


def _ask_git(place: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(place), *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode("utf-8", "replace") if answer.returncode == 0 else None


def _machine(run: Run) -> dict[str, Any]:
    gpu = None
    torch = sys.modules.get("torch")
    # Asking wakes the GPU up, so only where the run may use it.
    if torch is not None and run.hardware.device != "cpu" and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return {
        "host": platform.node(),
        "os": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu,
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
