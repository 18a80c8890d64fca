"""mmnet: compose, train and compare image+text networks.

In Python, without a command line:

    mmnet.fit("model=late_fusion", "trainer.steps=600")   train; returns what `load` returns
    mmnet.load("outputs/late_fusion/2026-...")            a trained network, ready to answer
    mmnet.build("model=late_fusion")                      a network with fresh weights
    mmnet.part("encoder/image=vit_mini", dim=64)          one part of it
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from mmnet.library import Trained, build, fit, load, part
    from mmnet.model import Multimodal

__all__ = ["Multimodal", "Trained", "build", "fit", "load", "part"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late, so that `--help` and errors in a config do not wait for torch.
    if name == "Multimodal":
        from mmnet.model import Multimodal

        return Multimodal
    if name in __all__:
        from mmnet import library

        return getattr(library, name)
    raise AttributeError(f"module 'mmnet' has no attribute '{name}'")
