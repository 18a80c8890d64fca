"""One meta-training run in its folder: search, score, checkpoint, resume, hand over a policy."""

import json
import logging
import math
import multiprocessing
import signal
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from mmnet import checkpoint
from mmnet.compose import make
from mmnet.config import Run
from mmnet.controller import policy
from mmnet.controller.features import SCHEMA
from mmnet.folder import hold, put
from mmnet.hardware import choose
from mmnet.meta.evolve import Search, Settings, yardstick
from mmnet.stop import Stop, Stopped
from mmnet.track.base import Status, Tracker
from mmnet.track.record import describe, save_diff
from mmnet.track.recorder import Recorder


log = logging.getLogger(__name__)

SCORED, FRESH = 700_001, 800_001  # seeds of the first of those tasks; no generation has them
MEMBERS = 8  # data sets in each


def run_meta_training(run: Run, folder: Path, config: str) -> float:
    """Search as told by `run.meta`; leaves policy.safetensors in `folder`.

    Returns its score on fresh tasks: mean log of its loss over the best cosine's. Raises UserError
    and, after SIGTERM or SIGINT, Stopped: resume= goes on with the same result.
    """
    tracker: Tracker = make(run.tracker)
    tracker.check()
    settings = settings_of(run, choose(run.hardware).device.type)
    with hold(folder), ExitStack() as stack:
        found = checkpoint.load_newest(folder / "checkpoints") if run.resume else None
        search = Search.begin(first(settings)) if found is None else restored(found)
        put(folder / "config.yaml", config)
        put(folder / "record.json", json.dumps(describe(run) | {"dataset": {}, "names": {}}))
        save_diff(folder)
        recorder = Recorder(folder)
        stack.callback(recorder.close)
        writer = checkpoint.Writer(folder / "checkpoints", 2, before=recorder.sync)
        stack.callback(writer.wait)
        tracker.start(folder)
        pool = stack.enter_context(workers(run.meta.processes, settings.device))
        status: Status = "FAILED"
        error = ""
        try:
            with Stop() as stop:
                score = go(run, settings, search, recorder, tracker, writer, pool, stop)
            hand_over(folder, settings, search, score)
            status = "FINISHED"
        except Stopped as stopped:
            status, error = "KILLED", str(stopped)
            raise
        finally:
            writer.wait()
            recorder.close()
            summary = {
                "status": status,
                "error": error,
                "steps": search.number,
                "final": {"meta/score": search.best_score},
                "best": {"meta/score": search.best_score},
            }
            put(folder / "summary.json", json.dumps(summary, indent=1))
            for text in [f"run folder: {folder}", *tracker.finish(status)]:
                log.info(text)
    return score


def settings_of(run: Run, device: str) -> Settings:
    meta = run.meta
    return Settings(
        kind=meta.kind,
        hidden=int(run.controller["hidden_dim"]),
        pairs=meta.pairs,
        tasks=meta.tasks,
        sigma=meta.sigma,
        rate=meta.rate,
        average=meta.average,
        rho_max=float(run.controller["rho_max"]),
        seed=run.seed,
        device=device,
    )


def first(settings: Settings) -> torch.Tensor:
    generator = torch.Generator().manual_seed(settings.seed)
    return policy.to_flat(policy.fresh(settings.kind, settings.hidden, generator))[0]


def restored(found: checkpoint.Checkpoint) -> Search:
    parts: dict[str, Any] = {**found.weights, **found.state}
    return Search(**parts)


def workers(count: int, device: str) -> Executor:
    """Processes for tasks; a GPU takes them only if they start afresh."""
    context = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    return ProcessPoolExecutor(count, context, initializer=alone, initargs=(device,))


def alone(device: str) -> None:
    """A process of the pool: one thread, and signals are the parent's affair."""
    torch.set_num_threads(1)
    if device != "cpu":
        torch.set_default_device(device)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def go(
    run: Run,
    settings: Settings,
    search: Search,
    recorder: Recorder,
    tracker: Tracker,
    writer: checkpoint.Writer,
    pool: Executor,
    stop: Stop,
) -> float:
    """All generations; the score of the best policy on fresh tasks."""
    total, every = run.meta.generations, run.meta.score_every
    known = yardstick(some(SCORED, run.meta.score_tasks), MEMBERS, settings.device, pool)
    began, since = time.monotonic(), search.number
    while search.number < total:
        search.advance(settings, search.number / total, pool)
        if search.number % every == 0 or search.number == total:
            score = known.score(search.average, settings, pool).mean().item()
            if score < search.best_score:
                search.best, search.best_score = search.average.clone(), score
            tracker.log(recorder.log(search.number, {"meta/score": score}))
            each = (time.monotonic() - began) / (search.number - since)
            log.info(
                "generation %d/%d  score %+.3f  best %+.3f  %.1f minutes left",
                search.number,
                total,
                score,
                search.best_score,
                each * (total - search.number) / 60,
            )
            save(writer, search)
        if stop.signum is not None:
            save(writer, search)
            raise Stopped(stop.signum, f"after generation {search.number}; resume= goes on")
    log.info("asking the best policy on fresh tasks")
    asked = yardstick(some(FRESH, run.meta.fresh_tasks), MEMBERS, settings.device, pool)
    fresh = asked.score(search.best, settings, pool)
    score = fresh.mean().item()
    spread = fresh.std(correction=min(1, len(fresh) - 1)).item() / math.sqrt(len(fresh))
    log.info("fresh tasks: %+.3f, standard error %.3f; 0 is the best cosine of each", score, spread)
    tracker.log(recorder.log(search.number, {"meta/fresh": score, "meta/fresh_error": spread}))
    return score


def some(first: int, count: int) -> range:
    return range(first, first + count)


def save(writer: checkpoint.Writer, search: Search) -> None:
    weights, state = search.split()
    writer.save(search.number, weights, None, state, best=False)


def hand_over(folder: Path, settings: Settings, search: Search, fresh: float) -> None:
    """policy.safetensors, with how it came about."""
    found = policy.from_flat(settings.kind, settings.hidden, search.best[None])
    record: dict[str, Any] = {
        **vars(settings),
        "generations": search.number,
        "score": round(search.best_score, 4),
        "fresh": round(fresh, 4),
    }
    path = folder / "policy.safetensors"
    policy.save(found, path, record)
    log.info("policy: %s (features %s); controller.policy=<this file> acts by it", path, SCHEMA)
