"""Hidden tokens: BERT's shares, what is never hidden, and the same ones at every evaluation."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageStat
from transformers import BertTokenizer

from mmnet.data.loader import Reading, eval_batches, train_steps
from mmnet.data.masking import HideTokens
from mmnet.data.modality_dropout import drop
from mmnet.dataset.shapes import Shapes
from mmnet.encoder.text.bytes import MASK, PAD, ToBytes
from mmnet.encoder.text.huggingface import Tokenize
from mmnet.interfaces import IGNORED, Batch, Inputs, Sample, Split, TextPrepare


BYTES: Any = ToBytes(64)


@pytest.fixture(scope="module")
def bert(data: Path) -> Tokenize:
    vocabulary = data / "bert_vocab/bert-base-uncased/vocab.txt"
    return Tokenize(BertTokenizer(vocab=str(vocabulary)), max_length=64)


def hidden(
    words: TextPrepare, ids: list[int], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """What a network sees, and what it is to restore."""
    seen, wanted = HideTokens(words, share)(
        torch.tensor(ids, dtype=torch.int64), random.Random(seed)
    )
    assert seen.dtype == wanted.dtype == torch.int64
    assert seen.shape == wanted.shape == (len(ids),)
    return seen.tolist(), wanted.tolist()


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_of_the_chosen_tokens_eight_tenths_are_hidden_and_one_tenth_each_changed_or_left(share):
    ids = [seed % 256 for seed in range(400)]
    fates: Counter[str] = Counter()
    for seed in range(150):
        seen, wanted = hidden(BYTES, ids, share, seed)
        for was, now, want in zip(ids, seen, wanted, strict=True):
            fates["masked" if now == MASK else "left" if now == was else "changed"] += want == was
            assert want in (was, IGNORED)
            assert want != IGNORED or now == was, "a token was changed and is not asked for"
    chosen = fates.total()
    assert chosen / (150 * len(ids)) == pytest.approx(share, abs=0.01)
    for fate, expected in (("masked", 0.8), ("changed", 0.1), ("left", 0.1)):
        assert fates[fate] / chosen == pytest.approx(expected, abs=0.015)


def test_tokens_are_changed_to_any_ordinary_one():
    changed = Counter(
        now
        for seed in range(300)
        for now in hidden(BYTES, [7] * 300, 0.5, seed)[0]
        if now not in (7, MASK)
    )
    assert set(changed) == set(range(256)) - {7}
    assert max(changed.values()) < 60


def test_special_tokens_are_neither_chosen_nor_put_in(bert: Tokenize) -> None:
    ids = bert("A dog [MASK] and a [PAD] of an unheard-of \U0001f994 word").tolist()
    special = {place for place, token in enumerate(ids) if token in bert.special_ids}
    assert len(special) >= 4
    for seed in range(400):
        seen, wanted = hidden(bert, ids, 0.9, seed)
        for place in special:
            assert (seen[place], wanted[place]) == (ids[place], IGNORED)
        put_in = {seen[place] for place in range(len(ids)) if place not in special}
        assert put_in & set(bert.special_ids) <= {bert.mask_id}


@pytest.mark.parametrize(("ids", "count"), [([65], 1), ([PAD, 65, PAD, 66, MASK], 1)])
def test_one_token_is_hidden_at_least(ids, count):
    chosen: Counter[int] = Counter()
    for seed in range(60):
        _, wanted = hidden(BYTES, ids, 0.001, seed)
        assert sum(want != IGNORED for want in wanted) == count
        chosen.update(want for want in wanted if want != IGNORED)
    assert set(chosen) == {token for token in ids if token < PAD}


@pytest.mark.parametrize("ids", [[], [PAD], [MASK, PAD]])
def test_where_there_is_nothing_to_hide_nothing_is_hidden(ids):
    assert hidden(BYTES, ids, 0.9, 0) == (ids, [IGNORED] * len(ids))


def test_the_text_that_was_given_stays_as_it_was():
    ids = torch.arange(60)
    HideTokens(BYTES, 0.9)(ids, random.Random(0))
    assert torch.equal(ids, torch.arange(60))


def test_a_vocabulary_without_a_mask_token_is_refused():
    words: Any = ToBytes(8)
    words.mask_id = None
    with pytest.raises(ValueError, match="no mask token"):
        HideTokens(words, 0.15)


# In batches


READING = Reading(
    prepare={"text": BYTES}, targets=("tokens",), hide=HideTokens(BYTES, probability=0.15)
)


def split(size: int = 40) -> Split:
    dataset = Shapes(4, 8, train_samples=size, val_samples=size, seed=0, data=Path("nowhere"))
    return dataset.split("train", ("tokens",))


def evaluated(batch_size: int, reading: Reading = READING, **changes: Any) -> list[Batch]:
    settings: dict[str, Any] = {"num_workers": 0, "device": torch.device("cpu"), **changes}
    reads = eval_batches(split(), reading, batch_size=batch_size, **settings)
    return [read.batch for read in reads if read.batch is not None]


def trained(reading: Reading = READING, **changes: Any) -> list[Batch]:
    settings: dict[str, Any] = {
        "batch_size": 20,
        "micro_batch_size": 20,
        "seed": 0,
        "first_step": 1,
        "last_step": 4,
        "num_workers": 0,
        "device": torch.device("cpu"),
    }
    stream = train_steps(split(), reading, **settings | changes)
    return [batch for step in stream for batch in step.batches]


def told(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    """[seen, wanted] of each sample, as far as its text goes."""
    found = []
    for batch in batches:
        values, mask, _ = batch.inputs["text"]
        wanted = batch.targets["tokens"]
        assert wanted.shape == values.shape
        assert mask is not None
        assert (wanted[~mask] == IGNORED).all(), "padding is asked for"
        for row, want, real in zip(values, wanted, mask, strict=True):
            found.append((row[real].tolist(), want[real].tolist()))
    return found


def test_what_is_wanted_restores_the_text():
    texts = [split().sample(i, ("text",), None)["text"] for i in range(40)]
    for text, (seen, wanted) in zip(texts, told(evaluated(8)), strict=True):
        pairs = zip(seen, wanted, strict=True)
        assert bytes(s if w == IGNORED else w for s, w in pairs).decode() == text[:64]
        assert seen != list(text.encode()) or any(want != IGNORED for want in wanted)


def test_evaluation_hides_the_same_tokens_every_time():
    first = told(evaluated(8))
    assert told(evaluated(8)) == told(evaluated(7)) == told(evaluated(8, num_workers=1)) == first
    hidden_places = {tuple(i for i, w in enumerate(wanted) if w != IGNORED) for _, wanted in first}
    assert len(hidden_places) > 30, "every text loses the same places"


def test_training_hides_others_in_each_epoch_however_it_is_read():
    first = told(trained())
    assert told(trained(micro_batch_size=5)) == told(trained(num_workers=1)) == first
    assert told(trained(first_step=3)) == first[40:]
    epochs = [sorted(map(str, first[:40])), sorted(map(str, first[40:]))]
    assert len(set(epochs[0]) & set(epochs[1])) < 4


class Grey:
    """A picture -> its mean."""

    blank = Image.new("RGB", (1, 1))

    def __call__(self, raw: Image.Image) -> torch.Tensor:
        return torch.tensor(ImageStat.Stat(raw).mean)

    def collate(self, tensors: list[torch.Tensor]) -> Inputs:
        return Inputs(torch.stack(tensors), None)


PAIRS = READING._replace(prepare={"image": Grey(), "text": BYTES})


def present_and_wanted(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """bool [B] and bool [B, T]: which samples have a text, and what of it is asked for."""
    present, wanted = batch.inputs["text"].present, batch.targets["tokens"]
    assert present is not None
    assert wanted.shape == batch.inputs["text"].values.shape
    return present, wanted != IGNORED


def test_a_text_that_was_dropped_is_not_asked_for():
    dropped = 0
    chances = {"image": 0.0, "text": 0.25}
    for batch in drop(trained(PAIRS), chances, seed=0, step=1):
        present, wanted = present_and_wanted(batch)
        assert torch.equal(wanted.any(1), present)
        dropped += int((~present).sum())
    assert 8 < dropped < 32


def test_a_text_that_is_missing_is_not_asked_for():
    class Silent:
        """The same pictures, every third without its text."""

        digest, notes = "", dict[str, int]()

        def __len__(self) -> int:
            return len(split())

        def key(self, index: int) -> str:
            return split().key(index)

        def sample(self, index: int, modalities: Any, rng: random.Random | None) -> Sample:
            return split().sample(index, modalities[: 1 + (index % 3 > 0)], rng)

    for read in eval_batches(
        Silent(), PAIRS, batch_size=6, num_workers=0, device=torch.device("cpu"), limit=12
    ):
        assert read.batch
        present, wanted = present_and_wanted(read.batch)
        assert present.tolist() == [False, True, True] * 2
        assert torch.equal(wanted.any(1), present)
