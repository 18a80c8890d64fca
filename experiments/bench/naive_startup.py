"""The training script one writes first, up to the end of its first step; see startup.py.

    python naive_startup.py STAMP EVERYTHING OVERRIDES...

It builds the network of mmnet's config from mmnet's parts, and does all else by hand: every
import at the top, MLflow in the same process, plain fp32. Its batch is random numbers, which
cost less than data do. EVERYTHING=1 imports transformers whether it is needed or not.
"""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hydra  # noqa: I001 - in the order of the script that stands for many
import mlflow
import timm  # noqa: F401
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

if sys.argv[2] == "1":
    from transformers import BertModel  # noqa: F401

from experiments.bench.stamp import leave
from mmnet.interfaces import Inputs


STAMP = sys.argv[1]
CONF = str(Path(__file__).resolve().parents[2] / "conf")


@hydra.main(config_path=CONF, config_name="train", version_base=None)
def main(cfg: DictConfig) -> None:
    mlflow.set_tracking_uri(cfg.tracker.uri)
    mlflow.set_experiment(cfg.tracker.experiment)
    mlflow.start_run(run_name=cfg.name)
    mlflow.log_params(flat(OmegaConf.to_container(cfg, resolve=True)))

    torch.manual_seed(cfg.seed)
    encoders = {
        name: instantiate(part, _convert_="all") for name, part in cfg.encoder.items() if part
    }
    fusion = instantiate(cfg.fusion, dims={name: part.dim for name, part in encoders.items()})
    head = instantiate(cfg.head, dim=fusion.dim)
    parts = torch.nn.ModuleList([*encoders.values(), fusion, head])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=cfg.optimizer.lr)

    size, count = cfg.dataset.image_size, cfg.trainer.batch_size
    image = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
    words = torch.randint(5, 250, (count, 40))
    inputs = {"image": Inputs(image, None), "text": Inputs(words, words >= 0)}
    labels = torch.randint(cfg.head.num_classes, (count,))
    logits = head(fusion({name: part(inputs[name]) for name, part in encoders.items()}))
    torch.nn.functional.cross_entropy(logits, labels).backward()
    optimizer.step()
    leave(STAMP)


def flat(tree: object, prefix: str = "") -> dict[str, object]:
    """Dotted names for mlflow.log_params."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


if __name__ == "__main__":
    sys.argv[1:3] = []
    main()
