"""Some samples of the val split with the network's answers, for the eye."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmnet.data.loader import eval_batches
from mmnet.gradcache import joined, together
from mmnet.job import Job
from mmnet.report.plots import Example


def examples(job: Job, count: int) -> list[Example]:
    """The first `count` readable samples of the split, with truth and answer."""
    modalities = tuple(job.reading.prepare)
    answers, batches, indices = [], [], []
    with job.average.evaluated() as network, torch.inference_mode(), job.machine.autocast():
        training = network.training
        network.eval()
        # One by one, so that bad samples do not eat into the count.
        for batch, found, _ in eval_batches(
            job.val, job.reading, batch_size=1, num_workers=0, device=job.machine.device
        ):
            if batch is None:
                continue
            answers.append(network(batch.inputs))
            batches.append(batch)
            indices += found
            if len(indices) == count:
                break
        network.train(training)
    if not indices:
        return []
    head: Any = job.model.head
    words = head.words(joined(answers), together(batches), job.names)
    found_examples = []
    for index, (truth, answer, right) in zip(indices, words, strict=True):
        sample = job.val.sample(index, modalities, None)
        raw = sample.get("image")
        image = None if raw is None else rows_of(raw)
        found_examples.append(Example(image, sample.get("text"), truth, answer, right))
    return found_examples


def rows_of(picture: Image.Image | Tensor) -> NDArray[np.uint8]:
    """[H, W, 3], as plots take it."""
    if isinstance(picture, Tensor):
        picture = picture.permute(1, 2, 0)
    return np.asarray(picture)
