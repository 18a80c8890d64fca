"""Samples that cannot be read: named, counted once each, and never too many."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from mmnet.errors import UserError


log = logging.getLogger(__name__)

NAMED = 10  # so many are warned about one by one, then only every power of two


class BadSamples:
    """The bad samples of each split, by name.

    policy: "fail" stops at the first; "skip" goes on until more than `max_bad_fraction` of
    a split is bad. `sizes` holds the number of samples of each split.
    """

    def __init__(
        self, policy: Literal["skip", "fail"], max_bad_fraction: float, sizes: dict[str, int]
    ) -> None:
        self.policy = policy
        self.max_bad_fraction = max_bad_fraction
        self.sizes = sizes
        self._reasons: dict[str, dict[str, str]] = {split: {} for split in sizes}

    def add(self, split: str, bad: Iterable[tuple[str, str]]) -> None:
        """Take down (key, reason) of samples that could not be read, met before or not.

        Raises UserError at the first under "fail", and above the fraction under "skip".
        """
        known = self._reasons[split]
        for key, reason in bad:
            if key in known:
                continue
            if self.policy == "fail":
                raise UserError(
                    f"sample {key} of {split} cannot be read: {reason} (dataset.on_bad_sample="
                    f"fail; skip would leave such samples out and count them)"
                )
            known[key] = reason
            count = len(known)
            if count <= NAMED or count.bit_count() == 1:
                log.warning("left out of %s: %s: %s (%d so far)", split, key, reason, count)
            if count > self.max_bad_fraction * self.sizes[split]:
                raise UserError(self._too_many(split))

    def counts(self) -> dict[str, dict[str, int]]:
        """How many of each split, by reason."""
        return {split: dict(Counter(known.values())) for split, known in self._reasons.items()}

    def state_dict(self) -> dict[str, dict[str, str]]:
        return {split: dict(known) for split, known in self._reasons.items()}

    def load_state_dict(self, state: dict[str, dict[str, str]]) -> None:
        self._reasons = {split: dict(state[split]) for split in self.sizes}

    def _too_many(self, split: str) -> str:
        known, size = self._reasons[split], self.sizes[split]
        causes = ", ".join(f"{n} x {reason}" for reason, n in Counter(known.values()).items())
        return (
            f"{len(known)} of the {size} samples of {split} cannot be read ({causes}), more than "
            f"dataset.max_bad_fraction={self.max_bad_fraction:g} allows; the first ones: "
            f"{', '.join(list(known)[:3])}. Mend the data or raise dataset.max_bad_fraction"
        )
