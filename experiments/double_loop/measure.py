"""One run of the study and what is measured of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from mmnet.assembly import assemble
from mmnet.compose import composed
from mmnet.data.loader import eval_batches
from mmnet.folder import clear
from mmnet.session import run_training
from mmnet.track.recorder import read


MOST = 1000  # samples that a probe is fitted to


def measured(words: list[str], *, unequal: bool) -> dict[str, Any]:
    """Train, and read the run folder; `unequal`: fit a linear probe to each tower as well."""
    asked = composed(*words)
    folder = Path(asked.run.paths.output) / "run"
    folder.mkdir(parents=True)
    run_training(asked.run, folder, asked.text)
    summary = json.loads((folder / "summary.json").read_text())
    lines = list(read(folder))
    losses = [line["train/loss"] for line in lines if line.get("train/loss") is not None]
    events = folder / "controller.jsonl"
    told = events.read_text() if events.is_file() else ""
    found = {
        "final": summary["final"],
        "best": summary["best"],
        "curve": [
            {"step": line["step"], **{k: v for k, v in line.items() if k.startswith("val/")}}
            for line in lines
            if "val/loss" in line
        ],
        "train_loss": float(np.mean(losses[-max(1, len(losses) // 20) :])),
        "in_steps": summary["seconds_in_steps"],
        "skipped_steps": summary["skipped_steps"],
        "interventions": told.count('"controller/restored"') + told.count("fallen_back"),
    }
    if unequal:
        found["probes"] = probes(asked.run, folder)
    clear(folder)
    return found


@torch.inference_mode()
def probes(run: Any, folder: Path) -> dict[str, float]:
    """Validation accuracy of a logistic regression on what each tower pools."""
    from safetensors.torch import load_file

    again = folder / "probe"
    again.mkdir()
    job = assemble(run, again)
    job.model.load_state_dict(load_file(folder / "model.safetensors"))
    job.model.eval()

    def features(split: Any, name: str) -> tuple[Any, Any]:
        pooled, labels, seen = [], [], 0
        encoder = job.model.encoders[name]
        for one in eval_batches(
            split, job.reading, batch_size=64, num_workers=0, device=job.machine.device
        ):
            if one.batch is None or seen >= MOST:
                break
            pooled.append(encoder(one.batch.inputs[name]).pooled)
            labels.append(one.batch.targets["label"])
            seen += one.batch.size
        return torch.cat(pooled).numpy(), torch.cat(labels).numpy()

    found = {}
    for name in job.model.encoders:
        x, y = features(job.train, name)
        mean, std = x.mean(0), x.std(0) + 1e-6
        fitted = LogisticRegression(max_iter=500, C=0.1).fit((x - mean) / std, y)
        x, y = features(job.val, name)
        found[name] = float(fitted.score((x - mean) / std, y))
    return found
