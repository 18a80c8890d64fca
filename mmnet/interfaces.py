"""The contracts between the parts of a run, all on one page.

    dataset --Sample--> prepare --Batch--> encoder --Features--> fusion --Fused--> head --loss-->
                        (encoder's)                                     controller <--Signal--

A part is any class that fits its contract; nothing is inherited and nothing is registered.
To add one, write one Python file and the YAML of the same name: mmnet/fusion/gated.py and
conf/fusion/gated.yaml.

Shapes: B samples, T tokens, D channels, C classes.

Any modality of a sample may be missing. `present` says of which samples a modality is there
(None: of all of them); what stands in the other rows means nothing and must not be looked at.
A modality may also be missing of the whole batch: then it is no key of the dict.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, TypedDict

import torch
from PIL import Image
from torch import Tensor, nn


if TYPE_CHECKING:  # costs a second to import, and only evaluation needs it
    from torchmetrics import MetricCollection


# What a head can learn from, and how a batch of it is stored. "tokens" is made in the data
# workers by hiding tokens of the text; everything else comes from the dataset.
TARGETS: dict[str, torch.dtype] = {
    "label": torch.int64,  # [B] class; float32 [B, C] shares of classes where pictures are mixed
    "labels": torch.float32,  # [B, C] 1 for each label that holds, 0 if not, NaN: nobody knows
    "value": torch.float32,  # [B] a quantity
    "group": torch.int64,  # [B] samples of one group show the same: their texts fit its images
    "match": torch.int64,  # [B] 1 where the text belongs to the image, else 0
    "tokens": torch.int64,  # [B, T] the hidden tokens' ids, IGNORED elsewhere
}
IGNORED = -100  # what torch's cross-entropy leaves out

# What a head answers: a tensor, or several by name; the first dimension is the sample's.
Answers: TypeAlias = Tensor | dict[str, Tensor]


class Sample(TypedDict, total=False):
    """One raw sample, as a dataset hands it out: the modalities and targets asked for.

    A modality that the sample lacks is left out.
    """

    image: Image.Image | Tensor  # RGB, or uint8 [3, H, W]
    text: str  # cleaned, never empty
    label: int
    labels: Sequence[float]  # 1, 0 or NaN a label, see TARGETS
    value: float
    group: int
    match: int


class BadSample(Exception):
    """One sample that cannot be read; `reason` is short and groups alike cases."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason

    def __reduce__(self) -> tuple[type["BadSample"], tuple[str, str]]:
        return type(self), (self.key, self.reason)  # so that it survives the way out of a worker


class Inputs(NamedTuple):
    """One modality of a batch."""

    values: Tensor  # image: uint8 [B, 3, H, W] or patches [B, T, P]; text: int64 ids [B, T]
    mask: Tensor | None  # bool [B, T], True where the token is real; None where all are
    present: Tensor | None = None  # bool [B], see above


class Batch(NamedTuple):
    """What one forward and one loss need."""

    inputs: dict[str, Inputs]  # by modality
    targets: dict[str, Tensor]  # by the names of TARGETS
    size: int  # B


class Features(NamedTuple):
    """What an encoder makes of one modality."""

    tokens: Tensor  # [B, T, D]
    pooled: Tensor  # [B, D]
    mask: Tensor | None  # bool [B, T], True where the token is real; None where all are
    present: Tensor | None = None  # bool [B], see above

    def there(self) -> Tensor:
        """bool [B]: the samples that have this modality."""
        if self.present is not None:
            return self.present
        # Its size as torch knows it, not len(), which an export would take for a constant.
        size = self.pooled.shape[0]
        return torch.ones(size, dtype=torch.bool, device=self.pooled.device)

    def visible(self) -> Tensor | None:
        """bool [B, T]: the real tokens of the samples that have this modality; None: all."""
        if self.present is None:
            return self.mask
        present = self.present[:, None]
        return present.expand(self.tokens.shape[:2]) if self.mask is None else self.mask & present


class Fused(NamedTuple):
    """What a fusion makes of all modalities; a head takes what it needs of it."""

    joint: Tensor | None  # [B, dim], one vector a sample; None from a fusion that joins nothing
    tokens: dict[str, Tensor]  # by modality [B, T, token_dims[modality]], as many as went in
    features: dict[str, Features]  # as the encoders made them
    groups: Tensor | None = None  # int64 [B], the target "group" where a batch has it


class Names(NamedTuple):
    """What a dataset calls its targets."""

    classes: Sequence[str] = ()  # of "label"
    labels: Sequence[str] = ()  # of each place in "labels"
    unit: str = ""  # of "value"


class Prepare(Protocol):
    """Raw to tensor, in the data workers: small, picklable, and never holding the weights."""

    blank: Any  # raw; stands where a sample has none, so that all rows have a shape

    def __call__(self, raw: Any) -> Tensor:
        """One raw sample (an RGB image, a string) -> one tensor."""

    def collate(self, tensors: list[Tensor]) -> Inputs:
        """The tensors of several samples -> one batch, padded to the longest."""


class Encoder(Protocol):
    """One modality in, features out. Owns its preprocessing, so datasets stay raw."""

    dim: int  # D of its features
    prepare: Prepare

    def __call__(self, inputs: Inputs) -> Features: ...

    def layers(self) -> list[list[nn.Module | nn.Parameter]]:
        """All its parts from the input up: embeddings, block 1, block 2, ..., what follows.

        The first and the last list may be empty. A pooling that the settings add is in none.
        """

    def pooling(self) -> list[nn.Module]:
        """What `Features.pooled` alone depends on; may be empty, or have no weights."""

    def checkpoint_activations(self) -> None:
        """From now on recompute activations in backward instead of keeping them."""


class TextPrepare(Prepare, Protocol):
    """A text encoder's `prepare`, with what masked language modelling and bucketing need."""

    digest: str  # of all that lengths depend on
    vocab_size: int  # ids are below it
    mask_id: int | None  # the token that hides another; None: this vocabulary has none
    special_ids: tuple[int, ...]  # never hidden: [CLS], [SEP], padding, ...

    def text(self, ids: list[int]) -> str:
        """Token ids back to words, for the eye."""

    def lengths(self, texts: list[str]) -> list[int]:
        """Of each, in tokens, as many as `__call__` gives of it; quick for many at once."""


class Fusion(Protocol):
    """Many modalities in, one out. Constructed with `dims`: modality -> D of its encoder."""

    joins: ClassVar[bool]  # whether it makes one vector of them (`Fused.joint`)
    pools: ClassVar[bool]  # whether it makes it of `Features.pooled`; otherwise of tokens
    modalities: ClassVar[int]  # how many encoders it needs at least
    dim: int  # D of Fused.joint
    token_dims: dict[str, int]  # D of Fused.tokens

    def __call__(self, features: dict[str, Features]) -> Fused: ...

    def checkpoint_activations(self) -> None:
        """From now on recompute activations in backward instead of keeping them."""


class Head(Protocol):
    """Answers, their loss and their metrics.

    Its constructor is given those facts that it names, see mmnet.model.facts. One that learns
    from "tokens" also has `hide`, a mmnet.data.masking.HideTokens; one made of heads has what
    mmnet.head.multitask shows.
    """

    targets: ClassVar[tuple[str, ...]]  # what it learns from, names of TARGETS
    needs: ClassVar[Literal["joint", "pooled", "tokens"]]  # the part of Fused it reads
    modalities: ClassVar[tuple[str, ...]]  # those that it cannot do without
    whole_batch: ClassVar[bool]  # whether its loss compares the samples of a batch
    higher_is_better: ClassVar[dict[str, bool]]  # its scalar metrics, by name

    def __call__(self, fused: Fused) -> Answers: ...

    def loss(self, answers: Answers, targets: dict[str, Tensor]) -> Tensor:
        """Mean over the samples of the batch, fp32 scalar."""

    def metrics(self) -> "MetricCollection":
        """Fresh torchmetrics for one evaluation; a scalar becomes `val/<name>`."""

    def update(
        self, metrics: "MetricCollection", answers: Answers, targets: dict[str, Tensor]
    ) -> None: ...

    def words(
        self, answers: Answers, targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        """Each sample's truth and answer for the eye, and whether it is right, if that is clear."""


class Schedule(Protocol):
    """A pure function of the step: factor on optimizer.lr for step 1, 2, ... total."""

    def __call__(self, step: int, total: int) -> float: ...


class Split(Protocol):
    """The samples of one published split, addressable by position.

    It may have more: `lengths`, where it knows the lengths of its texts (mmnet.data.lengths);
    `mixture`, where it is several in one (mmnet.data.order); and what mmnet.data.stream says of
    one that can only be read from its beginning.
    """

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

    offers: ClassVar[tuple[str, ...]]  # what a head may learn from it, names of TARGETS
    names: Names
    on_bad_sample: Literal["skip", "fail"]
    max_bad_fraction: float

    def split(self, name: str, targets: tuple[str, ...]) -> Split:
        """The samples of "train" or "val" with these of `offers`, and texts that suit them."""


class Optimizer(Protocol):
    """What the loop asks of torch.optim.Optimizer and of compositions of them."""

    param_groups: list[dict[str, Any]]  # "lr_scale": its share of the rate, 1 where it is missing

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
