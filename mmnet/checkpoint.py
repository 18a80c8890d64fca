"""Checkpoints: one folder each, whole or absent.

    <run folder>/checkpoints/step_00000200/
        model.safetensors      the weights being trained
        averaged.safetensors   the weights that are evaluated, where they differ
        state.pt               optimizer, scaler, controller, RNGs, counters (weights_only)
        manifest.json          format, step, size and sha256 of every file and of itself; last
    <run folder>/checkpoints/best -> step_...   the best by trainer.monitor

A folder is written under a temporary name, synced, read back, and renamed whole, so a kill
at any moment leaves the earlier checkpoints and at most a .tmp folder. It is checked against
its manifest before use: neither torch nor safetensors notices a flipped bit.
"""

import json
import logging
import os
import pickle  # nosec B403: for the name of an error
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mmnet
from mmnet.errors import UserError, first_line
from mmnet.folder import sync
from mmnet.manifest import digest, sealed


log = logging.getLogger(__name__)

FORMAT = 1
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds, verified."""

    path: Path
    step: int
    weights: Tensors
    averaged: Tensors | None
    state: dict[str, Any]


class Writer:
    """Writes checkpoints in the background; training stands still only for the copy.

    The copy goes into buffers that are kept: fresh memory would cost several times the
    copying itself in page faults.
    """

    def __init__(self, folder: Path, keep: int, before: Callable[[], None]) -> None:
        """`before` runs ahead of each write: what must be on the disk when it counts."""
        self.folder, self.keep, self.before = folder, keep, before
        self.failures = 0
        self.written = -1  # the last step that is on the disk
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        folder.mkdir(exist_ok=True)
        for new in folder.glob("step_*.new"):
            replace(new, new.with_suffix(""))
        for rest in folder.glob(".tmp-*"):
            if rest.is_symlink():
                rest.unlink()
            else:
                shutil.rmtree(rest)

    def save(
        self,
        step: int,
        weights: Tensors,
        averaged: Tensors | None,
        state: dict[str, Any],
        best: bool,
    ) -> None:
        """Copy everything now, write it later; waits for an earlier write to end.

        A write that fails (a full disk) is logged and counted in `failures`; training goes on.
        """
        self.wait()
        content = {"weights": weights, "averaged": averaged, "state": state}
        copy = self._snapshot(content, "")
        if any(t.is_cuda for t in weights.values()):
            torch.cuda.synchronize()
        self._thread = threading.Thread(
            target=self._write, args=(step, copy, best), name="checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Until the write in the background has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _snapshot(self, value: Any, path: str) -> Any:
        """The same nested value, its tensors copied into the kept buffers."""
        if isinstance(value, Tensor):
            buffer = self._buffers.get(path)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
                self._buffers[path] = buffer
            return buffer.copy_(value.detach(), non_blocking=True)
        if isinstance(value, dict):
            return {key: self._snapshot(item, f"{path}/{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._snapshot(v, f"{path}/{i}") for i, v in enumerate(value))
        return value

    def _write(self, step: int, content: dict[str, Any], best: bool) -> None:
        try:
            self.before()
            write(self.folder, step, content["weights"], content["averaged"], content["state"])
            self.written = step
            if best:
                self.link_best(step)
            self._prune(folder_name(step))
        # A full disk alone is an OSError from Python and a SafetensorError from safetensors;
        # and an error that ends this thread, nobody sees.
        except Exception as error:
            self.failures += 1
            good = newest(self.folder)
            log.error(
                "checkpoint at step %d was not written: %s; training goes on, %s",
                step,
                first_line(error),
                f"the last good one is {good[-1].name}" if good else "there is no earlier one",
            )

    def link_best(self, step: int) -> None:
        """Let `best` point at the checkpoint of `step`, if there is one."""
        if not (self.folder / folder_name(step)).exists():
            return
        temporary = self.folder / ".tmp-best"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder_name(step))
        temporary.replace(self.folder / "best")

    def _prune(self, written: str) -> None:
        best = (self.folder / "best").resolve()
        # Later ones than the one just written were damaged, or the run would have gone on there.
        past = [path for path in newest(self.folder) if path.name <= written]
        for path in past[: -self.keep]:
            if path != best:
                # Renamed first: a kill in between must not leave half a checkpoint.
                doomed = path.rename(self.folder / f".tmp-old-{path.name}")
                shutil.rmtree(doomed)


def folder_name(step: int) -> str:
    return f"step_{step:08d}"


def newest(folder: Path) -> list[Path]:
    """Complete checkpoint folders, oldest first."""
    return sorted(path.parent.resolve() for path in folder.glob("step_*/manifest.json"))


def write(
    folder: Path, step: int, weights: Tensors, averaged: Tensors | None, state: dict[str, Any]
) -> Path:
    """Write one checkpoint folder under `folder`. Raises OSError and the like on a full disk."""
    temporary = folder / f".tmp-{folder_name(step)}"
    final = folder / folder_name(step)
    try:
        temporary.mkdir()
        save_weights(temporary / "model.safetensors", weights)
        if averaged is not None:
            save_weights(temporary / "averaged.safetensors", averaged)
        save_state(temporary / "state.pt", state)
        # Read back as `load` will: what a part's state holds beyond plain data fails here,
        # not at the resume that needs it.
        torch.load(temporary / "state.pt", weights_only=True, mmap=True)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": digest(path)}
            for path in sorted(temporary.iterdir())
        }
        manifest = {"format": FORMAT, "mmnet": mmnet.__version__, "step": step, "files": files}
        (temporary / "manifest.json").write_text(sealed(manifest))
        sync(temporary / "manifest.json")
        sync(temporary)
        if final.exists():  # the same step again, after a resume
            # In two moves, each of which leaves a whole checkpoint that counts.
            replace(temporary.rename(folder / f"{final.name}.new"), final)
        else:
            temporary.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # it would keep a full disk full
        raise
    return final


def replace(new: Path, final: Path) -> None:
    """Put one checkpoint folder in the place of another."""
    if final.exists():
        set_aside = final.rename(final.with_name(f".tmp-old-{final.name}"))
        new.rename(final)
        shutil.rmtree(set_aside)
    else:
        new.rename(final)


def save_weights(path: Path, weights: Tensors) -> None:
    """One safetensors file, synced, readable by the group as the umask says."""
    separate: Tensors = {}
    known: set[int] = set()
    for name, tensor in weights.items():  # tied weights are written once for each name
        shared = tensor.untyped_storage().data_ptr() in known
        known.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor.clone() if shared else tensor.contiguous()
    # One entry, for several would come in random order: equal weights make equal files.
    save_file(separate, path, metadata={"format": "pt"})
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)  # safetensors writes with mode 0600
    sync(path)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """What torch.save makes of nested values, synced. Raises OSError on a full disk."""
    try:
        with path.open("wb") as file:  # given the path, torch would be slower
            torch.save(state, file)
    except RuntimeError as error:
        # In torch's words: unexpected pos 704 vs 598.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    sync(path)


def load(path: Path) -> Checkpoint:
    """One checkpoint, checked against its manifest. Raises UserError saying what is wrong."""
    try:
        text = (path / "manifest.json").read_text()
        manifest = json.loads(text)
        version, step, files = manifest["format"], manifest["step"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a checkpoint: its manifest.json cannot be read") from error
    if version > FORMAT:
        raise UserError(
            f"{path}: written by a newer mmnet ({manifest.get('mmnet')}, format {version}; "
            f"this is {mmnet.__version__}, format {FORMAT})"
        )
    if sealed({key: value for key, value in manifest.items() if key != "sha256"}) != text:
        raise UserError(f"{path}: damaged: manifest.json does not match its own digest")
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{path}: damaged: {name} is missing")
        if file.stat().st_size != entry["bytes"] or digest(file) != entry["sha256"]:
            raise UserError(f"{path}: damaged: {name} does not match its digest")
    try:
        # Said out loud: an environment variable can turn torch's default back to pickle.
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise UserError(f"{path}: state.pt holds more than plain data: refused") from error
    return Checkpoint(
        path,
        step,
        load_file(path / "model.safetensors"),
        load_file(path / "averaged.safetensors") if "averaged.safetensors" in files else None,
        state,
    )


def load_newest(folder: Path) -> Checkpoint:
    """The newest sound checkpoint of a run; damaged ones are named and passed over.

    Raises UserError when there is none.
    """
    found = newest(folder)
    problems = []
    for path in reversed(found):
        try:
            return load(path)
        except UserError as error:
            log.warning("%s; trying the one before", error)
            problems.append(str(error))
    raise UserError(
        "; ".join(problems) if problems else f"{folder}: holds no checkpoint to go on from"
    )
