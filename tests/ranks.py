"""Two processes that train one network, each on batches of its own: run by torchrun.

Gradients are averaged as they arrive, which is all that is borrowed from data parallelism here.
Each rank leaves a digest of its weights and of its controller's state in the folder that is given.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from tests.jobs import fingerprint, make_job, metrics, run_job


def main(folder: Path, words: list[str]) -> None:
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    job = make_job(folder / str(rank), *words, f"dataset.seed={rank}")

    def average(parameter: torch.Tensor) -> None:
        gradient: Any = parameter.grad
        distributed.all_reduce(gradient)
        gradient /= ranks

    for parameter in job.model.parameters():
        parameter.register_post_accumulate_grad_hook(average)
    run_job(job)
    weights, rates = dict(job.model.state_dict()), job.controller.rates()
    told = {"weights": fingerprint(weights), "rates": fingerprint(rates)}
    (folder / f"{rank}.json").write_text(json.dumps(told | {"losses": metrics(job, "train/loss")}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
