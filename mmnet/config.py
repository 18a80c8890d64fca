"""What a run is: its sections, their types, what each key means.

Values live in conf/, types live here. This module imports no torch, so that `--help`,
`--cfg job` and errors in a config answer at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmnet.bounds import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Ratio


_HERE = Path(__file__).resolve().parent
# A checkout keeps conf/ beside the package; a wheel carries it inside (see pyproject.toml).
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"

# Where the parts of each group live.
PACKAGES = {
    "encoder": "mmnet.encoder",
    "fusion": "mmnet.fusion",
    "head": "mmnet.head",
    "balance": "mmnet.balance",
    "controller": "mmnet.controller",
    "dataset": "mmnet.dataset",
    "optimizer": "mmnet.optimizer",
    "schedule": "mmnet.schedule",
    "tracker": "mmnet.track",
}
PARTS = tuple(group for group in PACKAGES if group != "encoder")  # one of each in a run
MODALITIES = ("image", "text")  # an encoder for each, or for one of them

# What the program itself hands to a part, beside the settings: all of it to a fusion, a dataset
# and an optimizer, and to a head what its constructor names (see mmnet.model.facts).
PASSED = {
    "fusion": ("dims",),
    "head": (
        "dim",
        "token_dims",
        "fusion",
        "dims",
        "words",
        "num_labels",
        "value_mean",
        "value_std",
        "make_head",
    ),
    "dataset": ("data",),
    "optimizer": ("model",),
}

# The only code a config may name with `_target_`. A config can come with a downloaded
# checkpoint, so this list is a security boundary: parts only, one package each, and the
# studies of the checkout one works in.
TRUSTED = [f"{package}.*" for package in PACKAGES.values()] + ["experiments.*"]

# A part of the run, named by `_target_`; its other keys are constructor arguments.
Part = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A preset: which parts go together, and what to call them."""

    name: str  # what a run is called that gives itself no name


@dataclass(frozen=True)
class Trainer:
    """How long, how much at once, how often to look."""

    steps: PositiveInt | None  # optimizer steps; exactly one of steps and epochs is set
    epochs: PositiveInt | None  # passes over the training split
    batch_size: PositiveInt  # samples per optimizer step, whatever the machine
    eval_every: PositiveInt  # steps between evaluations; the last step is always evaluated
    checkpoint_every: PositiveInt  # steps between checkpoints; the last step is always saved
    keep_checkpoints: PositiveInt  # newest checkpoints kept, beside the best
    grad_clip: PositiveFloat | None  # largest global gradient norm
    ema_decay: Fraction | None  # moving average of the weights, evaluated and saved instead
    modality_grid: NonNegativeInt  # val samples on which modalities are taken away at the end
    monitor: str  # "val/<metric of the head>" or "val/loss": what makes a checkpoint the best
    modality_dropout: Fraction  # chance that a training sample loses one of its modalities
    patience: PositiveInt | None  # stop after so many evaluations without a new best
    bucket_batches: PositiveInt | None  # batches in which samples are sorted by length of text
    pack: bool  # whether a sample is as many texts as fit; of text alone
    max_nonfinite: NonNegativeInt  # skipped steps allowed among the last 100


@dataclass(frozen=True)
class Tuning:
    """How one encoder is trained, in its layers: embeddings, each block, what follows them."""

    freeze: Literal["all"] | PositiveInt | None  # layers that stay as they are, from the input up
    layer_decay: Ratio  # learning rate of a layer as a share of the next one's above it
    lora_rank: PositiveInt | None  # train adapters of this rank in the blocks, and no layer
    lora_alpha: PositiveInt  # what adapters add is scaled by lora_alpha / lora_rank
    lora_dropout: Fraction  # of what goes into adapters


@dataclass(frozen=True)
class Towers:
    """How each encoder is trained."""

    image: Tuning
    text: Tuning


@dataclass(frozen=True)
class Hardware:
    """How to run the same mathematics on this machine."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    activation_checkpointing: bool
    micro_batch_size: PositiveInt | None  # samples at once; None: the whole batch
    num_workers: NonNegativeInt  # processes that read data
    pin_memory: Literal["auto"] | bool  # copy to the device from memory that stays in its place
    memory_gb: PositiveFloat | None  # to plan for (mmnet.inspect); None: what this machine has
    threads: PositiveInt | None  # CPU threads of one operation; None: torch's choice


@dataclass(frozen=True)
class Paths:
    """Where things are read and written; relative paths start at the working directory."""

    data: str
    output: str  # the folder under which run folders appear


@dataclass(frozen=True)
class Meta:
    """How task=meta_train searches for a policy of the double loop; controller says its width."""

    kind: Literal["lstm", "linear"]
    generations: PositiveInt
    pairs: PositiveInt  # of opposite perturbations in a generation, divided among its tasks
    tasks: PositiveInt  # problems in a generation
    sigma: PositiveFloat  # of a perturbation of a weight
    rate: PositiveFloat  # of the search at first; it falls to a tenth
    average: Fraction  # decay of the averaged weights, which are scored and handed out
    score_every: PositiveInt  # generations
    score_tasks: PositiveInt  # problems that choose the best policy
    fresh_tasks: PositiveInt  # problems that tell how good it is, met once, at the end
    processes: PositiveInt  # that run tasks side by side


@dataclass(frozen=True)
class Run:
    """Everything one training run is given."""

    task: Literal["train", "meta_train"]  # train a network, or a policy of the double loop
    name: str
    seed: NonNegativeInt
    resume: str | None  # a run folder or an MLflow run id
    model: Model
    encoder: dict[str, Part | None]  # modality -> encoder
    fusion: Part
    head: Part
    balance: Part
    controller: Part
    dataset: Part
    optimizer: Part
    schedule: Part
    hardware: Hardware
    tracker: Part
    trainer: Trainer
    tuning: Towers
    meta: Meta
    paths: Paths

    @property
    def micro_batch_size(self) -> int:
        """Samples that go through the network at once."""
        return min(
            self.hardware.micro_batch_size or self.trainer.batch_size, self.trainer.batch_size
        )

    @property
    def accumulate(self) -> int:
        """Micro-batches per optimizer step."""
        return self.trainer.batch_size // self.micro_batch_size

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the network looks at, in the order of the config."""
        return tuple(name for name, part in self.encoder.items() if part)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Every part with its path in the config: ("fusion", {...}), ("encoder.image", {...})."""
        for modality, part in self.encoder.items():
            if part:
                yield f"encoder.{modality}", part
        for name in PARTS:
            yield name, getattr(self, name)
