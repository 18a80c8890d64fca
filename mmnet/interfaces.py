"""The contracts between the parts of a run, all on one page.

    dataset --Sample--> prepare --Batch--> encoder --Features--> fusion --fused--> head --loss-->
                        (encoder's)                                     controller <--Signal--

A part is any class that fits its contract; nothing is inherited and nothing is registered.
To add one, write one Python file and the YAML of the same name: mmnet/fusion/gated.py and
conf/fusion/gated.yaml.

Shapes: B samples, T tokens, D channels, C classes.
"""

import random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypedDict

from PIL import Image
from torch import Tensor


if TYPE_CHECKING:  # costs a second to import, and only evaluation needs it
    from torchmetrics import MetricCollection


class Sample(TypedDict, total=False):
    """One raw sample, as a dataset hands it out; only the modalities that were asked for."""

    image: Image.Image  # RGB
    text: str  # cleaned, never empty
    label: int


class BadSample(Exception):
    """One sample that cannot be read; `reason` is short and groups alike cases."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason

    def __reduce__(self) -> tuple[type["BadSample"], tuple[str, str]]:
        return type(self), (self.key, self.reason)  # so that it survives the way out of a worker


class Inputs(NamedTuple):
    """One modality of a batch."""

    values: Tensor  # image: uint8 [B, 3, H, W]; text: int64 token ids [B, T]
    mask: Tensor | None  # bool [B, T], True where the token is real; None where all are


class Batch(NamedTuple):
    """What one forward and one loss need."""

    inputs: dict[str, Inputs]  # by modality
    targets: dict[str, Tensor]  # "label": int64 [B]


class Features(NamedTuple):
    """What an encoder makes of one modality."""

    tokens: Tensor  # [B, T, D]
    pooled: Tensor  # [B, D]
    mask: Tensor | None  # bool [B, T], True where the token is real; None where all are


class Signal(NamedTuple):
    """What the controller may see of one optimizer step."""

    step: int
    loss: float
    grad_norm: float


class Prepare(Protocol):
    """Raw to tensor, in the data workers: small, picklable, and never holding the weights."""

    def __call__(self, raw: Any) -> Tensor:
        """One raw sample (an RGB image, a string) -> one tensor."""

    def collate(self, tensors: list[Tensor]) -> Inputs:
        """The tensors of several samples -> one batch, padded to the longest."""


class Encoder(Protocol):
    """One modality in, features out. Owns its preprocessing, so datasets stay raw."""

    dim: int  # D of its features
    prepare: Prepare

    def __call__(self, inputs: Inputs) -> Features: ...

    def checkpoint_activations(self) -> None:
        """From now on recompute activations in backward instead of keeping them."""


class Fusion(Protocol):
    """Many modalities in, one tensor out. Constructed with `dims`: modality -> D."""

    dim: int  # D of what it returns

    def __call__(self, features: dict[str, Features]) -> Tensor:
        """-> [B, dim]"""


class Head(Protocol):
    """Answers, their loss and their metrics. Constructed with `dim` of the fusion."""

    higher_is_better: ClassVar[dict[str, bool]]  # its scalar metrics, by name

    def __call__(self, fused: Tensor) -> Tensor:
        """[B, D] -> [B, C] logits"""

    def loss(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Mean over the samples of the batch, fp32 scalar."""

    def metrics(self) -> "MetricCollection":
        """Fresh torchmetrics for one evaluation; a scalar becomes `val/<name>`."""

    def update(
        self, metrics: "MetricCollection", logits: Tensor, targets: dict[str, Tensor]
    ) -> None: ...


class Controller(Protocol):
    """The outer loop: watches training, answers with a factor on the learning rate."""

    def __call__(self, signal: Signal) -> float: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Schedule(Protocol):
    """A pure function of the step: factor on optimizer.lr for step 1, 2, ... total."""

    def __call__(self, step: int, total: int) -> float: ...


class Split(Protocol):
    """The samples of one published split, addressable by position."""

    digest: str  # of what the split says it holds: keys, labels, captions
    notes: dict[str, int]  # counts worth reporting, e.g. {"images without instances": 3}

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """What to call sample `index` in a report."""

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        """Read one sample. `rng` decides augmentation; None: none (evaluation).

        Raises BadSample if it cannot be read.
        """


class Dataset(Protocol):
    """Constructed with its settings and `data`, the folder of paths.data."""

    classes: list[str]  # name of each label
    on_bad_sample: Literal["skip", "fail"]
    max_bad_fraction: float

    def split(self, name: str) -> Split:
        """The samples of "train" or "val"."""


class Optimizer(Protocol):
    """What the loop asks of torch.optim.Optimizer and of compositions of them."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
