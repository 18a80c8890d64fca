"""Hiding tokens of a text, for masked language modelling."""

import random

import torch
from torch import Tensor

from mmnet.interfaces import IGNORED, TextPrepare


class HideTokens:
    """BERT's masking (Devlin et al., arXiv 1810.04805): what a network is asked to restore.

    Each ordinary token is chosen with `probability`, one at least where there is any. Of the
    chosen, 80 % become the mask token, 10 % some other token, and 10 % stay as they are.
    """

    def __init__(self, words: TextPrepare, probability: float) -> None:
        if words.mask_id is None:
            raise ValueError("this vocabulary has no mask token")
        self.mask_id, self.probability = words.mask_id, probability
        self.special = frozenset((*words.special_ids, words.mask_id))
        self.ordinary = [i for i in range(words.vocab_size) if i not in self.special]

    def __call__(self, ids: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
        """int64 [T] -> the same with tokens hidden, and the hidden ones' ids, IGNORED elsewhere."""
        seen = ids.tolist()
        wanted = [IGNORED] * len(seen)
        open_to_it = [place for place, token in enumerate(seen) if token not in self.special]
        chosen = [place for place in open_to_it if rng.random() < self.probability]
        if not chosen and open_to_it:
            chosen = [rng.choice(open_to_it)]
        for place in chosen:
            wanted[place] = seen[place]
            fate = rng.random()
            if fate < 0.8:
                seen[place] = self.mask_id
            elif fate < 0.9:
                seen[place] = rng.choice(self.ordinary)
        return torch.tensor(seen, dtype=ids.dtype), torch.tensor(wanted, dtype=ids.dtype)
