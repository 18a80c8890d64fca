"""Cases of tests/test_settings.py for the fusions."""

from functools import partial

import pytest

from tests.jobs import metrics
from tests.settings import Bench, case, rates, shape, weights


DEEP = ("early", "cross_attention", "bottleneck", "perceiver")
# A tensor of the network, and the size that a word gives it; None: it is there with it only.
SIZES: list[tuple[str, str, str, tuple[int, ...] | None]] = [
    ("gated", "dim=48", "gate.weight", (48, 64)),
    ("film", "dim=48", "modulate.weight", (96, 32)),
    ("tensor", "dim=48", "factors.text.weight", (4 * 48, 32)),
    ("tensor", "rank=3", "factors.text.weight", (3 * 32, 32)),
    *((name, "dim=48", "project.text.1.weight", (48, 32)) for name in DEEP),
    ("early", "depth=3", "blocks.2.norm1.weight", None),
    ("cross_attention", "depth=3", "layers.2.text.block.norm1.weight", None),
    ("cross_attention", "pooling=cls", "cls.text", None),
    ("bottleneck", "depth=3", "layers.2.text.norm1.weight", None),
    ("bottleneck", "num_bottlenecks=7", "bottlenecks", (1, 7, 32)),
    ("perceiver", "depth=3", "layers.2.block.norm1.weight", None),
    ("perceiver", "num_latents=7", "latents", (1, 7, 32)),
]


def has_the_size(
    fusion: str, word: str, tensor: str, size: tuple[int, ...] | None, bench: Bench
) -> None:
    words, tensor = (f"fusion={fusion}", "fusion.dim=32"), f"fusion.{tensor}"
    before, after = bench.job(*words), bench.job(*words, f"fusion.{word}")
    assert tensor in after.model.state_dict()
    if size is None:
        assert tensor not in before.model.state_dict()
    else:
        assert shape(after, tensor) == size != shape(before, tensor)


for _fusion, _word, _tensor, _size in SIZES:
    case(f"fusion.{_fusion}.{_word.partition('=')[0]}")(
        partial(has_the_size, _fusion, _word, _tensor, _size)
    )


def goes_another_way(fusion: str, word: str, bench: Bench) -> None:
    """Other weights by the same learning rates."""
    before = bench.trained(f"fusion={fusion}")
    after = bench.trained(f"fusion={fusion}", f"fusion.{word}")
    assert rates(after) == rates(before)
    assert all(value.isfinite().all() for value in after.model.state_dict().values())
    assert weights(after) != weights(before)


for _fusion, _word in (
    *((name, "num_heads=2") for name in DEEP),
    ("concat", "method=add"),
    ("film", "condition=image"),
    ("cross_attention", "direction=image_to_text"),
):
    case(f"fusion.{_fusion}.{_word.partition('=')[0]}")(partial(goes_another_way, _fusion, _word))


def drops(fusion: str, bench: Bench) -> None:
    """Dropout changes the loss of a training step, and not that of an evaluation."""
    words = (f"fusion={fusion}", "optimizer.lr=1e-30", "trainer.steps=1")
    plain, dropping = bench.trained(*words), bench.trained(*words, "fusion.dropout=0.5")
    assert metrics(plain, "train/loss") != metrics(dropping, "train/loss")
    assert metrics(plain, "val/loss") == pytest.approx(metrics(dropping, "val/loss"))


for _fusion in ("gated", "film", "tensor", *DEEP):
    case(f"fusion.{_fusion}.dropout")(partial(drops, _fusion))
