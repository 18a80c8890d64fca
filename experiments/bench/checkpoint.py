"""How long does training stand still for a checkpoint? mmnet's writer against torch.save.

A stack of transformer layers with AdamW's state takes steps; now and then it is saved, in
place by torch.save, or by mmnet.checkpoint.Writer, which copies and writes beside training.
Stall is the wall time of the call. What the writing then takes away from the steps beside it
is measured too, against the steps just before.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common
from mmnet.checkpoint import Writer


class Size(NamedTuple):
    """A stack of transformer layers."""

    dim: int
    layers: int


SIZES = {"25 M": Size(512, 8), "99 M": Size(768, 14)}
QUICK = {"3 M": Size(256, 4)}


class Timed(NamedTuple):
    """What a call took."""

    wall: float
    cpu: float  # of the calling thread


def timed(call: Callable[[], Any]) -> Timed:
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return Timed(time.perf_counter() - wall, time.thread_time() - cpu)


class Training:
    """Steps of a network with nothing around them."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(
            size.dim, 8, 4 * size.dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.model = nn.TransformerEncoder(layer, size.layers, enable_nested_tensor=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.inputs = torch.randn(2, 8, size.dim)
        self.step()

    def step(self) -> None:
        self.model(self.inputs).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}


class Round(NamedTuple):
    """One saving in each way, with the steps around it."""

    save: Timed  # Writer.save
    in_place: Timed  # torch.save
    synced: Timed  # torch.save and fsync, which Writer does
    writing: Timed  # from the return of Writer.save to the end of its write, and its CPU
    step: Timed  # median of the steps before
    lost: Timed  # what the steps beside the write took longer, together


def one_round(training: Training, writer: Writer, folder: Path, number: int) -> Round:
    weights, state = training.model.state_dict(), training.state()
    before = [timed(training.step) for _ in range(8)]
    usual = Timed(*map(statistics.median, zip(*before, strict=True)))

    save = timed(lambda: writer.save(number, weights, None, state, best=False))
    begun, spent, during = time.perf_counter(), time.process_time(), []
    while busy():
        during.append(timed(training.step))
    beside = Timed(*map(sum, zip(*during, strict=True)))
    writing = Timed(time.perf_counter() - begun, time.process_time() - spent - beside.cpu)
    writer.wait()

    file = folder / "state.pt"
    in_place = timed(lambda: torch.save({"weights": weights, **state}, file))
    sync = timed(lambda: flush(file))
    file.unlink()
    return Round(
        save,
        in_place,
        Timed(in_place.wall + sync.wall, in_place.cpu + sync.cpu),
        writing,
        usual,
        Timed(beside.wall - usual.wall * len(during), beside.cpu - usual.cpu * len(during)),
    )


def first_time(training: Training, writer: Writer, folder: Path) -> tuple[Timed, Timed]:
    """Writer.save and torch.save as they meet fresh memory; the rounds come after it."""
    weights, state = training.model.state_dict(), training.state()
    save = timed(lambda: writer.save(0, weights, None, state, best=False))
    writer.wait()
    file = folder / "state.pt"
    in_place = timed(lambda: torch.save({"weights": weights, **state}, file))
    file.unlink()
    return save, in_place


def busy() -> bool:
    """Whether the writer's thread is at work."""
    return any(thread.name == "checkpoint" for thread in threading.enumerate())


def flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def tell(report: common.Report, name: str, first: tuple[Timed, Timed], rounds: list[Round]) -> None:
    columns = {field: [getattr(one, field) for one in rounds] for field in Round._fields}
    wall = {field: [1000 * one.wall for one in column] for field, column in columns.items()}
    cpu = {field: [1000 * one.cpu for one in column] for field, column in columns.items()}
    report.figure(f"{name}: first save, with new buffers, wall", [1000 * first[0].wall], "ms")
    report.figure(f"{name}: first torch.save, wall", [1000 * first[1].wall], "ms")
    for field, what in (
        ("save", "save"),
        ("in_place", "torch.save"),
        ("synced", "torch.save and fsync"),
        ("writing", "writing beside training"),
        ("step", "a step"),
        ("lost", "lost by the steps beside the write"),
    ):
        report.figure(f"{name}: {what}, wall", wall[field], "ms")
        report.figure(f"{name}: {what}, CPU", cpu[field], "ms")
    report.ratio(f"{name}: save / torch.save, wall", wall["save"], wall["in_place"], aim=0.2)
    report.ratio(f"{name}: save / torch.save, CPU", cpu["save"], cpu["in_place"], aim=0.2)
    report.ratio(f"{name}: save / torch.save and fsync, wall", wall["save"], wall["synced"])
    report.ratio(f"{name}: first save / first torch.save, wall", [first[0].wall], [first[1].wall])
    both = [a + b for a, b in zip(wall["save"], wall["lost"], strict=True)]
    report.ratio(f"{name}: save and what steps lost / torch.save, wall", both, wall["in_place"])


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=7)
    report = common.Report("checkpoint", given, ("torch", "safetensors"))
    torch.set_num_threads(1)
    for name, size in (QUICK if given.quick else SIZES).items():
        training = Training(size)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            writer = Writer(folder / "checkpoints", 2, before=lambda: None)
            first = first_time(training, writer, folder)
            rounds = []
            for number in range(1, given.rounds + 1):
                rounds.append(one_round(training, writer, folder, number))
                common.say(f"{name}  round {number}  {rounds[-1]}")
        tell(report, name, first, rounds)
    report.finish()


if __name__ == "__main__":
    main()
