"""The loops that ours is held against, each over the same model, optimizer and batches.

All but `bare` do the same work: clip the gradient norm, follow a schedule. Each is given its
batches in the plainest form that it takes, and writes into a temporary folder.
"""

import tempfile
import types
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from experiments.bench.common import hushed
from mmnet.data.loader import TrainStep
from mmnet.interfaces import Inputs
from mmnet.job import Job


Flat = dict[str, Tensor]


class Loss(nn.Module):
    """The network and the loss of its head, as one module that takes tensors by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(
        self, image: Tensor, text: Tensor, label: Tensor, mask: Tensor | None = None
    ) -> Flat:
        logits = self.model({"image": Inputs(image, None), "text": Inputs(text, mask)})
        return {"loss": self.model.head.loss(logits, {"label": label})}


def flat(step: TrainStep) -> Flat:
    (batch,) = step.batches
    text = batch.inputs["text"]
    found = {
        "image": batch.inputs["image"].values,
        "text": text.values,
        "label": batch.targets["label"],
    }
    return found if text.mask is None else {**found, "mask": text.mask}


class Stream(Dataset[Flat]):
    """Item after item of a stream of batches, whichever is asked for."""

    def __init__(self, steps: Iterator[TrainStep], size: int) -> None:
        self.steps, self.size = steps, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Flat:
        return flat(next(self.steps))


def bare(job: Job, steps: Iterator[TrainStep]) -> list[float]:
    """Four lines of torch a step; returns the losses."""
    network: Any = job.model
    head = network.head
    losses = []
    for step in steps:
        (batch,) = step.batches
        loss = head.loss(network(batch.inputs), batch.targets)
        loss.backward()
        job.optimizer.step()
        job.optimizer.zero_grad()
        losses.append(loss.detach())
    return [loss.item() for loss in losses]


def with_clip_and_schedule(job: Job, steps: Iterator[TrainStep]) -> None:
    """The least that a training run does."""
    network: Any = job.model
    head, optimizer = network.head, job.optimizer
    clip = job.run.trainer.grad_clip or 0.0
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,  # type: ignore[arg-type]
        lambda done: job.schedule(done + 1, job.total),
    )
    for step in steps:
        (batch,) = step.batches
        loss = head.loss(network(batch.inputs), batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def open_clip(job: Job, steps: Iterator[TrainStep]) -> None:
    """open_clip_train.train.train_one_epoch, logging every 100 steps as it does by default."""
    schedules: Any = import_module("open_clip_train.scheduler")
    loop: Any = import_module("open_clip_train.train")
    run = job.run

    class Rest(dict[str, Tensor]):
        """What goes through as `texts`."""

        def to(self, **where: Any) -> "Rest":
            return self

    class Model(Loss):
        def __init__(self) -> None:
            super().__init__(job.model)
            self.logit_scale = nn.Parameter(torch.ones([]))  # the loop clamps one

        def forward(self, image: Tensor, rest: Rest) -> Flat:  # type: ignore[override]
            return {**super().forward(image, **rest), "logit_scale": self.logit_scale}

    class Loader:
        num_batches, num_samples = job.total, job.total * run.trainer.batch_size

        def __iter__(self) -> Iterator[tuple[Tensor, Rest]]:
            for step in steps:
                batch = flat(step)
                yield batch.pop("image"), Rest(batch)

    def loss(loss: Tensor, logit_scale: Tensor, output_dict: bool) -> Flat:
        return {"loss": loss}

    data = types.SimpleNamespace(dataloader=Loader(), set_epoch=lambda epoch: None)
    args = types.SimpleNamespace(
        device="cpu",
        precision="fp32",
        distill=False,
        accum_freq=1,
        skip_scheduler=False,
        horovod=False,
        grad_clip_norm=run.trainer.grad_clip,
        rank=0,
        local_rank=0,
        log_local=False,
        log_every_n_steps=100,
        world_size=1,
        batch_size=run.trainer.batch_size,
        wandb=False,
    )
    rate = schedules.cosine_lr(job.optimizer, run.optimizer["lr"], job.total // 20, job.total)
    loop.train_one_epoch(Model(), {"train": data}, loss, 0, job.optimizer, None, rate, None, args)


def hf_trainer(job: Job, steps: Iterator[TrainStep], quiet: bool) -> None:
    """transformers.Trainer; `quiet` turns off its logging, its progress bar and NaN filter."""
    from transformers import Trainer, TrainingArguments

    silence: dict[str, Any] = {
        "logging_strategy": "no",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
    }
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        job.optimizer,  # type: ignore[arg-type]
        lambda done: job.schedule(done + 1, job.total),
    )
    with tempfile.TemporaryDirectory() as folder, hushed():
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,  # a batch is one item of the stream
            max_steps=job.total,
            max_grad_norm=job.run.trainer.grad_clip or 0.0,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            **(silence if quiet else {"disable_tqdm": False}),
        )
        trainer = Trainer(
            model=Loss(job.model),
            args=arguments,
            train_dataset=Stream(steps, job.total),
            data_collator=lambda items: items[0],
            optimizers=(job.optimizer, scheduler),  # type: ignore[arg-type]
        )
        trainer.train()


def lightning(job: Job, steps: Iterator[TrainStep], quiet: bool) -> None:
    """lightning.Trainer; by default with its bar, its logger and one `self.log` a step."""
    pl: Any = import_module("lightning")

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.loss = Loss(job.model)

        def training_step(self, batch: Flat, index: int) -> Tensor:
            loss: Tensor = self.loss(**batch)["loss"]
            if not quiet:
                self.log("train/loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                job.optimizer,  # type: ignore[arg-type]
                lambda done: job.schedule(done + 1, job.total),
            )
            rate = {"scheduler": scheduler, "interval": "step"}
            return {"optimizer": job.optimizer, "lr_scheduler": rate}

    with tempfile.TemporaryDirectory() as folder, hushed():
        trainer = pl.Trainer(
            max_steps=job.total,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=job.run.trainer.grad_clip,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            **({"logger": False, "enable_progress_bar": False} if quiet else {}),
        )
        loader = DataLoader(Stream(steps, job.total), batch_size=None)
        trainer.fit(Module(), loader)
