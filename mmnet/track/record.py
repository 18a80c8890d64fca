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
_LONGEST_NEW = 100_000  # bytes of a file that git does not know of
# What a run may be made of, and so what of it git.diff holds before git does.
_CODE = [
    f":(glob){top}/**/*.{kind}"
    for top in ("mmnet", "conf", "experiments")
    for kind in ("py", "yaml")
]


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
    """git.diff: what `git diff HEAD` says and what git does not know of yet; none if nothing.

    The names of new files stand first, their content last, as `git apply` takes it. Up to 1 MB,
    secrets taken out.
    """
    checkout = _checkout()
    if checkout is None:
        return
    diff = _ask_git(checkout, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD") or ""
    names, contents = _untracked(checkout)
    diff = "".join([*(f"untracked: {name}\n" for name in names), diff, *contents])
    if diff:
        # `redact` spares lines of configs that hold references; a diff is no config.
        text = USER_IN_URI.sub(REDACTED, redact(diff))
        (folder / "git.diff").write_bytes(text.encode("utf-8", "replace")[:_LONGEST_DIFF])


def _untracked(checkout: Path) -> tuple[list[str], list[str]]:
    """New code and configs that git neither keeps nor ignores: names, and content as a diff."""
    top = Path((_ask_git(checkout, "rev-parse", "--show-toplevel") or ".").rstrip("\n"))
    found = _ask_git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", *_CODE) or ""
    names, contents = [], []
    for name in found.split("\0")[:-1]:
        try:
            size = (top / name).lstat().st_size
            plain = name.isprintable() and not (top / name).is_symlink()
            text = (top / name).read_bytes() if plain and size <= _LONGEST_NEW else None
        except OSError:
            continue  # gone again, or not to be read
        names.append(
            f"{ascii(name)[1:-1]}{'' if text is not None else f' ({size} bytes, left out)'}"
        )
        if text:
            lines = text.decode("utf-8", "replace").removesuffix("\n").split("\n")
            end = "" if text.endswith(b"\n") else "\\ No newline at end of file\n"
            added = "".join(f"+{line}\n" for line in lines)
            contents.append(
                f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
                f"@@ -0,0 +1,{len(lines)} @@\n{added}{end}"
            )
    return names, contents


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
