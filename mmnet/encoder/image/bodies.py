"""Networks of timm as towers: which of them fit, in which sizes, and with which weights."""

import logging
import sys
from typing import Any, NamedTuple

import timm
from safetensors import SafetensorError
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from mmnet.encoder import hub, weights
from mmnet.errors import UserError, first_line, nearest


log = logging.getLogger(__name__)

# timm's modules whose models give tokens [B, T, D] and take these sizes: ViT, DeiT, CLIP, SigLIP,
# DINOv2 (all vision_transformer and deit), BEiT, EVA, DINOv3.
TRANSFORMERS = ("vision_transformer", "deit", "beit", "eva")
# Those that give a feature map [B, D, H, W]. Others of timm's have batch norms, by which what
# one sample is answered depends on its neighbours, those that lack their picture among them.
CONVOLUTIONS = ("convnext",)
NAFLEX = ("naflexvit",)

# What timm calls our settings, and where a kind of network calls them otherwise.
WORDS = {
    "patch_size": "patch_size",
    "dim": "embed_dim",
    "depth": "depth",
    "num_heads": "num_heads",
    "reg_tokens": "reg_tokens",
    "output_stride": "output_stride",
    "drop_path": "drop_path_rate",
}
EVA = {"reg_tokens": "num_reg_tokens"}


class Sizes(NamedTuple):
    """Settings that replace the named model's own where they are not None."""

    patch_size: int | None = None
    dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    reg_tokens: int | None = None
    output_stride: int | None = None
    drop_path: float | None = None


def models(modules: tuple[str, ...]) -> list[str]:
    """timm's names of the models of some of its modules; nothing is built."""
    return [name for module in modules for name in timm.list_models(module=module)]


def module_of(name: str, modules: tuple[str, ...], what: str) -> str:
    """Which of `modules` the model is of. Raises UserError, with the nearest name."""
    bare = name.split(".")[0]
    for module in modules:
        if bare in timm.list_models(module=module):
            return module
    key = f"encoder.image.name={name}"
    if not timm.is_model(bare):
        raise UserError(f"{key}: timm has no such model{nearest(bare, models(modules))}")
    raise UserError(
        f"{key}: not {what} of timm's modules {', '.join(modules)}{nearest(bare, models(modules))}"
    )


def create(name: str, module: str, sizes: Sizes, pretrained: str | None = None, **more: Any) -> Any:
    """The named model without its classifier, hub weights included where asked for.

    Raises UserError.
    """
    words = WORDS | (EVA if module == "eva" else {})
    given = {k: value for k, value in sizes._asdict().items() if value is not None}
    if pretrained == "hub":
        hub.look_for_it()
    try:
        body = timm.create_model(
            name,
            pretrained=pretrained == "hub",
            num_classes=0,
            **{words[key]: value for key, value in given.items()},
            **more,
        )
    except AssertionError as error:  # how timm checks that heads divide the width
        raise UserError(f"encoder.image: {name} cannot have these sizes: {error}") from error
    except TypeError as error:  # an argument that this kind of network does not take
        taken = next((k for k in given if f"'{words[k]}'" in str(error)), None)
        word = taken or next((k for k in more if f"'{k}'" in str(error)), None)
        if word is None:
            raise
        value = given.get(word, more.get(word))
        raise UserError(no_such_thing(word, value, name)) from error
    except (RuntimeError, OSError, ValueError, SafetensorError) as error:
        if pretrained is None:
            raise
        raise UserError(
            f"encoder.image.pretrained={pretrained}: cannot load weights for {name}: "
            f"{first_line(error)}"
        ) from error
    return body


def no_such_thing(key: str, value: Any, name: str) -> str:
    off = {bool: "false", float: "0"}.get(type(value), "null")
    return f"encoder.image.{key}={value}: {name} has no such thing; leave it at {off}"


def layers(body: nn.Module) -> list[list[nn.Module | nn.Parameter]]:
    """timm's modules from the input up: what stands before the blocks, each block, the rest."""
    before: list[nn.Module | nn.Parameter] = [p for _, p in body.named_parameters(recurse=False)]
    blocks: list[list[nn.Module | nn.Parameter]] = []
    after: list[nn.Module | nn.Parameter] = []
    for name, child in body.named_children():
        if name == "blocks":
            blocks = [[block] for block in child.children()]
        elif name == "stages":
            for stage in child.children():
                first, *others = stage.get_submodule("blocks").children()
                blocks.append([stage.get_submodule("downsample"), first])
                blocks += [[block] for block in others]
        else:
            (after if blocks else before).append(child)
    return [before, *blocks, after]


def pooling(body: nn.Module, own: nn.Module | None) -> list[nn.Module]:
    """timm's modules behind the tokens, and ours."""
    found = [getattr(body, name, None) for name in ("attn_pool", "fc_norm", "head")]
    return [part for part in (*found, own) if part is not None]


def load(tower: nn.Module, body: Any, file: str) -> weights.Report:
    """Fill a tower from a safetensors file, positions and patches resampled by timm's own code."""

    def adapt(tensors: weights.Tensors) -> weights.Tensors:
        found: dict[str, Tensor] = sys.modules[type(body).__module__].checkpoint_filter_fn(
            tensors, body
        )
        grid = found.get("embeds.pos_embed")  # of NaFlex: [1, H, W, D]
        if grid is not None and grid.ndim == 4:
            wanted = body.embeds.pos_embed.shape[1:3]
            found["embeds.pos_embed"] = resample_abs_pos_embed_nhwc(grid, list(wanted))
        return found

    return weights.load(tower, file, "image", own="body.", adapt=adapt)
