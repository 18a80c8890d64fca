"""What activation checkpointing costs and saves: hardware.activation_checkpointing on and off.

The same network and batch take training steps (forward, backward, AdamW) with activations kept
and with activations computed again. Time is CPU time in this process, interleaved. Memory is
what autograd keeps between forward and backward.
"""

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


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=15)
    torch.set_num_threads(1)
    report = common.Report("recompute", given, ["torch", "timm"])
    steps = {way: stepper(way, given.quick) for way in WAYS}
    times = common.interleave(steps, given.rounds)
    report.ratio("step time, recomputed / kept", times["recomputed"], times["kept"], aim=1.30)
    kept = {
        way: [activations(network(way, given.quick), 4 if given.quick else 16, "fp32") / 1e6]
        for way in WAYS
    }
    report.ratio("kept for backward, recomputed / kept", kept["recomputed"], kept["kept"], aim=1.0)
    for way in WAYS:
        report.figure(f"kept for backward, {way}", kept[way], "MB")
        report.figure(f"step, {way}", [1000 * value for value in times[way]], "ms")
    report.note("network", " ".join(QUICK if given.quick else SIZES))
    report.finish()


if __name__ == "__main__":
    main()
