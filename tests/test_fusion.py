"""Every fusion by its contract: masks, missing modalities, gradients, dropout, compilers."""

from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import Tensor, nn

from mmnet.compose import load
from mmnet.config import CONF
from mmnet.errors import UserError
from mmnet.fusion.early import sinusoids
from mmnet.interfaces import Features, Fused


DIMS = {"image": 24, "text": 16}
TOKENS = {"image": 5, "text": 7}
B = 4
# By file; one that only changes numbers of another is no fusion of its own.
SETTINGS: dict[str, dict[str, Any]] = {
    path.stem: content
    for path in sorted((CONF / "fusion").glob("*.yaml"))
    if "_target_" in (content := yaml.safe_load(path.read_text()))
}
# What the files have no case of.
VARIANTS = {
    "concat": {"add": {"method": "add"}, "attention": {"method": "attention"}},
    "film": {"image": {"condition": "image"}},
    "cross_attention": {
        "cls": {"pooling": "cls"},
        "image_to_text": {"direction": "image_to_text"},
        "text_to_image": {"direction": "text_to_image", "pooling": "cls"},
    },
}
ALL: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in SETTINGS]
ALL += [(name, changes) for name, more in VARIANTS.items() for changes in more.values()]
IDS = [*SETTINGS, *(f"{name} {variant}" for name, more in VARIANTS.items() for variant in more)]
JOINED = [name for name in SETTINGS if get_object(SETTINGS[name]["_target_"]).joins]
# Those that transform tokens; the others hand them on.
DEEP = [name for name in SETTINGS if "depth" in SETTINGS[name]]

JOINED_ALL = [(name, changes) for name, changes in ALL if name in JOINED]

every = pytest.mark.parametrize(("name", "changes"), ALL, ids=IDS)


def fusion(name: str, dims: dict[str, int] = DIMS, **changes: Any) -> Any:
    """In evaluation, small, every weight random: a bias that starts at 0 hides what reads it."""
    small = {"dim": 32, "num_heads": 4, "dropout": 0.0, "num_latents": 6}
    settings = {key: small.get(key, value) for key, value in SETTINGS[name].items()} | changes
    torch.manual_seed(0)
    built = get_object(settings.pop("_target_"))(dims=dims, **settings).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return built


def features(batch: int = B, masked: bool = True, seed: int = 1) -> dict[str, Features]:
    """As encoders make them; texts of 7, 6, 5, ... tokens unless all are as long."""
    torch.manual_seed(seed)
    lengths = TOKENS["text"] - torch.arange(batch) % TOKENS["text"]
    return {
        name: Features(
            torch.randn(batch, TOKENS[name], dim),
            torch.randn(batch, dim),
            torch.arange(TOKENS[name]) < lengths[:, None] if masked and name == "text" else None,
        )
        for name, dim in DIMS.items()
    }


def noise(one: Features, rows: Tensor) -> Features:
    """Other numbers in the rows that are not there, in all that could be looked at."""
    torch.manual_seed(7)
    mask = one.mask
    return Features(
        torch.where(rows[:, None, None], one.tokens, 30 * torch.randn_like(one.tokens)),
        torch.where(rows[:, None], one.pooled, 30 * torch.randn_like(one.pooled)),
        mask if mask is None else torch.where(rows[:, None], mask, torch.rand(mask.shape) < 0.5),
        rows,
    )


def row(features: dict[str, Features], index: int) -> dict[str, Features]:
    """One sample, without what it lacks and without its padding."""
    found = {}
    for name, one in features.items():
        if one.present is None or one.present[index]:
            tokens = one.tokens[index : index + 1]
            if one.mask is not None:
                tokens = tokens[:, one.mask[index]]
            found[name] = Features(tokens, one.pooled[index : index + 1], None)
    return found


def apart(one: Fused, other: Fused, rows: Any = slice(None)) -> float:
    """The largest difference of the rows of `one` from all of `other`, where tokens are real."""
    found = [0.0]
    if one.joint is not None:
        assert one.joint.isfinite().all() and other.joint is not None
        found.append((one.joint[rows] - other.joint).abs().max().item())
    for name, tokens in other.tokens.items():
        seen = one.features[name].visible()
        mine = one.tokens[name][rows]
        if seen is not None:
            real = seen[rows]
            length = int(real.sum(1).max()) if mine.shape[1] != tokens.shape[1] else mine.shape[1]
            mine, tokens, real = mine[:, :length], tokens[:, :length], real[:, :length]
            mine, tokens = mine[real], tokens[real]
        if mine.numel():
            found.append((mine - tokens).abs().max().item())
    return max(found)


@pytest.fixture(autouse=True)
def _no_grad(request: pytest.FixtureRequest) -> Any:
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


# Shapes


@every
def test_shapes(name: str, changes: dict[str, Any]) -> None:
    built, given = fusion(name, **changes), features()
    fused = built(given)
    assert fused.features is given and list(fused.tokens) == list(DIMS) == list(built.token_dims)
    for modality, tokens in fused.tokens.items():
        assert tokens.shape == (B, TOKENS[modality], built.token_dims[modality])
        if name not in DEEP:
            assert tokens is given[modality].tokens and built.token_dims[modality] == DIMS[modality]
    if built.joins:
        assert built.dim == 32 and fused.joint.shape == (B, 32)
    else:
        assert built.dim == 0 and fused.joint is None
        assert not list(built.parameters())


@every
def test_the_order_of_the_modalities_is_that_of_the_encoders(name: str, changes: Any) -> None:
    built, given = fusion(name, **changes), features()
    backwards = dict(reversed(given.items()))
    assert apart(built(given), built(backwards)) == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_one_encoder_is_enough_or_is_refused(name: str) -> None:
    dims = {"text": DIMS["text"]}
    if get_object(SETTINGS[name]["_target_"]).modalities == 1:
        fused = fusion(name, dims)({"text": features()["text"]})
        assert list(fused.tokens) == ["text"]
    else:
        with pytest.raises(UserError, match=r"joins .* and the encoders are: text$"):
            fusion(name, dims)


@pytest.mark.parametrize("name", DEEP)
def test_heads_that_do_not_divide_the_width_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"fusion\.num_heads=5: .* fusion\.dim=30 would do"):
        fusion(name, num_heads=5)


# Masks


@every
def test_padding_changes_nothing(name: str, changes: dict[str, Any]) -> None:
    """Each sample by itself, as short as it is; and behind more padding, full of noise."""
    built, given = fusion(name, **changes), features()
    together = built(given)
    for index in range(B):
        alone = built(row(given, index))
        assert apart(together, alone, slice(index, index + 1)) < 1e-5
    text: Any = given["text"]
    longer = text._replace(
        tokens=torch.cat([text.tokens, 30 * torch.randn(B, 3, DIMS["text"])], 1),
        mask=nn.functional.pad(text.mask, (0, 3)),
    )
    padded = built(given | {"text": longer})
    short = padded._replace(
        tokens=padded.tokens | {"text": padded.tokens["text"][:, : TOKENS["text"]]}
    )
    assert apart(together, short) < 1e-5


@every
def test_permuting_the_batch_permutes_the_result(name: str, changes: dict[str, Any]) -> None:
    built, given = fusion(name, **changes), features()
    given["text"] = given["text"]._replace(present=torch.tensor([True, False, True, True]))
    order = torch.tensor([2, 0, 3, 1])
    permuted = {
        modality: Features(*[x if x is None else x[order] for x in one])  # type: ignore[arg-type]
        for modality, one in given.items()
    }
    assert apart(built(given), built(permuted), order) < 1e-5


# Missing modalities


@every
@pytest.mark.parametrize("left", DIMS)
def test_a_modality_that_nobody_has_is_as_good_as_no_key(
    name: str, changes: dict[str, Any], left: str
) -> None:
    built, given = fusion(name, **changes), features()
    absent = next(modality for modality in DIMS if modality != left)
    alone = built({left: given[left]})
    assert list(alone.tokens) == [left]
    nobody = noise(given[absent], torch.zeros(B, dtype=torch.bool))
    assert apart(built(given | {absent: nobody}), alone) < 1e-5
    if built.joins:  # and it is another answer than that to both
        assert (built(given).joint - alone.joint).abs().max() > 1e-3


@every
def test_what_stands_in_missing_rows_is_never_seen(name: str, changes: dict[str, Any]) -> None:
    """Every sample of a mixed batch gets what it gets by itself."""
    built, given = fusion(name, **changes), features()
    mixed = {
        "image": noise(given["image"], torch.tensor([True, False, True, True])),
        "text": noise(given["text"], torch.tensor([False, True, True, False])),
    }
    together = built(mixed)
    for index in range(B):
        assert apart(together, built(row(mixed, index)), slice(index, index + 1)) < 1e-5


@every
def test_a_row_of_nothing_is_finite_in_the_answer_and_the_gradient(
    name: str, changes: dict[str, Any]
) -> None:
    """Also a text without a single token; and the other rows do not notice."""
    built, given = fusion(name, **changes), features()
    nobody = torch.tensor([True, True, True, False])
    empty = given["text"].mask.clone()
    empty[1:] = False
    given = {
        "image": given["image"]._replace(present=nobody),
        "text": given["text"]._replace(present=nobody, mask=empty),
    }
    fused = built(given)
    assert apart(fused, built(row(given, 0)), slice(0, 1)) < 1e-5
    if built.joins:
        fused.joint.square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in built.parameters())


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("modality", DIMS)
def test_the_joint_vector_depends_on_each_modality(name: str, modality: str) -> None:
    built, given = fusion(name), features()
    other = given | {modality: features(seed=2)[modality]}
    assert (built(given).joint - built(other).joint).abs().amax(1).min() > 1e-3


# Gradients


@pytest.mark.parametrize(
    ("name", "changes"), JOINED_ALL, ids=[x for x in IDS if x.split()[0] in JOINED]
)
def test_every_parameter_gets_a_finite_gradient_from_the_joint_vector(
    name: str, changes: dict[str, Any]
) -> None:
    built = fusion(name, **changes).train()
    built(features()).joint.square().sum().backward()
    for key, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", DEEP)
def test_recomputing_gives_the_same_gradients_and_keeps_fewer_activations(name: str) -> None:
    plain, frugal = (fusion(name, depth=4, dropout=0.1).train() for _ in range(2))
    frugal.checkpoint_activations()
    kept, computed = [], []
    for built in (plain, frugal):
        sizes: list[int] = []
        calls: list[int] = []
        for layer in built.modules():
            if isinstance(layer, nn.GELU):  # one in each block
                layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        given = features()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            fused = built(given)
            everything = (fused.joint, *fused.tokens.values())
            loss = sum(x.square().mean() for x in everything)
        loss.backward()
        kept.append(sum(sizes))
        computed.append(len(calls))
    assert computed[1] == 2 * computed[0] > 0
    assert kept[1] < kept[0] / 2
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() < 1e-6


@pytest.mark.parametrize("name", DEEP)
def test_an_evaluation_recomputes_nothing(name: str) -> None:
    built = fusion(name)
    built.checkpoint_activations()
    calls: list[int] = []
    for layer in built.modules():
        if isinstance(layer, nn.GELU):
            layer.register_forward_hook(lambda *_: calls.append(1))
    with torch.enable_grad():
        joint = built(features()).joint
        before = len(calls)
        joint.sum().backward()
    assert len(calls) == before > 0


# Dropout, precision, compilers


@pytest.mark.parametrize("name", [name for name in SETTINGS if "dropout" in SETTINGS[name]])
def test_dropout_works_in_training_and_nowhere_else(name: str) -> None:
    built, given = fusion(name, dropout=0.3), features()
    assert torch.equal(built(given).joint, built(given).joint)
    built.train()
    assert (built(given).joint - built(given).joint).abs().max() > 1e-3
    for place, layer in built.named_modules():
        if isinstance(layer, nn.Dropout):  # of what attention gives, not of its weights
            assert layer.p == (0 if place.endswith("attn_drop") else 0.3), place
    if name in DEEP:  # of the projected tokens as well
        assert (built.project["image"](given["image"].tokens) == 0).float().mean() > 0.2
    sure = fusion(name, dropout=0.0).train()
    assert torch.equal(sure(given).joint, sure(given).joint)


@every
def test_bf16_comes_near_fp32(name: str, changes: dict[str, Any]) -> None:
    built, given = fusion(name, **changes), features()
    given["text"] = given["text"]._replace(present=torch.tensor([True, False, True, True]))
    exact = built(given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = built(given)
    scale = max(x.abs().max().item() for x in exact.tokens.values())
    assert apart(rough, exact) < 0.05 * max(1.0, scale)


@pytest.mark.train
@every
def test_it_compiles_without_a_break(name: str, changes: dict[str, Any]) -> None:
    built, given = fusion(name, **changes), features()
    torch._dynamo.reset()
    compiled = torch.compile(built, fullgraph=True, backend="eager")
    assert apart(compiled(given), built(given)) < 1e-5
    given["image"] = given["image"]._replace(present=torch.tensor([True, False, True, True]))
    assert apart(compiled(given), built(given)) < 1e-5


@pytest.mark.train
@pytest.mark.parametrize("name", DEEP)
def test_it_compiles_with_recomputed_activations(name: str) -> None:
    plain, frugal = (fusion(name).train() for _ in range(2))
    frugal.checkpoint_activations()
    torch._dynamo.reset()
    with torch.enable_grad():
        plain(features()).joint.sum().backward()
        torch.compile(frugal, fullgraph=True, backend="eager")(features()).joint.sum().backward()
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() < 1e-4


@pytest.mark.train
@every
def test_it_exports_for_any_number_of_samples(name: str, changes: dict[str, Any]) -> None:
    """What the ONNX exporter does first. Who is present is an input like the others."""

    class Flat(nn.Module):
        """Tensors in, tensors out."""

        def __init__(self) -> None:
            super().__init__()
            self.built = fusion(name, **changes)

        def forward(self, image: Any, text: Any) -> list[Tensor]:
            fused = self.built({"image": Features(*image), "text": Features(*text)})
            return [*fused.tokens.values(), *([] if fused.joint is None else [fused.joint])]

    def inputs(batch: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        given = features(batch)
        there = torch.arange(batch) != 1
        return tuple(given["image"]), (*given["text"][:3], there)

    size = torch.export.Dim("batch", min=2)
    image = ({0: size}, {0: size}, None, None)
    text = ({0: size}, {0: size}, {0: size}, {0: size})
    program = torch.export.export(Flat(), inputs(B), dynamic_shapes=(image, text), strict=False)
    for one, other in zip(program.module()(*inputs(6)), Flat()(*inputs(6)), strict=True):
        assert (one - other).abs().max() < 1e-5


# What each one says of itself


def test_gated_is_the_formula_of_the_paper() -> None:
    built, given = fusion("gated"), features()
    x, y = (built.norms[name](given[name].pooled) for name in DIMS)
    z = built.gate(torch.cat([x, y], 1)).sigmoid()
    hidden = z * built.values["image"](x).tanh() + (1 - z) * built.values["text"](y).tanh()
    assert (built(given).joint - hidden).abs().max() < 1e-6
    alone = built.values["text"](y).tanh()
    assert (built({"text": given["text"]}).joint - alone).abs().max() < 1e-6


@pytest.mark.parametrize("condition", DIMS)
def test_film_without_its_condition_changes_nothing_and_without_its_object_only_shifts(
    condition: str,
) -> None:
    built, given = fusion("film", condition=condition), features()
    modulated = next(name for name in DIMS if name != condition)
    x = built.project(built.norms[modulated](given[modulated].pooled))
    scale, shift = built.modulate(built.norms[condition](given[condition].pooled)).split(32, 1)
    assert (built(given).joint - built.mlp((1 + scale) * x + shift)).abs().max() < 1e-6
    assert (built({modulated: given[modulated]}).joint - built.mlp(x)).abs().max() < 1e-6
    assert (built({condition: given[condition]}).joint - built.mlp(shift)).abs().max() < 1e-6


def test_tensor_is_linear_in_the_outer_product_of_both_with_a_one() -> None:
    built, given = fusion("tensor", rank=3), features()
    outer, weights = [], []
    for name in DIMS:
        x = built.norms[name](given[name].pooled)
        outer.append(torch.cat([x, torch.ones(B, 1)], 1))
        factor = built.factors[name]
        weights.append(torch.cat([factor.weight, factor.bias[:, None]], 1).view(3, 32, -1))
    full = torch.einsum("rdi,rdj->dij", *weights) / 3**0.5
    joint = torch.einsum("dij,bi,bj->bd", full, *outer)
    assert (built(given).joint - joint).abs().max() < 1e-5
    outer[1][:, :-1] = 0
    alone = torch.einsum("dij,bi,bj->bd", full, *outer)
    assert (built({"image": given["image"]}).joint - alone).abs().max() < 1e-5


def test_early_tells_the_modalities_apart_by_their_embedding_alone() -> None:
    built = fusion("early", {"image": 16, "text": 16})
    built.project["text"].load_state_dict(built.project["image"].state_dict())
    built.position["text"].copy_(built.position["image"])
    one = features()["text"]
    found = [built({name: one}).joint for name in ("image", "text")]
    assert (found[0] - found[1]).abs().max() > 1e-3
    built.modality["text"].copy_(built.modality["image"])
    found = [built({name: one}).joint for name in ("image", "text")]
    assert (found[0] - found[1]).abs().max() < 1e-6


def test_early_sees_the_order_of_tokens_and_texts_of_any_length() -> None:
    built, given = fusion("early"), features(masked=False)
    text = given["text"]
    turned = given | {"text": text._replace(tokens=text.tokens.flip(1))}
    assert (built(given).joint - built(turned).joint).abs().max() > 1e-3
    long = Features(torch.randn(2, 3000, DIMS["text"]), torch.randn(2, DIMS["text"]), None)
    assert built({"text": long}).tokens["text"].shape == (2, 3000, 32)


def test_places_are_sinusoids() -> None:
    found = sinusoids(torch.zeros(1, 50, 7))
    assert found.shape == (50, 7) and found[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert torch.allclose(found[:, 0], torch.arange(50.0).sin(), atol=1e-4)
    assert torch.allclose(found[:, 5], (torch.arange(50.0) * 10_000**-0.25).cos(), atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("direction", ["both", "image_to_text", "text_to_image"])
def test_cross_attention_goes_where_the_arrow_points(direction: str, pooling: str) -> None:
    built, given = fusion("cross_attention", direction=direction, pooling=pooling), features()
    fused = built(given)
    for source, target in [("image", "text"), ("text", "image")]:
        other = built(given | {source: features(seed=2)[source]})
        moved = (fused.tokens[target] - other.tokens[target]).abs().amax((1, 2))
        pointed_at = direction in ("both", f"{source}_to_{target}")
        assert (moved.min() > 1e-3) if pointed_at else (moved.max() == 0)


@pytest.mark.parametrize("name", DEEP)
def test_each_token_knows_of_the_other_modality(name: str) -> None:
    built, given = fusion(name), features()
    fused = built(given)
    for source, target in [("image", "text"), ("text", "image")]:
        other = built(given | {source: features(seed=2)[source]})
        assert (fused.tokens[target] - other.tokens[target]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize(("bottlenecks", "enough"), [(1, False), (4, True)])
def test_modalities_exchange_only_what_fits_through_the_bottleneck(
    bottlenecks: int, enough: bool
) -> None:
    """The image tokens' slope by the text has the rank of the bottleneck: dim a token, at most."""
    built = fusion("bottleneck", num_bottlenecks=bottlenecks, dim=8, num_heads=2).double()
    given = {
        name: Features(one.tokens[:1].double(), one.pooled[:1].double(), None)
        for name, one in features().items()
    }

    def image(text: Tensor) -> Tensor:
        tokens = given | {"text": given["text"]._replace(tokens=text)}
        return built(tokens).tokens["image"].flatten()

    with torch.enable_grad():
        slope: Any = torch.autograd.functional.jacobian(image, given["text"].tokens)
    rank = int(torch.linalg.matrix_rank(slope.flatten(1)))
    assert (rank > 8) == enough and rank <= 8 * bottlenecks


def test_a_bottleneck_of_one_layer_lets_nothing_through_and_is_refused() -> None:
    with pytest.raises(UserError, match=r"fusion\.depth=1.*at least 2"):
        load("fusion=bottleneck", "fusion.depth=1")


def test_perceiver_costs_as_many_latents_as_it_is_given() -> None:
    built, given = fusion("perceiver", num_latents=3), features()
    sizes: list[int] = []
    for layer in built.layers:
        layer.register_forward_hook(lambda _, args, out: sizes.append(out.shape[1]))
    built(given)
    assert sizes == [3] * len(built.layers)
