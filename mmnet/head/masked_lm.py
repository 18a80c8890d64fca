"""Words hidden in the text, restored from what is left and from the image."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Range
from mmnet.data.masking import HideTokens
from mmnet.errors import UserError
from mmnet.interfaces import IGNORED, Fused, Names


if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class MaskedLM(nn.Module):
    """A distribution over the vocabulary for each token (BERT, Devlin et al., arXiv 1810.04805).

    Each text token is projected, together with the joint vector where the fusion makes one:
    that is how the image comes in. forward: tokens of the text [B, T, D], joint [B, dim] ->
    logits [B, T, vocab_size]; without a text T is 0. Loss: mean over a text's hidden tokens,
    then over samples; one without a hidden token costs nothing.

    Raises UserError when the text encoder's vocabulary has no mask token.
    """

    targets: ClassVar[tuple[str, ...]] = ("tokens",)
    needs: ClassVar[Literal["tokens"]] = "tokens"
    modalities: ClassVar[tuple[str, ...]] = ("text",)
    whole_batch: ClassVar[bool] = False
    higher_is_better: ClassVar[dict[str, bool]] = {"perplexity": False, "accuracy": True}

    def __init__(
        self,
        dim: int,
        token_dims: dict[str, int],
        fusion: Any,
        words: Any,
        mask_probability: Annotated[float, Range(0, 1, open=True, says="a number between 0 and 1")],
    ) -> None:
        super().__init__()
        if words.mask_id is None:
            raise UserError(
                "encoder.text.tokenizer: masked_lm hides words, and this vocabulary has no mask "
                "token to put in their place: choose another one, or encoder/text=bytes"
            )
        self.hide = HideTokens(words, mask_probability)
        self.vocabulary = words
        width = token_dims["text"]
        self.text = nn.Linear(width, width)
        self.joint = nn.Linear(dim, width, bias=False) if fusion.joins else None
        self.logits = nn.Sequential(
            nn.GELU(), nn.LayerNorm(width), nn.Linear(width, words.vocab_size)
        )

    def forward(self, fused: Fused) -> Tensor:
        if "text" not in fused.tokens:
            some = next(iter(fused.tokens.values()))
            return some.new_zeros(len(some), 0, self.vocabulary.vocab_size)
        x = self.text(fused.tokens["text"])
        if self.joint is not None:
            x = x + self.joint(fused.joint)[:, None]
        logits: Tensor = self.logits(x)
        return logits

    def loss(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        tokens = targets["tokens"]
        hidden = tokens != IGNORED  # [B, T]
        # Of the hidden ones only: in fp32, all logits of a large vocabulary are gigabytes.
        each = F.cross_entropy(logits[hidden].float(), tokens[hidden], reduction="none")
        share = 1 / hidden.sum(1, keepdim=True).clamp_min(1)
        return (each * share.expand_as(hidden)[hidden]).sum() / len(tokens)

    def metrics(self) -> "MetricCollection":
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        from mmnet.head.scores import TokenPerplexity

        accuracy = MulticlassAccuracy(
            self.vocabulary.vocab_size, average="micro", validate_args=False
        )
        return MetricCollection(
            {"perplexity": TokenPerplexity(), "accuracy": accuracy}, compute_groups=False
        )

    def update(
        self, metrics: "MetricCollection", logits: Tensor, targets: dict[str, Tensor]
    ) -> None:
        hidden = targets["tokens"] != IGNORED
        if hidden.any():
            metrics.update(logits[hidden].float(), targets["tokens"][hidden])

    def words(
        self, logits: Tensor, targets: dict[str, Tensor], names: Names
    ) -> list[tuple[str, str, bool | None]]:
        """The hidden tokens of each text, in a row."""
        shown: list[tuple[str, str, bool | None]] = []
        for row, tokens in zip(logits, targets["tokens"], strict=True):
            hidden = tokens != IGNORED
            truth, answer = tokens[hidden].tolist(), row[hidden].argmax(-1).tolist()
            text = self.vocabulary.text
            shown.append((text(truth), text(answer), truth == answer if truth else None))
        return shown
