"""The training loop, top to bottom: the order of lines is the order of events."""

import logging
import math
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor

from mmnet.checkpoint import Writer
from mmnet.data.loader import TrainStep, train_steps
from mmnet.data.modality_dropout import divided, drop
from mmnet.errors import UserError
from mmnet.evaluation import Evaluation, Interrupted, evaluate_split
from mmnet.gradients import accumulate
from mmnet.job import Job
from mmnet.outer import Signal
from mmnet.progress import Line
from mmnet.stop import Stop
from mmnet.track.base import Tracker
from mmnet.track.recorder import Recorder


log = logging.getLogger(__name__)

WINDOW = 100  # steps over which trainer.max_nonfinite counts


def train(
    job: Job,
    writer: Writer,
    recorder: Recorder,
    tracker: Tracker,
    stop: Stop,
    decisions: Recorder | None = None,
) -> Evaluation | None:
    """Train until the last step, early stopping or a signal; the last evaluation, if any.

    `decisions` is where the controller's are recorded.

    A resumed job enters at the step of its checkpoint and does what was still due there.
    Raises UserError when too many steps are not finite or too many samples cannot be read.
    """
    run, counters, machine = job.run, job.counters, job.machine
    network = torch.compile(job.model) if run.hardware.compile else job.model
    parameters = Parameters(job.model)
    job.model.train()
    steps = steps_of(job, counters.step + 1, job.total)
    line = Line(counters.step, job.total, machine.device)
    saved_at, evaluation = counters.step, None

    try:
        while True:
            done = counters.step >= job.total
            better = False

            if counters.evaluated_at < counters.step and (
                done or counters.step % run.trainer.eval_every == 0
            ):
                try:
                    evaluation = look(job, stop)
                    better = judge(job, evaluation)
                    tracker.log(recorder.log(counters.step, counters.final))
                except Interrupted:
                    log.info("evaluation at step %d given up: it is done again", counters.step)
            if out_of_patience(job):
                log.info(
                    "early stop at step %d: %s was best at step %d",
                    counters.step,
                    run.trainer.monitor,
                    counters.best_step,
                )
                done = True

            spent = len(counters.recently_skipped) > run.trainer.max_nonfinite
            leaving = done or spent or stop.requested
            due = leaving or counters.step % run.trainer.checkpoint_every == 0
            if better or (due and saved_at < counters.step):
                weights = job.model.state_dict()
                writer.save(counters.step, weights, job.average.averaged(), job.state(), better)
                saved_at = counters.step
            if spent:
                raise UserError(
                    f"stopped at step {counters.step}: {len(counters.recently_skipped)} of the "
                    f"last {WINDOW} steps were not finite (trainer.max_nonfinite="
                    f"{run.trainer.max_nonfinite}); the weights are those of the last good step. "
                    f"Resuming with hardware.precision=fp32, or a new run with a smaller "
                    f"optimizer.lr, may help"
                )
            if leaving:
                return evaluation

            began = time.perf_counter()
            data = next(steps)
            waited = time.perf_counter() - began
            job.bad.add("train", data.bad)
            loss, norm, shares, rate = advance(job, network, parameters, data)
            counters.step += 1
            counters.samples += data.samples
            took = time.perf_counter() - began
            counters.seconds += took
            if counters.step == 1:
                counters.first_step_after = time.time() - psutil.Process().create_time()
            numbers = {
                "train/loss": loss,
                "train/grad_norm": norm,
                **{f"train/grad_share_{name}": share for name, share in shares.items()},
                "train/lr": rate,
                **{f"train/lr_{name}": value for name, value in job.controller.rates().items()},
                "train/samples_per_second": data.samples / took,
                "train/data_wait_ms": 1000 * waited,
            }
            tracker.log(recorder.log(counters.step, numbers))
            if decisions is not None and job.controller.decision:
                decided = {f"controller/{n}": v for n, v in job.controller.decision.items()}
                decisions.log(counters.step, decided)
            line.step(counters.step, loss, rate, data.samples / took)
    finally:
        steps.close()
        line.close()


def steps_of(job: Job, first: int, last: int) -> Generator[TrainStep, None, None]:
    """The data of steps `first` to `last`, as the config asks for it."""
    run = job.run
    return train_steps(
        job.train,
        job.reading,
        batch_size=run.trainer.batch_size,
        micro_batch_size=run.micro_batch_size,
        seed=run.seed,
        first_step=first,
        last_step=last,
        num_workers=run.hardware.num_workers,
        device=job.machine.device,
        bucket_batches=run.trainer.bucket_batches,
    )


def set_rate(job: Job) -> float:
    """The learning rate of the next step, before the controller: base rate x schedule."""
    rate: float = job.run.optimizer["lr"] * job.schedule(job.counters.step + 1, job.total)
    for group in job.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)  # see mmnet.optimizer.by_rate
    return rate


class Parameters:
    """The trainable parameters of a network, and of each encoder, where there are several."""

    def __init__(self, model: torch.nn.Module) -> None:
        encoders: Any = model.encoders
        self.all = [p for p in model.parameters() if p.requires_grad]
        towers = {
            name: [p for p in encoder.parameters() if p.requires_grad]
            for name, encoder in encoders.items()
        }
        self.towers = {name: found for name, found in towers.items() if found}
        if len(self.towers) < 2:
            self.towers = {}
        inside = {id(p) for found in self.towers.values() for p in found}
        self.rest = [p for p in self.all if id(p) not in inside]

    def gradient_norms(self) -> tuple[Tensor, list[Tensor]]:
        """Of all of them, and of each encoder in the order of `towers`."""
        parts = [*self.towers.values(), self.rest]
        device = self.all[0].device
        norms = [
            torch.nn.utils.get_total_norm([p.grad for p in part if p.grad is not None]).to(device)
            for part in parts
        ]
        if len(norms) == 1:
            return norms[0], []
        return torch.linalg.vector_norm(torch.stack(norms)), norms[:-1]


class Advanced(NamedTuple):
    """What is to be said of one optimizer step."""

    loss: float  # mean over its samples
    grad_norm: float
    shares: dict[str, float]  # of each encoder in the encoders' gradient norms; see Parameters
    rate: float  # base rate x schedule


def advance(
    job: Job, network: Callable[..., Any], parameters: Parameters, data: TrainStep
) -> Advanced:
    """One optimizer step: accumulate, clip, steer, step, average.

    A step whose loss or gradient is not finite is skipped and counted; weights, optimizer
    and average stay as they were.
    """
    rate = set_rate(job)
    if not data.batches:
        log.warning("step %d skipped: none of its samples could be read", data.step)
        return Advanced(math.nan, 0.0, {}, rate)
    optimizer: Any = job.optimizer  # GradScaler asks for torch's class, but needs our contract
    chances = divided(job.run.trainer.modality_dropout, job.run.encoder, job.controller.losing())
    step = job.counters.step + 1
    data = data._replace(batches=drop(data.batches, chances, job.run.seed, step))
    total = accumulate(job, network, parameters.all, data)
    job.scaler.unscale_(optimizer)
    job.balance.modulate()
    norm, of_towers = parameters.gradient_norms()
    wanted = job.controller.look()
    # The one wait for the device in a step: all numbers in a single copy.
    numbers = torch.stack([total, norm, *of_towers])
    told = agreed(numbers if wanted is None else torch.cat([numbers, wanted])).tolist()
    (mean_loss, grad_norm, *norms), seen = told[: len(numbers)], told[len(numbers) :]

    if math.isfinite(mean_loss) and math.isfinite(grad_norm):
        clipped = 1.0
        if job.run.trainer.grad_clip is not None:
            clip = job.run.trainer.grad_clip
            torch.nn.utils.clip_grads_with_norm_(parameters.all, clip, norm)
            clipped = min(1.0, clip / (grad_norm + 1e-6))  # as torch does
        job.controller.steer(Signal(step, mean_loss, rate, clipped, seen))
        job.scaler.step(optimizer)
        job.average.update(step)
        job.balance.stepped()
    else:
        skip(job, step, mean_loss, grad_norm)
    job.scaler.update()
    optimizer.zero_grad()
    whole = sum(norms)
    shares = dict(zip(parameters.towers, (n / whole for n in norms), strict=True)) if whole else {}
    return Advanced(mean_loss, grad_norm, shares, rate)


def agreed(numbers: Tensor) -> Tensor:
    """Those of rank 0 where several processes train one network: it decides, and all obey.

    Each of them sees samples of its own; what it saw must not part its weights from the others'.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(numbers, 0)
    return numbers


def skip(job: Job, step: int, loss: float, norm: float) -> None:
    """Count a step that is not finite; the loop stops when they are too many."""
    counters = job.counters
    counters.skipped += 1
    recent = [past for past in counters.recently_skipped if past > step - WINDOW]
    counters.recently_skipped = [*recent, step]
    log.warning("step %d skipped: loss %g, gradient norm %g", step, loss, norm)


def look(job: Job, stop: Stop) -> Evaluation:
    """Evaluate the val split with the weights that the run would hand out."""
    began = time.perf_counter()
    # Started for each evaluation: no more of them than there are batches to read.
    batches = math.ceil(len(job.val) / job.run.micro_batch_size)
    num_workers = min(job.run.hardware.num_workers, batches)
    evaluation = evaluate_split(job, job.val, stop, num_workers=num_workers)
    job.bad.add("val", evaluation.bad)
    log.info(
        "step %d/%d  %s  (%.1f s)",
        job.counters.step,
        job.total,
        "  ".join(f"val/{name} {value:.4f}" for name, value in evaluation.values.items()),
        time.perf_counter() - began,
    )
    return evaluation


def out_of_patience(job: Job) -> bool:
    """Whether there were too many evaluations without a new best: time for an early stop."""
    patience = job.run.trainer.patience
    return patience is not None and job.counters.without_best >= patience


def judge(job: Job, evaluation: Evaluation) -> bool:
    """Note the evaluation; whether it is the best so far by trainer.monitor."""
    counters, monitor = job.counters, job.run.trainer.monitor
    counters.evaluated_at = counters.step
    counters.final = {f"val/{name}": value for name, value in evaluation.values.items()}
    value, best = counters.final[monitor], counters.best.get(monitor)
    head: Any = job.model.head
    sign = 1 if head.higher_is_better.get(monitor.removeprefix("val/"), False) else -1
    if math.isfinite(value) and (best is None or sign * value > sign * best):
        counters.best, counters.best_step, counters.without_best = counters.final, counters.step, 0
        return True
    counters.without_best += 1
    return False
