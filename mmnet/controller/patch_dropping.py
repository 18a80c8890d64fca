"""Pictures of which only some patches are looked at, for most of the run."""

from typing import Any

from timm.layers.patch_dropout import PatchDropout
from torch import nn

from mmnet.bounds import Fraction, Share
from mmnet.errors import UserError
from mmnet.outer import Plan


class PatchDropping:
    """In training a random `share` of the patches is left out, until share `until` of the run.

    As in FLIP (Li et al., arXiv 2212.00794), whose last steps see whole pictures too.
    """

    def __init__(self, share: Fraction, until: Share) -> None:
        self.share, self.until = share, until

    def begin(self, plan: Plan) -> None:
        """Raises UserError for encoders that cannot do without some of their patches."""
        self.last = round(self.until * plan.steps)
        self.dropout: PatchDropout | None = None
        if not self.share:
            return
        encoders = dict(plan.model.encoders.items())
        body: Any = getattr(encoders.get("image"), "body", None)
        if not isinstance(getattr(body, "patch_drop", None), nn.Module):
            raise UserError(
                f"controller.drop_patches.share={self.share}: there is no image encoder whose "
                f"patches could be left out (those of timm's ViT could); set it to 0"
            )
        self.dropout = PatchDropout(self.share, num_prefix_tokens=body.num_prefix_tokens)
        body.patch_drop = self.dropout

    def prepare(self, step: int) -> dict[str, float]:
        """Before step `step`, counted from 0. -> what happened, for the record."""
        if self.dropout is None or step < self.last or not self.dropout.prob:
            return {}
        self.dropout.prob = 0.0
        return {"whole_pictures": 1.0}

    def state_dict(self) -> dict[str, Any]:
        return {"share": 0.0 if self.dropout is None else self.dropout.prob}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.dropout is not None:
            self.dropout.prob = state["share"]
