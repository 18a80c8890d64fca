"""What the user sees while a run goes on."""

import logging
import sys
import time

from tqdm import tqdm


log = logging.getLogger(__name__)


class Line:
    """One live line on a terminal; elsewhere a plain line now and then."""

    QUIET = 30.0  # seconds between plain lines

    def __init__(self, first: int, total: int) -> None:
        self.total, self.first, self.begun = total, first, time.monotonic()
        self.shown = self.begun
        live = sys.stderr.isatty()
        self.bar = (
            tqdm(total=total, initial=first, unit="step", dynamic_ncols=True, mininterval=0.5)
            if live
            else None
        )

    def step(self, step: int, loss: float, rate: float, samples_per_s: float, mb: float) -> None:
        """After optimizer step `step`."""
        now = time.monotonic()
        if now - self.shown < (0.5 if self.bar is not None else self.QUIET) and step < self.total:
            return
        self.shown = now
        text = f"loss {loss:.4f}  lr {rate:.2e}  {samples_per_s:,.0f} samples/s  {mb:,.0f} MB"
        if self.bar is not None:
            self.bar.n = step
            self.bar.set_postfix_str(text)
            return
        left = (now - self.begun) / (step - self.first) * (self.total - step)
        log.info("step %d/%d  %s  %s left", step, self.total, text, tqdm.format_interval(left))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
