"""Random two-input classification problems, on which policies learn and are compared.

Each draw has its own architecture, horizon, batch size and kind of labels; within it, each of n
members has its own data, initial scale, weight decay and base rate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmnet.meta.networks import TwoTowers


VALIDATION = 256  # samples that score a run, never seen by it
META = 64  # samples carved from training for the meta-batch, at most


@dataclass
class Data:
    """n data sets: image [n, N, D], text [n, N, D'], labels [n, N]."""

    image: Tensor
    text: Tensor
    labels: Tensor

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """index [n, B] -> those samples of each data set."""
        which = torch.arange(len(index), device=index.device)[:, None]
        return self.image[which, index], self.text[which, index], self.labels[which, index]


@dataclass
class Task:
    """One problem for n runs."""

    network: TwoTowers
    data: Data
    weights: Tensor  # [n, W] to begin with
    order: Tensor  # [n, T, B] samples of each step
    meta: Tensor  # [n, M] samples of the meta-batch, not trained on
    validation: Tensor  # [n, V]
    decay: Tensor  # [n] weight decay
    dropout: Tensor  # [n] of what towers and fusion say
    modality_dropout: Tensor  # [n] chance that a training sample loses one of its modalities
    smoothing: Tensor  # [n] of the labels
    rate: Tensor  # [n] base rate
    betas: tuple[float, float]
    passes: float  # how often each sample is seen
    chance: float  # loss of knowing nothing
    what: str  # kinds of labels, passes and network, for reports

    @property
    def steps(self) -> int:
        return self.order.shape[1]

    def held(self, look: int) -> Tensor:
        """[n, M']: the samples of the meta-batch that the look of this number is at.

        A quarter of a batch at a time, in turns.
        """
        size = max(4, self.order.shape[2] // 4)
        places = look * size + torch.arange(size, device=self.meta.device)
        return self.meta[:, places % self.meta.shape[1]]

    def to(self, device: str) -> "Task":
        """The same on a device."""
        data = Data(*(tensor.to(device) for tensor in vars(self.data).values()))
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, data=data, **moved)


class Chance:
    """What is drawn for a task: once for all of its members, or for each of them."""

    def __init__(self, seed: int, members: int) -> None:
        self.members = members
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def spread(self, low: float, high: float) -> float:
        """Even in the logarithm."""
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high))))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def share(self, *shape: int) -> Tensor:
        """Even in 0 to 1."""
        return torch.rand(*shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=self.generator)

    def uniform(self, low: float, high: float) -> Tensor:
        """[members]"""
        return low + (high - low) * self.share(self.members)

    def one_of(self, *values: float) -> Tensor:
        """[members]"""
        return torch.tensor(values)[self.integers(len(values), self.members)]


def draw(seed: int, members: int, steps: tuple[int, int] = (50, 800)) -> Task:
    """The problem of a seed.

    Networks: MLPs, or small transformers, which bear far smaller steps. Labels: a teacher network;
    clusters, whose words may be wrong; a look-up table of cluster and question, which neither
    modality solves alone; or unequal towers, where one modality is right at once and for part of
    the samples, and the other slowly and for nearly all. Half of the problems show each sample
    once, half 2 to 40 times.
    """
    chance = Chance(seed, members)
    rng, pick, spread, uniform = chance.rng, chance.pick, chance.spread, chance.uniform

    length, batch = int(spread(*steps)), int(spread(8, 40))
    wide, words = pick(16, 32, 64), pick(16, 32, 64)
    classes, tokens = pick(2, 4, 8, 12), pick(0, 0, 2, 4)
    width = pick(16, 24) if tokens else pick(16, 24, 32)
    a, b = (int(k) for k in rng.integers(0, 2 if tokens else 3, 2))
    network = TwoTowers(
        (wide, words),
        width,
        classes,
        (a, b, int(rng.integers(0, 3))),
        bool(tokens) or pick(True, True, False),
        pick(F.silu, F.relu, torch.tanh),
        tokens,
    )
    once = rng.random() < 0.5
    passes = 1.0 if once else spread(2, 40)
    train = max(64, int(length * batch / passes))
    held = min(META, max(16, train // 8))
    total = train + held + VALIDATION
    kind = pick("teacher", "clusters", "lookup", "unequal")
    if kind == "teacher":
        image, text, labels = teacher(chance, total, network)
    else:
        image, text, labels = clusters(kind, chance, total, network)

    channel = torch.arange(1, wide + 1, dtype=torch.float32)
    spectrum = channel[None] ** -uniform(0.0, 0.8)[:, None]
    image = image * (spectrum / spectrum.pow(2).mean(1, keepdim=True).sqrt())[:, None]
    if rng.random() < 0.5:
        image = image @ torch.linalg.qr(chance.normal(members, wide, wide))[0]
    flip = chance.share(*labels.shape) < uniform(-0.1, 0.15)[:, None]
    flip[:, train + held :] = False  # validation asks for the truth
    noise = chance.integers(classes, *labels.shape)
    labels = torch.where(flip, noise, labels)

    # With norms, small weights are as good a start, and usual in transformers.
    least = -0.7 if network.residual else -0.3
    weights = network.fresh(members, chance.generator) * (10 ** uniform(least, 0.3))[:, None]
    return Task(
        network,
        Data(image, text, labels),
        weights,
        order=epochs(rng, members, train, batch, length),
        meta=torch.arange(train, train + held).expand(members, -1),
        validation=torch.arange(train + held, total).expand(members, -1),
        decay=chance.one_of(0.0, 0.01, 0.1),
        dropout=chance.one_of(0.0, 0.0, 0.1, 0.2),
        modality_dropout=chance.one_of(0.0, 0.0, 0.1, 0.3),
        smoothing=chance.one_of(0.0, 0.0, 0.05, 0.1),
        rate=10 ** uniform(-4.5, -0.5),
        betas=(0.9, pick(0.95, 0.99, 0.999, 0.999)),
        passes=length * batch / train,
        chance=math.log(classes),
        what=f"{kind}, {'once' if once else 'many times'}, {'attention' if tokens else 'MLP'}",
    )


def teacher(chance: Chance, total: int, network: TwoTowers) -> tuple[Tensor, Tensor, Tensor]:
    """Labels drawn from what a random network of both inputs says, sums and products."""
    (wide, words), members = network.inputs, chance.members
    normal = chance.normal
    image, text = normal(members, total, wide), normal(members, total, words)
    hidden = int(chance.rng.choice([4, 8]))
    mix = chance.rng.random(3)
    p = torch.tanh(image @ normal(members, wide, hidden) * (2 * wide**-0.5))
    q = torch.tanh(text @ normal(members, words, hidden) * (2 * words**-0.5))
    logits = (mix[0] * p + mix[1] * q + mix[2] * p * q) @ normal(members, hidden, network.classes)
    sharp = torch.exp(chance.uniform(math.log(3.0), math.log(30.0)))[:, None, None]
    logits = logits / logits.std((1, 2), keepdim=True) * sharp
    drawn = chance.share(*logits.shape).clamp(1e-6, 1 - 1e-6)
    return image, text, (logits - torch.log(-torch.log(drawn))).argmax(2)


def clusters(
    kind: str, chance: Chance, total: int, network: TwoTowers
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures are noisy clusters, texts a few words: of the class, or a question about it."""
    (wide, words), classes, members = network.inputs, network.classes, chance.members
    rng, normal, uniform, integers = chance.rng, chance.normal, chance.uniform, chance.integers

    which = torch.arange(members)[:, None]
    centres = int(rng.choice([4, 8] if kind == "lookup" else [classes, 2 * classes, 4 * classes]))
    cluster = integers(centres, members, total)
    if kind == "lookup":
        meanings = int(rng.choice([2, 3, 4]))
        meant = integers(meanings, members, total)
        labels = integers(classes, members, centres, meanings)[which, cluster, meant]
    else:
        meanings = classes
        labels = cluster % classes
        meant = labels
    strength = torch.exp(uniform(-1.0, 0.7))[:, None, None]
    image = normal(members, centres, wide)[which, cluster] * strength + normal(members, total, wide)
    wrong = chance.share(members, total) < uniform(0.0, 0.7)[:, None]
    if kind == "unequal":
        # The words are learnt at once and right for a part; the picture takes products to read.
        wrong = chance.share(members, total) < uniform(0.3, 0.7)[:, None]
        half = wide // 2
        signs = torch.sign(normal(members, total, half))
        image = torch.cat([image[..., :half] * signs, signs * strength], 2)
        if wide % 2:
            image = torch.cat([image, normal(members, total, 1)], 2)
    heard = torch.where(wrong, integers(meanings, members, total), meant)
    meaning = integers(words, members, meanings, 2)
    text = (chance.share(members, total, words) < float(rng.choice([0.02, 0.1]))).float()
    for place in range(2):
        text.scatter_(2, meaning[which, heard, place][:, :, None], 1.0)
    return image, text, labels


def epochs(rng: np.random.Generator, members: int, size: int, batch: int, steps: int) -> Tensor:
    """Batches without replacement, epoch after epoch: [n, T, B]."""
    need = steps * batch
    rows = [
        np.concatenate([rng.permutation(size) for _ in range(-(-need // size))])[:need]
        for _ in range(members)
    ]
    return torch.from_numpy(np.stack(rows).reshape(members, steps, batch))
