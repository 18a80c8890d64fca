"""Shards written by several processes, none of which outlives the command."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmnet.data_commands.chosen import Chosen
from mmnet.data_commands.shard import Done, How, Shard, make, rows_of
from mmnet.errors import UserError


def carry_out(
    dataset: Chosen, how: How, out: Path, todo: Sequence[Shard], workers: int | None
) -> None:
    """Write these shards. Raises UserError when one cannot be."""
    count = min(workers or os.cpu_count() or 1, len(todo))
    total = sum(shard.stop - shard.start for shard in todo)
    with tqdm(total=total, unit=" samples", disable=None) as bar:
        for shard in _each(dataset, how, out, todo, count):
            bar.update(shard.stop - shard.start)


def _each(
    dataset: Chosen, how: How, out: Path, todo: Sequence[Shard], workers: int
) -> Iterator[Shard]:
    """Those that are written, as they are."""
    if workers <= 1:
        worker = Worker(dataset, how, out)
        for shard in todo:
            worker(shard)
            yield shard
        return
    # Not by fork: the table's threads would not live on in a copy of this process.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), _begin, (os.getpid(), dataset, how, out)
    )
    try:
        asked = {pool.submit(_write, shard): shard for shard in todo}
        for future in as_completed(asked):
            future.result()
            yield asked[future]
    except BrokenProcessPool as error:
        raise UserError(
            f"a process that wrote shards died, perhaps for want of memory: workers={workers}; "
            f"with fewer the same command goes on"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Worker:
    """Writes shards of one dataset."""

    def __init__(self, dataset: Chosen, how: How, out: Path) -> None:
        self.published = dataset.records()
        self.rows, self.how, self.out = rows_of(self.published), how, out

    def __call__(self, shard: Shard) -> Done:
        return make(self.published, self.rows[shard.split], self.how, self.out, shard)


_worker: Any = None  # of this process


def _begin(parent: int, dataset: Chosen, how: How, out: Path) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself says when to leave
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _worker = Worker(dataset, how, out)


def _leave_with(parent: int) -> None:
    """Nobody would tell a worker that the command was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _write(shard: Shard) -> Done:
    done: Done = _worker(shard)
    return done
