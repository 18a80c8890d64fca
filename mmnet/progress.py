"""What the user sees while a run goes on."""

import contextlib
import logging
import sys
import time

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mmnet.hardware import memory_mb


log = logging.getLogger(__name__)


class Line:
    """One live line on a terminal; elsewhere a plain line now and then."""

    QUIET = 30.0  # seconds between plain lines

    def __init__(self, first: int, total: int, device: torch.device) -> None:
        self.device = device
        self.total, self.first, self.begun = total, first, time.monotonic()
        self.shown = self.begun
        live = sys.stderr.isatty()
        self.bar = (
            tqdm(total=total, initial=first, unit="step", dynamic_ncols=True, mininterval=0.5)
            if live
            else None
        )
        self.aside = contextlib.ExitStack()  # what is logged meanwhile goes above the live line
        if live:
            self.aside.enter_context(logging_redirect_tqdm())

    def step(self, step: int, loss: float, rate: float, samples_per_s: float) -> None:
        """After optimizer step `step`."""
        now = time.monotonic()
        if now - self.shown < (0.5 if self.bar is not None else self.QUIET) and step < self.total:
            return
        self.shown = now
        mb = memory_mb(self.device)
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
        self.aside.close()
