"""Some samples of the val split with the network's answers, for the eye."""

from typing import Any

import numpy as np
import torch

from mmnet.interfaces import BadSample, Inputs
from mmnet.job import Job
from mmnet.report.plots import Example


def examples(job: Job, count: int) -> list[Example]:
    """The first `count` readable samples of the split, with answer and confidence."""
    modalities = tuple(job.prepare)
    samples: list[Any] = []
    for index in range(len(job.val)):
        if len(samples) == count:
            break
        try:
            samples.append(job.val.sample(index, modalities, None))
        except BadSample:
            continue
    if not samples:
        return []
    device = job.machine.device
    inputs: dict[str, Inputs] = {}
    for name, prepare in job.prepare.items():
        values, mask = prepare.collate([prepare(sample[name]) for sample in samples])
        inputs[name] = Inputs(values.to(device), None if mask is None else mask.to(device))
    with job.average.evaluated() as network, torch.inference_mode(), job.machine.autocast():
        training = network.training
        network.eval()
        chances = network(inputs).float().softmax(-1).cpu()
        network.train(training)
    found = []
    for sample, chance in zip(samples, chances, strict=True):
        answer = int(chance.argmax())
        found.append(
            Example(
                np.asarray(sample["image"]) if "image" in sample else None,
                sample.get("text"),
                job.classes[sample["label"]],
                job.classes[answer],
                float(chance[answer]),
            )
        )
    return found
