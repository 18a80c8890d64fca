"""What the double loop costs: whole runs with it and without, of 300 and of 3,000 steps.

Decisions are dense at first and a hundredth of the run apart later, so that a long run pays less
a step. `micro` takes about 15 ms a step, the preset late_fusion 50. `watching` decides and changes
nothing; what it decides on includes the meta-batch, a quarter of a batch at a time.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout comes first

from experiments.bench import common
from mmnet.assembly import assemble
from mmnet.checkpoint import Writer
from mmnet.compose import load
from mmnet.loop import train
from mmnet.stop import Stop
from mmnet.track.none import Nowhere
from mmnet.track.recorder import Recorder


SETTINGS = (
    "schedule=constant",
    "tracker=none",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.threads=1",
    "trainer.batch_size=32",
    "trainer.modality_grid=0",
    "trainer.eval_every=1_000_000",
    "trainer.checkpoint_every=1_000_000",
    "dataset.val_samples=32",
)
EVERY = 10  # steps between looks of the online loop
WAYS = {
    "without": ("controller=fixed",),
    "watching, no meta-batch": ("controller=identity", "controller.meta_batch=0"),
    "watching": ("controller=identity",),
    "double_loop": ("controller=double_loop",),
    "double_loop, online": ("controller=double_loop", f"controller.online.every={EVERY}"),
}
AIMS = {
    "watching": 1.02,
    "double_loop": 1.02,
    "double_loop, online": 1 + 1 / EVERY + 0.01,
}


# Network, steps, and the share of the rounds: a long run is its own average.
CASES = (("micro", 300, 1.0), ("micro", 3000, 0.6), ("late_fusion", 3000, 0.2))
QUICK = (("micro", 20, 1.0),)


def cost(model: str, steps: int, words: tuple[str, ...]) -> float:
    """CPU seconds a step of a whole run, the evaluation at its end included."""
    with tempfile.TemporaryDirectory() as name, common.hushed():
        folder = Path(name)
        run = load(f"model={model}", *SETTINGS, *words, f"trainer.steps={steps}")
        job = assemble(run, folder)
        recorder, decisions = Recorder(folder), Recorder(folder, "controller.jsonl")
        writer = Writer(folder / "checkpoints", 1, before=recorder.sync)
        began = time.process_time()
        train(job, writer, recorder, Nowhere(), Stop(), decisions)
        took = time.process_time() - began
        writer.wait()
        recorder.close()
        decisions.close()
    return took / steps


def main() -> None:
    given = common.arguments(__doc__ or "", rounds=5)
    torch.set_num_threads(1)
    report = common.Report("controller", given, ["torch"])
    cost("micro", 20, WAYS["double_loop, online"])  # what is imported and compiled once
    for model, steps, share in QUICK if given.quick else CASES:
        contenders = {way: partial(cost, model, steps, words) for way, words in WAYS.items()}
        found = common.interleave(contenders, max(1, round(share * given.rounds)))
        case = f"{model}, {steps} steps"
        for way in WAYS:
            report.figure(f"{case}: {way}", [1000 * value for value in found[way]], "ms")
            if way != "without":
                aim = AIMS.get(way) if steps > 300 else None
                report.ratio(f"{case}: {way} / without", found[way], found["without"], aim)
    report.finish()


if __name__ == "__main__":
    main()
