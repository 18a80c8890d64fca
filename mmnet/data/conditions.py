"""A split as it would be with a modality missing, taken from another sample, or noised."""

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmnet.interfaces import Sample, Split


NOISE = 0.5  # share of an image that is noise, and of a text's characters that are others


class _Changed:
    """Passes on what is not changed."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.digest, self.notes = split.digest, split.notes

    def __len__(self) -> int:
        return len(self.split)

    def key(self, index: int) -> str:
        return self.split.key(index)


class Without(_Changed):
    """No sample has `modality`."""

    def __init__(self, split: Split, modality: str) -> None:
        super().__init__(split)
        self.modality = modality

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        rest = tuple(name for name in modalities if name != self.modality)
        return self.split.sample(index, rest, rng)


class Swapped(_Changed):
    """Each sample has other samples' `modalities`, of a different one each, and its own targets."""

    def __init__(self, split: Split, modalities: tuple[str, ...]) -> None:
        super().__init__(split)
        self.modalities = modalities

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        own = tuple(name for name in modalities if name not in self.modalities)
        sample = dict(self.split.sample(index, own, rng))
        size = len(self.split)
        for number, name in enumerate(self.modalities, start=1):
            # A third, two thirds of the split away: neighbours may show the same thing.
            other = (index + max(1, size * number // (len(self.modalities) + 1))) % size
            found = dict(self.split.sample(other, (name,), rng))
            if name in found:
                sample[name] = found[name]
        return sample  # type: ignore[return-value]


class Noised(_Changed):
    """Half of each image is uniform noise, half of each text's characters are random letters."""

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        sample = self.split.sample(index, modalities, rng)
        if "image" in sample:
            raw = sample["image"]
            pixels = np.asarray(raw, np.float32)
            noise = np.random.default_rng(index).uniform(0, 255, pixels.shape)
            mixed = ((1 - NOISE) * pixels + NOISE * noise).astype(np.uint8)
            is_tensor = isinstance(raw, Tensor)
            sample["image"] = torch.from_numpy(mixed) if is_tensor else Image.fromarray(mixed)
        if "text" in sample:
            letters = random.Random(index)
            sample["text"] = "".join(
                letters.choice("abcdefghijklmnopqrstuvwxyz") if letters.random() < NOISE else sign
                for sign in sample["text"]
            )
        return sample
