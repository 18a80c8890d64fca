"""What activation checkpointing costs and saves: hardware.activation_checkpointing on and off.

The same network and batch take training steps (forward, backward, AdamW) with activations kept
and with activations computed again. Time is CPU time in this process, interleaved. Memory is
the growth of the peak resident set over the steps, each in a process of its own, and what
autograd keeps between forward and backward.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

import mmnet
from experiments.bench import common
from mmnet.anatomy import activations, longest
from mmnet.model import Multimodal


SIZES = (
    "model=early_fusion",
    "encoder.image.dim=256",
    "encoder.image.depth=8",
    "encoder.text.dim=256",
    "encoder.text.depth=6",
    "fusion.dim=256",
    "fusion.depth=6",
    "dataset.image_size=96",
)
QUICK = ("model=early_fusion",)
WAYS = {"kept": "false", "recomputed": "true"}


def network(way: str, quick: bool) -> Multimodal:
    torch.manual_seed(0)
    sizes = QUICK if quick else SIZES
    return mmnet.build(*sizes, f"hardware.activation_checkpointing={WAYS[way]}").train()


def stepper(way: str, quick: bool) -> Callable[[], float]:
    """A function that takes one training step and returns its CPU seconds."""
    model = network(way, quick)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inputs = longest(model, 4 if quick else 16)

    def step() -> float:
        began = time.process_time()
        answers = model(inputs)
        assert isinstance(answers, torch.Tensor)
        answers.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    step()  # the optimizer's state and the allocator's first pages
    return step


def peak(way: str, quick: bool) -> float:
    """Megabytes by which three steps raise the peak resident set, in a process of its own."""
    command = [sys.executable, __file__, "--peak", way, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure_peak(way: str, quick: bool) -> None:
    """The other side of `peak`."""
    model = network(way, quick)
    inputs = longest(model, 4 if quick else 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        answers = model(inputs)
        assert isinstance(answers, torch.Tensor)
        answers.square().mean().backward()
        model.zero_grad()
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main() -> None:
    if "--peak" in sys.argv:
        torch.set_num_threads(1)
        measure_peak(sys.argv[sys.argv.index("--peak") + 1], "--quick" in sys.argv)
        return
    given = common.arguments(__doc__ or "", rounds=15)
    torch.set_num_threads(1)
    report = common.Report("recompute", given, ["torch", "timm"])
    steps = {way: stepper(way, given.quick) for way in WAYS}
    times = common.interleave(steps, given.rounds)
    report.ratio("step time, recomputed / kept", times["recomputed"], times["kept"], aim=1.30)
    rounds = range(min(3, given.rounds))
    peaks = {way: [peak(way, given.quick) for _ in rounds] for way in WAYS}
    report.ratio(
        "peak memory of a step, recomputed / kept", peaks["recomputed"], peaks["kept"], aim=1.0
    )
    for way in WAYS:
        kept = activations(network(way, given.quick), 4 if given.quick else 16, "fp32")
        report.figure(f"kept for backward, {way}", [kept / 1e6], "MB")
        report.figure(f"step, {way}", [1000 * value for value in times[way]], "ms")
        report.figure(f"peak memory of a step, {way}", peaks[way], "MB")
    report.note("network", " ".join(QUICK if given.quick else SIZES))
    report.finish()


if __name__ == "__main__":
    main()
