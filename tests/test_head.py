"""Every head: its loss by its formula, its metrics by counting, its place in a real network."""

import copy
import importlib.util
import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    f1_score,
    r2_score,
    roc_auc_score,
)
from torch.nn import functional as F

from mmnet.assembly import assemble, check_parts
from mmnet.compose import load
from mmnet.data.loader import TrainStep, eval_batches, train_steps
from mmnet.errors import ConfigError, UserError
from mmnet.evaluation import evaluate
from mmnet.gradients import accumulate
from mmnet.head.classification import Classification
from mmnet.head.contrastive import MAX_SCALE, Contrastive
from mmnet.head.masked_lm import MaskedLM
from mmnet.head.matching import Matching, nearest
from mmnet.head.multilabel import Multilabel
from mmnet.head.regression import Regression
from mmnet.head.retrieval import Retrieval
from mmnet.interfaces import IGNORED, Features, Fused, Names, Sample
from mmnet.job import Job
from mmnet.pictures import examples
from mmnet.stop import Stop


def classification(**changes: Any) -> Classification:
    settings: dict[str, Any] = {
        "num_classes": 4,
        "class_weights": None,
        "label_smoothing": 0.0,
        "focal_gamma": 0.0,
        "dropout": 0.0,
    }
    return Classification(dim=8, **settings | changes)


def multilabel(**changes: Any) -> Multilabel:
    settings: dict[str, Any] = {
        "num_labels": 5,
        "loss": "bce",
        "gamma_negative": 4.0,
        "gamma_positive": 1.0,
        "clip": 0.05,
        "positive_weight": 1.0,
        "dropout": 0.0,
    }
    return Multilabel(dim=8, **settings | changes)


def regression(**changes: Any) -> Regression:
    settings: dict[str, Any] = {
        "value_mean": 50.0,
        "value_std": 20.0,
        "loss": "mse",
        "huber_delta": 0.7,
        "quantile": 0.9,
        "dropout": 0.0,
    }
    return Regression(dim=8, **settings | changes)


def contrastive(loss: Any = "infonce") -> Contrastive:
    return Contrastive({"image": 6, "text": 7}, loss, embed_dim=16)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# One label


def test_classification_is_cross_entropy() -> None:
    logits, label = 3 * torch.randn(10, 4), torch.randint(4, (10,))
    for smoothing in (0.0, 0.2):
        expected = F.cross_entropy(logits, label, label_smoothing=smoothing)
        found = classification(label_smoothing=smoothing).loss(logits, {"label": label})
        assert (found - expected).abs() < 1e-6


def test_class_weights_have_a_mean_of_one_and_do_not_depend_on_the_micro_batch() -> None:
    head = classification(class_weights=[1.0, 2.0, 3.0, 10.0])
    logits, label = torch.randn(8, 4), torch.tensor([0, 0, 0, 0, 3, 3, 1, 2])
    each = F.cross_entropy(logits, label, reduction="none")
    weight = torch.tensor([0.25, 0.5, 0.75, 2.5])[label]
    whole = head.loss(logits, {"label": label})
    assert (whole - (weight * each).sum() / 8).abs() < 1e-6
    halves = [head.loss(logits[half], {"label": label[half]}) for half in (slice(4), slice(4, 8))]
    assert (whole - sum(halves) / 2).abs() < 1e-6
    assert "class_weights" not in head.state_dict()


def test_as_many_class_weights_as_classes() -> None:
    with pytest.raises(UserError, match=r"head\.class_weights: 3 numbers.*must be 4, or null"):
        classification(class_weights=[1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match=r"head\.tasks\.label\.class_weights: 1 numbers"):
        check_parts(load("head=multitask", "head.tasks.label.class_weights=[2]"))


def test_focal_loss_spares_what_is_answered_well() -> None:
    logits, label = 3 * torch.randn(10, 4), torch.randint(4, (10,))
    p = logits.softmax(-1)[torch.arange(10), label]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    found = classification(focal_gamma=2.0).loss(logits, {"label": label})
    assert (found - expected).abs() < 1e-6
    sure = torch.tensor([[200.0, 0, 0, 0]], requires_grad=True)
    classification(focal_gamma=0.5).loss(sure, {"label": torch.tensor([0])}).backward()
    assert sure.grad.isfinite().all()


def test_classification_metrics_agree_with_scikit_learn_where_a_class_is_absent() -> None:
    head = classification(num_classes=7)
    metrics = head.metrics()
    logits = torch.randn(60, 7)
    label = torch.where(torch.rand(60) < 0.5, logits.argmax(1), torch.randint(6, (60,)))
    label[label == 6] = 0  # class 6 is never true
    # The first batch has no mistake, and its logits lie in [0, 1].
    logits = torch.cat([0.9 * torch.eye(7)[:6], logits])
    label = torch.cat([torch.arange(6), label])
    for rows in (slice(6), slice(6, 66)):
        head.update(metrics, logits[rows], {"label": label[rows]})
    found = metrics.compute()
    chances = logits.softmax(1).numpy()
    areas = [roc_auc_score(label == one, chances[:, one]) for one in range(6)]
    assert found["auroc"].item() == pytest.approx(np.mean(areas), abs=1e-6)
    top5 = (logits.topk(5).indices == label[:, None]).any(1).float().mean()
    assert found["top5"] == top5 != found["accuracy"] == (logits.argmax(1) == label).float().mean()
    sure, right = chances.max(1), (chances.argmax(1) == label.numpy())
    bins = np.floor(sure * 15).astype(int)
    gaps = [
        abs(sure[bins == one].mean() - right[bins == one].mean()) * (bins == one).mean()
        for one in set(bins)
    ]
    assert found["ece"].item() == pytest.approx(sum(gaps), abs=1e-5)
    assert "top5" not in classification(num_classes=5).metrics()


# Any number of labels


def labels_and_logits() -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.rand(9, 5) < 0.3).float(), 2 * torch.randn(9, 5)


def test_multilabel_is_binary_cross_entropy() -> None:
    labels, logits = labels_and_logits()
    for weight in (1.0, 3.0):
        expected = F.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=torch.full((5,), weight)
        )
        found = multilabel(positive_weight=weight).loss(logits, {"labels": labels})
        assert (found - expected).abs() < 1e-6


def test_asymmetric_loss_is_the_formula_of_its_paper() -> None:
    labels, logits = labels_and_logits()
    p = logits.sigmoid().double()
    shifted = (p - 0.05).clamp(min=0)
    positive = (1 - p) ** 1 * p.log()
    negative = shifted**4 * (1 - shifted).log()
    expected = -(labels * positive + (1 - labels) * negative).mean()
    found = multilabel(loss="asymmetric").loss(logits, {"labels": labels})
    assert (found - expected).abs() < 1e-6
    plain = multilabel(loss="asymmetric", gamma_negative=0.0, gamma_positive=0.0, clip=0.0)
    bce = F.binary_cross_entropy_with_logits(logits, labels)
    assert (plain.loss(logits, {"labels": labels}) - bce).abs() < 1e-6


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_asymmetric_loss_has_a_slope_everywhere(gamma: float, clip: float) -> None:
    logits = torch.tensor([[-300.0, -3.0, 0.0, 3.0, 300.0]]).repeat(2, 1).requires_grad_()
    labels = torch.tensor([[0.0] * 5, [1.0] * 5])
    head = multilabel(loss="asymmetric", gamma_negative=gamma, gamma_positive=gamma, clip=clip)
    loss = head.loss(logits, {"labels": labels})
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_multilabel_metrics_agree_with_scikit_learn_where_a_label_is_absent() -> None:
    head = multilabel()
    labels, logits = (torch.rand(50, 5) < 0.3).float(), torch.randn(50, 5)
    labels[:, 2] = 0  # never true
    metrics = head.metrics()
    for rows in (slice(20), slice(20, 50)):
        head.update(metrics, logits[rows], {"labels": labels[rows]})
    found = metrics.compute()
    known = [0, 1, 3, 4]
    for name, score in (("mAP", average_precision_score), ("auroc", roc_auc_score)):
        expected = np.mean([score(labels[:, one], logits[:, one]) for one in known])
        assert found[name].item() == pytest.approx(expected, abs=1e-6)


def test_multilabel_leaves_out_what_nobody_knows() -> None:
    labels, logits = labels_and_logits()
    labels[torch.rand(9, 5) < 0.4] = torch.nan
    labels[3] = torch.nan  # nothing known of one sample
    logits.requires_grad_()
    for loss in ("bce", "asymmetric"):
        head = multilabel(loss=loss)
        found = head.loss(logits, {"labels": labels})
        alone = [
            head.loss(row[None, known], {"labels": wanted[None, known]})
            for row, wanted in zip(logits, labels, strict=True)
            if (known := ~wanted.isnan()).any()
        ]
        assert found.item() == pytest.approx((sum(alone) / 9).item(), abs=1e-6)
    found.backward()
    assert (logits.grad[labels.isnan()] == 0).all()
    assert (logits.grad[~labels.isnan()] != 0).any()


def test_multilabel_metrics_are_of_the_known_labels_alone() -> None:
    head = multilabel()
    labels, logits = (torch.rand(60, 5) < 0.4).float(), torch.randn(60, 5)
    labels[torch.rand(60, 5) < 0.3] = torch.nan
    labels[:, 2] = torch.nan  # never known
    labels[labels[:, 4] == 0, 4] = torch.nan  # never known to be absent
    metrics = head.metrics()
    for rows in (slice(20), slice(20, 60)):
        head.update(metrics, logits[rows], {"labels": labels[rows]})
    found = metrics.compute()

    def mean(score: Any, columns: list[int]) -> float:
        known = [~labels[:, one].isnan() for one in columns]
        return np.mean(
            [score(labels[k, one], logits[k, one]) for k, one in zip(known, columns, strict=True)]
        )

    assert found["auroc"].item() == pytest.approx(mean(roc_auc_score, [0, 1, 3]), abs=1e-6)
    precise = mean(average_precision_score, [0, 1, 3, 4])
    assert found["mAP"].item() == pytest.approx(precise, abs=1e-6)
    macro = mean(lambda truth, logit: f1_score(truth, logit > 0), [0, 1, 3, 4]) * 4 / 5
    assert found["macro_f1"].item() == pytest.approx(macro, abs=1e-6)


def test_multilabel_words_judge_the_known_labels() -> None:
    labels = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [0.0, torch.nan]])
    names = Names(labels=("a", "b"))
    shown = multilabel(num_labels=2).words(torch.ones(3, 2), {"labels": labels}, names)
    assert shown == [("a", "a, b", True), ("–", "a, b", None), ("–", "a, b", False)]


# A quantity


def test_regression_learns_in_standard_units() -> None:
    answers, value = torch.randn(11), 50 + 20 * torch.randn(11)
    error = (value - 50) / 20 - answers
    size = error.abs()
    expected = {
        "mse": error**2,
        "huber": torch.where(size < 0.7, error**2 / 2, 0.7 * (size - 0.35)),
        "quantile": torch.where(error > 0, 0.9 * error, -0.1 * error),
    }
    for loss, each in expected.items():
        found = regression(loss=loss).loss(answers, {"value": value})
        assert (found - each.mean()).abs() < 1e-6, loss


def test_regression_measures_in_the_units_of_the_value() -> None:
    # Large, and differing by little.
    head = regression(value_mean=1e5, value_std=0.5)
    value = (1e5 + 0.5 * torch.randn(40)).float()
    answers = (value - 1e5) / 0.5 + 0.3 * torch.randn(40)
    restored = head.in_units((value - 1e5) / 0.5)
    assert (restored - value.double()).abs().max() < 1e-3
    metrics = head.metrics()
    for rows in (slice(15), slice(15, 40)):
        head.update(metrics, answers[rows], {"value": value[rows]})
    found = {name: one.item() for name, one in metrics.compute().items()}
    guess, truth = (1e5 + 0.5 * answers.double()).numpy(), value.double().numpy()
    assert found["mae"] == pytest.approx(np.abs(guess - truth).mean(), abs=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt(((guess - truth) ** 2).mean()), abs=1e-5)
    assert found["r2"] == pytest.approx(r2_score(truth, guess), abs=1e-4)
    assert found["spearman"] == pytest.approx(spearmanr(truth, guess).statistic, abs=1e-5)


def test_r2_does_not_depend_on_the_unit_and_one_sample_has_none() -> None:
    found = []
    for unit in (1.0, 1e-5):
        torch.manual_seed(0)
        value, noise = torch.randn(30) * unit, 0.5 * torch.randn(30)
        head = regression(value_mean=0.0, value_std=unit)
        metrics = head.metrics()
        head.update(metrics, value / unit + noise, {"value": value})
        found.append(metrics.compute()["r2"].item())
    assert found[0] == pytest.approx(found[1], abs=1e-5) and 0 < found[0] < 1
    one = head.metrics()
    head.update(one, torch.zeros(1), {"value": torch.ones(1)})
    assert one.compute()["r2"].isnan()


def test_mean_and_deviation_travel_with_the_weights() -> None:
    other = regression(value_mean=0.0, value_std=1.0)
    other.load_state_dict(regression().state_dict())
    assert other.in_units(torch.tensor([1.0])).item() == 70


# Images and texts that belong together


def open_clip_losses() -> Any:
    """open_clip/loss.py by itself: the package takes four seconds to import."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.origin is not None
    spec = importlib.util.spec_from_file_location("loss", Path(package.origin).parent / "loss.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def embeddings(size: int, both: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    answers = {name: F.normalize(torch.randn(size, 16), dim=-1) for name in ("image", "text")}
    return {**answers, "both": torch.ones(size, dtype=torch.bool) if both is None else both}


def reference(head: Contrastive, answers: dict[str, torch.Tensor]) -> torch.Tensor:
    """What open_clip makes of them."""
    losses, scale = open_clip_losses(), head.log_scale.exp()
    if head.bias is None:
        return losses.ClipLoss()(answers["image"], answers["text"], scale)
    return losses.SigLipLoss()(answers["image"], answers["text"], scale, head.bias)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_contrastive_losses_equal_open_clips(loss: str) -> None:
    head, answers = contrastive(loss), embeddings(12)
    for scale in (1.0, 1 / 0.07, 100.0):
        head.log_scale.data.fill_(math.log(scale))
        found = head.loss(answers, {"group": torch.arange(12)})
        assert (found - reference(head, answers)).abs() / found.clamp_min(1) < 1e-6


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_texts_of_the_same_group_are_no_negatives(loss: str) -> None:
    head, answers = contrastive(loss), embeddings(5)
    group = [0, 1, 0, 2, 1]
    logits = (head.scale() * answers["image"] @ answers["text"].T).tolist()
    bias = 0.0 if head.bias is None else head.bias.item()
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if group[j] != group[i]]
        if loss == "siglip":
            total += math.log1p(math.exp(-logits[i][i] - bias))
            total += sum(math.log1p(math.exp(logits[i][j] + bias)) for j in others)
        else:
            rows = sum(math.exp(logits[i][j]) for j in [i, *others])
            columns = sum(math.exp(logits[j][i]) for j in [i, *others])
            total += (math.log(rows) + math.log(columns)) / 2 - logits[i][i]
    found = head.loss(answers, {"group": torch.tensor(group)})
    assert found.item() == pytest.approx(total / 5, abs=1e-5)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_pairs_that_another_task_mismatched_take_no_part(loss: str) -> None:
    head, answers, group = contrastive(loss), embeddings(6), torch.arange(6)
    match = torch.tensor([1, 0, 1, 1, 0, 1])
    found = head.loss(answers, {"group": group, "match": match})
    fewer = {name: rows[match == 1] for name, rows in answers.items()}
    assert (found - head.loss(fewer, {"group": group[match == 1]})).abs() < 1e-6
    metrics = head.metrics()
    head.update(metrics, answers, {"group": group, "match": match})
    alone = head.metrics()
    head.update(alone, fewer, {"group": group[match == 1]})
    assert metrics.compute() == alone.compute()


def test_what_is_no_pair_is_nobodys_nearest() -> None:
    head, answers = contrastive("infonce"), embeddings(4)
    answers["text"] = answers["image"].flip(0).clone()  # the nearest of each is the opposite one
    targets = {"group": torch.arange(4), "match": torch.tensor([1, 1, 0, 1])}
    shown = head.words(answers, targets, Names())
    assert shown[2] == ("no pair", "", None)
    assert shown[0][1] == "text 4" and shown[1][1] != "text 3"


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_samples_that_lack_a_modality_take_no_part(loss: str) -> None:
    head = contrastive(loss)
    both = torch.tensor([True, False, True, True, False, True])
    answers = embeddings(6, both)
    found = head.loss(answers, {"group": torch.arange(6)})
    fewer = {name: rows[both] for name, rows in answers.items()}
    assert (found - head.loss(fewer, {"group": torch.arange(4)})).abs() < 1e-6
    image = answers["image"].requires_grad_()
    head.loss(
        embeddings(6, torch.zeros(6, dtype=torch.bool)) | {"image": image},
        {"group": torch.arange(6)},
    ).backward()
    assert not image.grad.any()


def test_the_scale_is_held_at_its_limit_and_can_come_back() -> None:
    head, answers = contrastive(), embeddings(6)
    assert head.scale().item() == pytest.approx(1 / 0.07)
    head.log_scale.data.fill_(10.0)
    head.eval()
    assert head.scale().item() == pytest.approx(MAX_SCALE)
    assert head.log_scale.item() == 10.0  # looking changes nothing
    head.train()
    head.loss(answers, {"group": torch.arange(6)}).backward()
    assert head.log_scale.item() == pytest.approx(math.log(MAX_SCALE))
    assert head.log_scale.grad.abs() > 0


def test_siglip_starts_from_the_numbers_of_its_paper() -> None:
    head = contrastive("siglip")
    assert head.scale().item() == pytest.approx(10) and head.bias.item() == -10
    head.loss(embeddings(6), {"group": torch.arange(6)}).backward()
    assert head.bias.grad.abs() > 0 and head.log_scale.grad.abs() > 0
    assert contrastive().bias is None


def test_mixed_precision_does_not_reach_the_contrastive_loss() -> None:
    for head in (contrastive(), contrastive("siglip")):
        answers, groups = embeddings(8), {"group": torch.arange(8)}
        plain = head.loss(answers, groups)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(head.loss(answers, groups), plain)


def retrieval(image: Any, text: Any, group: Any, **settings: Any) -> dict[str, float]:
    metric = Retrieval(**settings)
    rows = list(zip(image, text, group, strict=True))
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        metric.update(
            torch.tensor(np.array([one[0] for one in part])),
            torch.tensor(np.array([one[1] for one in part])),
            torch.tensor([one[2] for one in part]),
        )
    return {name: value.item() for name, value in metric.compute().items()}


def test_retrieval_equals_a_count_on_coco_captions(data: Path) -> None:
    file = data / "coco_captions_full/annotations/captions_val2017.json"
    captions = defaultdict(list)
    for one in json.loads(file.read_text("utf-8"))["annotations"]:
        captions[one["image_id"]].append(one["caption"].lower().split())
    chosen = []
    for number, images in ((5, 30), (6, 12), (7, 4)):
        found = sorted(image for image, texts in captions.items() if len(texts) == number)[:images]
        assert found, f"no image with {number} captions"
        chosen += found
    # Bags of words: whole numbers, so that scores are exact and ties are real ties.
    words = Counter(word for image in chosen for text in captions[image] for word in set(text))
    column = {word: index for index, (word, _) in enumerate(words.most_common(130)[10:])}
    image_rows, text_rows, groups = [], [], []
    rng = np.random.default_rng(0)
    for image in chosen:
        bags = np.zeros((len(captions[image]), len(column)), np.int64)
        for row, text in enumerate(captions[image]):
            for word in text:
                if word in column:
                    bags[row, column[word]] += 1
        picture = 2 * bags[:2].sum(0) + rng.integers(0, 2, len(column))
        for bag in bags:
            image_rows.append(picture)
            text_rows.append(bag)
            groups.append(image)

    of_text: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        of_text[group].append(row)
    first = {group: image_rows[rows[0]] for group, rows in of_text.items()}
    i2t = []
    for group, picture in first.items():
        best = max(int(picture @ text_rows[row]) for row in of_text[group])
        others = [row for row in range(len(groups)) if groups[row] != group]
        i2t.append(1 + sum(int(picture @ text_rows[row]) >= best for row in others))
    t2i = []
    for bag, group in zip(text_rows, groups, strict=True):
        own = int(first[group] @ bag)
        t2i.append(1 + sum(int(first[other] @ bag) >= own for other in first if other != group))
    expected = {}
    for way, ranks in (("i2t", i2t), ("t2i", t2i)):
        for k in (1, 5, 10):
            expected[f"{way}_recall_{k}"] = np.mean([rank <= k for rank in ranks])
        expected[f"{way}_median_rank"] = np.median(ranks)
    assert 0.1 < expected["i2t_recall_1"] < 0.9 and 0.1 < expected["t2i_recall_1"] < 0.9
    floats = (
        [row.astype(np.float32) for row in image_rows],
        [row.astype(np.float32) for row in text_rows],
    )
    for settings in ({}, {"scores_at_once": 3000}):  # all at once; a dozen rows at a time
        assert retrieval(*floats, groups, **settings) == pytest.approx(expected, abs=1e-6)


def test_several_images_of_a_group_count_once() -> None:
    # Group 7 has two images: one that finds its text, one that finds the other group's.
    image = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    text = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    found = retrieval(image, text, [7, 7, 3])
    assert found["i2t_recall_1"] == (0.5 + 1) / 2
    assert found["i2t_median_rank"] == (1.5 + 1) / 2
    # By its best image: the text of group 3 scores 1 with an image of group 7, too.
    assert found["t2i_recall_1"] == pytest.approx(2 / 3)


def test_a_network_that_has_collapsed_finds_nothing() -> None:
    same = [[1.0, 1.0]] * 40
    for image in (same, [[math.nan, 1.0]] * 40):
        found = retrieval(image, same, list(range(40)))
        assert found["i2t_recall_10"] == found["t2i_recall_10"] == 0
        assert found["i2t_median_rank"] == found["t2i_median_rank"] == 40


# Do they match?


def features(pooled: torch.Tensor, present: list[int] | None = None) -> Features:
    there = None if present is None else torch.tensor(present).bool()
    return Features(pooled[:, None].repeat(1, 2, 1), pooled, None, there)


class Sum(torch.nn.Module):
    """A fusion to be added up by hand."""

    dim, joins = 3, True

    def forward(self, given: dict[str, Features]) -> Fused:
        joint = torch.stack([one.pooled for one in given.values()]).sum(0)
        return Fused(joint, {name: one.tokens for name, one in given.items()}, given)


def test_the_nearest_of_another_group_is_found() -> None:
    pooled = torch.tensor([[1.0, 0], [0.99, 0.1], [9.0, 1.0], [0.5, 0.5], [-1.0, 0]])
    groups = torch.tensor([0, 0, 1, 2, 3])
    everyone = torch.ones(5, dtype=torch.bool)
    # 2 points where 0 and 1 do, whatever its length; 0 and 1 are of one group.
    assert nearest(pooled, groups, everyone, everyone).tolist() == [2, 2, 1, 2, 3]
    known = torch.tensor([True, True, False, True, True])
    assert nearest(pooled, groups, everyone, known).tolist() == [3, 3, 1, 1, 3]
    assert nearest(pooled, groups, known, everyone).tolist() == [2, 2, -1, 2, 3]
    assert nearest(pooled, torch.zeros(5), everyone, everyone).tolist() == [-1] * 5


def test_hard_negatives_are_further_samples_that_do_not_match() -> None:
    fusion = Sum()
    head = Matching(3, fusion, hard_negatives=True, dropout=0.0)
    image, text = features(torch.randn(6, 3)), features(torch.randn(6, 3), [1, 1, 0, 1, 1, 1])
    groups, match = torch.tensor([0, 0, 1, 2, 3, 4]), torch.tensor([1, 0, 1, 1, 0, 1])
    fused = fusion({"image": image, "text": text})._replace(groups=groups)
    answers = head(fused)

    def logit(i: int, j: int) -> torch.Tensor:
        return head.logits(image.pooled[i] + text.pooled[j]).squeeze()

    costs = [F.softplus((1 - 2 * match[i]) * logit(i, i)) for i in range(6)]
    with_text = 0
    for i in (0, 1, 3, 4, 5):  # 2 has no text
        from_text, from_image = int(answers["text_from"][i]), int(answers["image_from"][i])
        assert from_text != 2 and groups[from_text] != groups[i] != groups[from_image]
        if match[from_text]:  # else the text may be true of image i, for all we know
            costs.append(F.softplus(logit(i, from_text)))
            with_text += 1
        if match[i]:
            costs.append(F.softplus(logit(from_image, i)))
    assert 0 < with_text < 5
    assert answers["text_from"][2] == answers["image_from"][2] == -1
    found = head.loss(answers, {"match": match, "group": groups})
    assert (found - torch.stack(costs).mean()).abs() < 1e-6
    assert not [name for name in head.state_dict() if "fusion" in name]
    head.eval()
    assert list(head(fused)) == ["match"]
    plain = F.binary_cross_entropy_with_logits(answers["match"], match.float())
    assert (head.loss(head(fused), {"match": match}) - plain).abs() < 1e-6


# Hidden words


class Vocabulary:
    vocab_size, mask_id, special_ids = 11, 10, (9, 10)

    def text(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


class Apart(Sum):
    joins = False


def masked_lm(fusion: type[Sum] = Sum, words: Any = None) -> MaskedLM:
    return MaskedLM(3, {"text": 6}, fusion(), words or Vocabulary(), mask_probability=0.2)


def test_masked_lm_is_the_mean_over_hidden_tokens_then_over_samples() -> None:
    logits = torch.randn(3, 4, 11)
    tokens = torch.full((3, 4), IGNORED)
    tokens[0, 0], tokens[0, 2], tokens[1, 3] = 5, 1, 7  # the last text hides none
    cost = -logits.log_softmax(-1)
    expected = ((cost[0, 0, 5] + cost[0, 2, 1]) / 2 + cost[1, 3, 7]) / 3
    head = masked_lm()
    assert (head.loss(logits, {"tokens": tokens}) - expected).abs() < 1e-6
    metrics = head.metrics()
    logits[1, 3] = 0
    logits[1, 3, 7] = -200.0  # as wrong as can be
    head.update(metrics, logits, {"tokens": tokens})
    head.update(metrics, logits, {"tokens": torch.full((3, 4), IGNORED)})
    found, cost = metrics.compute(), -logits.log_softmax(-1)
    three = torch.stack([cost[0, 0, 5], cost[0, 2, 1], cost[1, 3, 7]])
    assert torch.isclose(found["perplexity"], three.mean().exp())
    right = int(logits[0, 0].argmax() == 5) + int(logits[0, 2].argmax() == 1)
    assert found["accuracy"].item() == pytest.approx(right / 3)


def test_masked_lm_sees_the_joint_vector() -> None:
    head, tokens = masked_lm(), {"text": torch.randn(2, 4, 6)}
    one, other = (head(Fused(torch.randn(2, 3), tokens, {})) for _ in range(2))
    assert one.shape == (2, 4, 11) and (one - other).abs().min() > 1e-4
    assert masked_lm(fusion=Apart).joint is None
    assert head(Fused(torch.randn(2, 3), {"image": torch.randn(2, 5, 6)}, {})).shape == (2, 0, 11)


def test_masked_lm_needs_a_mask_token() -> None:
    words = Vocabulary()
    words.mask_id = None  # type: ignore[assignment]
    with pytest.raises(UserError, match="no mask token"):
        masked_lm(words=words)


def test_masked_lm_says_what_was_hidden() -> None:
    logits = torch.zeros(2, 3, 11)
    logits[0, 0, 4] = logits[0, 2, 5] = 1
    tokens = torch.tensor([[4, IGNORED, 6], [IGNORED] * 3])
    shown = masked_lm().words(logits, {"tokens": tokens}, Names())
    assert shown == [("4 6", "4 5", False), ("", "", None)]


# In a real network

TOWERS = ("model=two_tower", "encoder/image=vit_micro", "encoder/text=bytes_micro")
MINED = ("model=micro", "head=matching", "head.hard_negatives=true")
HEADS = {
    "classification": ("model=micro",),
    "multilabel": ("model=micro", "head=multilabel"),
    "asymmetric": ("model=micro", "head=multilabel", "head.loss=asymmetric"),
    "regression": ("model=micro", "head=regression"),
    "matching": ("model=micro", "head=matching"),
    "mined": MINED,
    "masked_lm": ("model=micro", "head=masked_lm"),
    "infonce": TOWERS,
    "siglip": (*TOWERS, "head.loss=siglip"),
    "multitask": ("model=micro", "head=multitask"),
}


def a_job(folder: Path, *words: str) -> Job:
    folder.mkdir(exist_ok=True)
    small = (
        "tracker=none",
        "hardware=cpu",
        "hardware.precision=fp32",
        "hardware.threads=1",
        "dataset.train_samples=64",
        "dataset.val_samples=16",
        "trainer.batch_size=12",
    )
    return assemble(load(*small, *words), folder)


class Incomplete:
    """A split, some of whose samples lack a modality."""

    def __init__(self, split: Any, share: float) -> None:
        self.split, self.share = split, share
        self.digest, self.notes, self.key = split.digest, split.notes, split.key

    def __len__(self) -> int:
        return len(self.split)

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        sample: Any = self.split.sample(index, modalities, rng)
        chance = random.Random(index)
        if chance.random() < self.share:
            del sample[chance.choice(modalities)]
        whole: Sample = sample
        return whole


def with_gaps(job: Job, share: float) -> Job:
    job.train = Incomplete(job.train, share)
    return job


def a_step(job: Job) -> TrainStep:
    return next(
        train_steps(
            job.train,
            job.reading,
            batch_size=job.run.trainer.batch_size,
            micro_batch_size=job.run.micro_batch_size,
            seed=0,
            first_step=1,
            last_step=1,
            num_workers=0,
            device=torch.device("cpu"),
        )
    )


def gradients(job: Job) -> tuple[torch.Tensor, dict[str, Any]]:
    """The loss of the first step, and its gradients by parameter, as the loop gets them."""
    job.model.zero_grad()
    job.model.train()
    loss = accumulate(job, job.model, list(job.model.parameters()), a_step(job))
    return loss, {name: p.grad for name, p in job.model.named_parameters()}


def far(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("words", HEADS.values(), ids=HEADS)
def test_a_head_in_a_network(words: tuple[str, ...], tmp_path: Path) -> None:
    job = a_job(tmp_path, *words)
    head: Any = job.model.head
    _, found = gradients(job)
    for name, gradient in found.items():
        assert gradient is not None and gradient.isfinite().all(), name
        assert gradient.any(), name
    with torch.autocast("cpu", torch.bfloat16):
        batch = a_step(job).batches[0]
        loss = head.loss(job.model(batch.inputs, batch.targets.get("group")), batch.targets)
    assert loss.dtype == torch.float32 and loss.isfinite() and loss.ndim == 0

    batches = eval_batches(
        job.val, job.reading, batch_size=5, num_workers=0, device=torch.device("cpu")
    )
    evaluation = evaluate(job.model, batches, job.machine, Stop(), loss_batch=10)
    scalars = set(evaluation.values) - {"loss"}
    assert scalars == {name for name in head.higher_is_better if "top5" not in name}
    assert all(math.isfinite(value) for value in evaluation.values.values())
    shown = examples(job, 6)
    assert len(shown) == 6 and all(one.truth and one.answer for one in shown)


@pytest.mark.parametrize("words", HEADS.values(), ids=HEADS)
def test_a_missing_modality_and_the_order_of_the_batch_do_not_matter(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    job = with_gaps(a_job(tmp_path, *words), 0.6)
    model, batch = job.model.eval(), a_step(job).batches[0]
    assert all(not one.present.all() for one in batch.inputs.values())

    def answer(inputs: Any) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            answers = model(inputs)
        return {"": answers} if isinstance(answers, torch.Tensor) else answers

    straight = answer(batch.inputs)
    order = torch.randperm(batch.size)
    turned = answer(
        {
            name: one._replace(
                values=one.values[order],
                mask=None if one.mask is None else one.mask[order],
                present=one.present[order],
            )
            for name, one in batch.inputs.items()
        }
    )
    noised = answer(
        {
            name: one._replace(
                values=torch.where(
                    one.present.view(-1, *[1] * (one.values.ndim - 1)),
                    one.values,
                    torch.randint_like(one.values, 100),
                )
            )
            for name, one in batch.inputs.items()
        }
    )
    targets = batch.targets
    head: Any = model.head
    for name in straight:
        assert torch.allclose(straight[name][order].float(), turned[name].float(), atol=1e-5)
    losses = [head.loss(given.get("", given), targets) for given in (straight, noised)]
    assert (losses[0] - losses[1]).abs() < 1e-5
    image_only = answer({"image": batch.inputs["image"]._replace(present=None)})
    assert image_only.keys() == straight.keys()


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_micro_batches_of_a_contrastive_loss_are_the_whole_batch(loss: str, tmp_path: Path) -> None:
    words = (*TOWERS, f"head.loss={loss}")
    whole = with_gaps(a_job(tmp_path, *words), 0.2)
    split = with_gaps(a_job(tmp_path, *words, "hardware.micro_batch_size=4"), 0.2)
    split.model.load_state_dict(whole.model.state_dict())
    (one, of_whole), (other, of_split) = gradients(whole), gradients(split)
    assert len(a_step(split).batches) == 3
    assert (one - other).abs() < 1e-5 and far(of_whole, of_split) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in of_whole.values()) > 1e-2


def test_dropout_draws_the_same_in_both_passes_over_a_micro_batch(tmp_path: Path) -> None:
    dropout = ("encoder.image.dropout=0.3", "encoder.text.dropout=0.3")
    job = a_job(tmp_path, *TOWERS, *dropout, "hardware.micro_batch_size=4")
    torch.manual_seed(1)
    loss, found = gradients(job)
    after = torch.get_rng_state()
    # By hand: all graphs kept, so that there is one pass.
    job.model.zero_grad()
    torch.manual_seed(1)
    batches = a_step(job).batches
    answers = [job.model(batch.inputs) for batch in batches]
    assert torch.equal(torch.get_rng_state(), after)
    together = {name: torch.cat([one[name] for one in answers]) for name in answers[0]}
    head: Any = job.model.head
    expected = head.loss(together, {"group": torch.cat([b.targets["group"] for b in batches])})
    expected.backward()
    by_hand = {name: p.grad for name, p in job.model.named_parameters()}
    assert (loss - expected).abs() < 1e-5 and far(found, by_hand) < 1e-5


def test_a_copy_of_the_network_mines_with_its_own_fusion(tmp_path: Path) -> None:
    model: Any = copy.deepcopy(a_job(tmp_path, *MINED).model)  # as the average of weights is made
    assert model.head.fusion[0] is model.fusion


def test_a_batch_without_texts_goes_through_micro_batches(tmp_path: Path) -> None:
    job = a_job(tmp_path, *TOWERS, "hardware.micro_batch_size=4")
    step = a_step(job)
    first = step.batches[0]
    step.batches[0] = first._replace(inputs={"image": first.inputs["image"]})
    loss = accumulate(job, job.model, list(job.model.parameters()), step)
    assert loss.isfinite() and loss > 0


def test_the_image_helps_to_restore_a_word(tmp_path: Path) -> None:
    job = a_job(tmp_path, "model=micro", "head=masked_lm")
    batch = a_step(job).batches[0]
    image = batch.inputs["image"]
    other = {**batch.inputs, "image": image._replace(values=image.values.flip(0))}
    model = job.model.eval()
    assert (model(batch.inputs) - model(other)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("head=matching", "head.hard_negatives=true", "hardware.micro_batch_size=64"),
            r"head\.hard_negatives=true .* fewer would change the training",
        ),
        (
            (
                "head=multitask",
                "+head@head.tasks.near=contrastive",
                "+head.weights.near=1",
                "head.weighting=gradnorm",
                "hardware.micro_batch_size=64",
            ),
            r"head\.weighting=gradnorm .* head\.tasks\.near come of a whole batch",
        ),
        (("trainer.monitor=val/top5",), r"val/top5 .* expected one of val/loss, val/accuracy"),
        (("head=multitask", "trainer.monitor=val/label_top5"), "expected one of val/loss"),
    ],
)
def test_what_cannot_be_together_is_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(*words)
    assert load("trainer.monitor=val/top5", "dataset.num_classes=6")


@pytest.mark.train
@pytest.mark.parametrize("words", HEADS.values(), ids=HEADS)
def test_a_head_is_one_graph(words: tuple[str, ...], tmp_path: Path) -> None:
    job = a_job(tmp_path, *words)
    batch = a_step(job).batches[0]
    network = torch.compile(job.model, backend="aot_eager", fullgraph=True)
    answers = network(batch.inputs, batch.targets.get("group"))
    head: Any = job.model.head
    head.loss(answers, batch.targets).backward()
    eager = job.model(batch.inputs, batch.targets.get("group"))
    assert torch.allclose(
        head.loss(answers, batch.targets), head.loss(eager, batch.targets), atol=1e-5
    )
