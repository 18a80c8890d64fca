"""What a controller did and why: `python -m mmnet.controller.report <run folder>`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mmnet.controller import shipped
from mmnet.controller.features import ACTIONS, FEATURES
from mmnet.controller.policy import Policy
from mmnet.errors import UserError, first_line, report
from mmnet.report import timeline
from mmnet.report.timeline import DECISIONS, Decisions


# What the policy reads, in words.
MEANS = {
    "rho": "the size of a step against the weights",
    "cos_fast": "agreement of gradient and last step",
    "cos_slow": "agreement of gradients and steps lately",
    "cos_all": "agreement over all groups",
    "grad_growth": "growth of the gradient",
    "grad_share": "its share of the gradient",
    "u_rms": "signal to noise of the gradient",
    "weight_growth": "growth of the weights",
    "loss_fast": "the course of the training loss",
    "loss_slow": "the slow course of the training loss",
    "loss_level": "the level of the training loss",
    "loss_gap": "training loss above its best",
    "gap": "the generalisation gap",
    "gap_growth": "growth of the generalisation gap",
    "meta_rise": "meta-batch loss above its best",
    "worth": "what the meta-batch loses without the modality",
    "worth_share": "its worth against the other modality's",
    "time": "time",
    "early": "the beginning of the run",
    "late": "the end of the run",
    "left": "what is left of the run",
    "log_steps": "the length of the run",
    "log_passes": "the number of passes over the data",
    "action": "the multiplier in force",
    "strength": "the strength of regularisation in force",
    "dropout": "the dropout in force",
    "tower": "its being an encoder",
    "fusion": "its being the fusion",
}


def why(policy: Policy, found: Decisions) -> dict[str, str]:
    """By group: which features its rate followed most, and the share of the LSTM's memory."""
    told = {}
    for group in found.groups:
        rows = np.stack([found.of(group, name) for name in FEATURES], 1)
        rows = rows[np.isfinite(rows).all(1)]
        if len(rows) < 2:
            continue
        features = torch.tensor(rows, dtype=torch.float32)[:, None, None]  # [N, 1, 1, F]
        skip = policy.weights["skip"][0, :, ACTIONS.index("rate")]
        # What varies: the mean of a feature is only an offset.
        parts = (features[:, 0, 0] * skip).std(0)
        most = [FEATURES[i] for i in parts.argsort(descending=True)[:3].tolist()]
        text = f"Its changes followed most {', '.join(MEANS[name] for name in most)}"
        if policy.kind == "lstm":
            state, whole = policy.start(1), []
            for row in features:
                out, state = policy.act(row, state)
                whole.append(out[0, 0, ACTIONS.index("rate")])
            plain = features[:, 0, 0] @ skip + policy.weights["bias"][0, 0, ACTIONS.index("rate")]
            own = (torch.stack(whole) - plain).std()
            text += f"; the LSTM's part of it was {own / (own + parts.max()):.0%}"
        told[group] = f"{text}."
    return told


def write(folder: Path) -> list[str]:
    """plots/controller.png and controller.html of a run folder; returns the words.

    Raises UserError for a folder that has no decisions.
    """
    found = timeline.read(folder)
    config = settings(folder)
    part = config["controller"]
    ablation = part["ablation"]  # whatever decides has it
    reasons: dict[str, str] = {}
    try:
        policy = shipped.find(str(part["policy"]), int(part["hidden_dim"]))
        if ablation != "permuted":
            reasons = why(policy, found)
    except UserError as error:
        reasons = dict.fromkeys(found.groups, f"(Why is not known: {first_line(error)}.)")
    sentences = timeline.words(found, reasons)
    if ablation != "none":
        sentences.insert(0, f"controller.ablation={ablation}: a control, for comparison.")
    picture = timeline.draw(folder, found)
    timeline.page(folder, picture, sentences, f"{config['model']['name']}: what the controller did")
    return sentences


def settings(folder: Path) -> dict[str, Any]:
    """config.yaml of a run folder. Raises UserError."""
    try:
        found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no run folder: it has no readable config.yaml") from error
    return found


def decided(folder: Path) -> bool:
    """Whether a controller decided anything in a run."""
    path = folder / DECISIONS
    return path.is_file() and path.stat().st_size > 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mmnet.controller.report",
        description="Say what the controller of a run did and why, and draw it: "
        "plots/controller.png and controller.html in its folder.",
    )
    parser.add_argument("run", type=Path, help="a run folder")
    args = parser.parse_args()
    try:
        for sentence in write(args.run):
            print(sentence)
        print(f"\n{args.run / timeline.PAGE}")
    except UserError as error:
        print(report(error), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
