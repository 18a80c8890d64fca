"""Exactness: whatever the workers, the ranks, the buckets and the place of a restart, one order."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mmnet.data.loader import EvalBatch, Reading, eval_batches, train_steps
from mmnet.data.order import ALONE, Bucketed, Mixed, Mixture, Share, Shuffled
from mmnet.interfaces import Inputs, Sample


CPU = torch.device("cpu")
BATCH = 8
WORKERS, RANKS = (1, 2, 3, 8), (1, 2, 4)

# More workers than cores, which torch remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Texts:
    """Sample i has three texts of lengths of its own; training draws one of them."""

    digest = ""
    notes: dict[str, int]

    def __init__(self, size: int) -> None:
        self.size, self.notes = size, {}
        draw = random.Random(1)
        self.lengths_ = [[draw.randint(1, 40) for _ in range(3)] for _ in range(size)]

    def __len__(self) -> int:
        return self.size

    def key(self, index: int) -> str:
        return str(index)

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        which = 0 if rng is None else rng.randrange(3)
        words = ["x"] * (self.lengths_[index][which] - 1)
        return {"text": " ".join([str(index), *words]), "label": 0}


class Words:
    """Text -> its first word, a number, as often as there are words."""

    blank = "0"
    digest = "words"

    def __call__(self, raw: str) -> torch.Tensor:
        number, *rest = raw.split()
        return torch.full((1 + len(rest),), int(number))

    def collate(self, tensors: list[torch.Tensor]) -> Inputs:
        values = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=-1)
        return Inputs(values, values >= 0)

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


READING = Reading(prepare={"text": Words()}, targets=("label",))
KINDS: dict[str, dict[str, Any]] = {"plain": {}, "bucketed": {"bucket_batches": 3}}


def read(split: Any, first: int, last: int, **more: Any) -> list[list[tuple[int, int]]]:
    """(index, length) of each sample of the steps `first` to `last`."""
    settings: dict[str, Any] = {
        "batch_size": BATCH,
        "micro_batch_size": BATCH,
        "seed": 0,
        "num_workers": 0,
    }
    steps = train_steps(
        split,
        READING,
        first_step=first,
        last_step=last,
        device=CPU,
        **settings | more,
    )
    return [
        [
            (int(row[0]), int(mask.sum()))
            for batch in step.batches
            for row, mask in zip(batch.inputs["text"].values, masks(batch), strict=True)
        ]
        for step in steps
    ]


def masks(batch: Any) -> torch.Tensor:
    mask: torch.Tensor = batch.inputs["text"].mask
    return mask


def joined(steps: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [sample for step in steps for sample in step]


def over_ranks(world: int, *args: Any, **more: Any) -> list[list[tuple[int, int]]]:
    """What the ranks read, put side by side again, step by step."""
    parts = [read(*args, share=Share(rank, world), **more) for rank in range(world)]
    return [joined(list(step)) for step in zip(*parts, strict=True)]


# Workers and ranks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [96, 61])
def test_any_number_of_workers_and_ranks_reads_one_sequence_of_whole_epochs(size, kind):
    split, last = Texts(size), -(-2 * size // BATCH)
    alone = read(split, 1, last, **KINDS[kind])
    drawn = [index for index, _ in joined(alone)]
    assert sorted(drawn[:size]) == list(range(size))
    assert sorted(drawn[size : 2 * size]) == list(range(size))
    for world in RANKS:
        assert over_ranks(world, split, 1, last, **KINDS[kind]) == alone
    for workers in WORKERS if size % BATCH else (2,):
        assert read(split, 1, last, num_workers=workers, **KINDS[kind]) == alone
    shared = over_ranks(2, split, 1, last, num_workers=3, micro_batch_size=3, **KINDS[kind])
    assert shared == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("points", [8, pytest.param(100, marks=pytest.mark.full)])
def test_stopped_anywhere_and_resumed_with_other_workers_and_ranks_it_goes_on_the_same(
    points, kind
):
    split, last = Texts(157), 60
    whole = read(split, 1, last, **KINDS[kind])
    chance = random.Random(7)
    for _ in range(points):
        first, world = chance.randint(2, last), chance.choice(RANKS)
        workers = chance.choice(WORKERS) if world == 1 or points == 100 else 0
        rest = over_ranks(world, split, first, last, num_workers=workers, **KINDS[kind])
        assert rest == whole[first - 1 :], (first, workers, world)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [0, 1, 3, 8, 61])
def test_shares_of_a_batch_follow_one_another_and_are_nearly_even(size, world):
    whole = range(100, 100 + size)
    parts = [Share(rank, world).of(whole) for rank in range(world)]
    assert [position for part in parts for position in part] == list(whole)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert ALONE.of(whole) == whole


@pytest.mark.parametrize("world", RANKS)
@pytest.mark.parametrize("limit", [None, 13])
def test_ranks_evaluate_each_sample_once(world, limit):
    split: Any = Texts(61)
    found: list[int] = []
    counts = []
    for rank in range(world):
        reads: Iterator[EvalBatch] = eval_batches(
            split,
            READING,
            batch_size=5,
            num_workers=0,
            device=CPU,
            limit=limit,
            share=Share(rank, world),
        )
        indices = [read.indices for read in reads]
        assert all(1 <= len(one) <= 5 for one in indices)
        found += [index for one in indices for index in one]
        counts.append(len(indices))
    assert sorted(found) == list(range(limit or 61))
    assert max(counts) - min(counts) <= 1


# Buckets


def padding(steps: list[list[tuple[int, int]]]) -> float:
    """Share of a batch that is padding."""
    places = sum(len(step) * max(length for _, length in step) for step in steps)
    return 1 - sum(length for _, length in joined(steps)) / places


def test_buckets_hold_texts_of_about_one_length_as_they_will_be_shown():
    split = Texts(8 * 60)
    plain, sorted_ = (read(split, 1, 120, bucket_batches=n) for n in (None, 60))
    assert padding(plain) > 0.4
    assert padding(sorted_) < 0.04
    assert Counter(joined(plain)) == Counter(joined(sorted_))  # the same texts of the same samples


def test_batches_of_a_window_come_in_no_order_of_length_and_another_in_each_window():
    bucketed = Bucketed(Shuffled(0, 8 * 100), 0, 8, 50, lambda index, rng: index)
    turns = []
    for window in range(4):
        drawn = [one.number for one in bucketed(range(400 * window, 400 * (window + 1)))]
        longest = [max(drawn[at : at + 8]) for at in range(0, 400, 8)]
        turns.append(sorted(range(50), key=longest.__getitem__))
        by_time = torch.tensor([list(range(50)), longest], dtype=torch.float64)
        assert abs(torch.corrcoef(by_time)[0, 1].item()) < 0.4
    assert len({tuple(turn) for turn in turns}) == 4


def test_a_window_moves_no_sample_further_than_its_end():
    order = Shuffled(0, 100)
    bucketed = Bucketed(order, 0, 8, 3, lambda index, rng: index)
    for epoch in range(3):
        for start in range(100 * epoch, 100 * (epoch + 1)):
            window = bucketed._around(start)
            assert sorted(order(window)) == sorted(bucketed(window))
    assert bucketed(range(90, 110))[:10] != order(range(90, 110))[:10]


@pytest.mark.parametrize(("size", "batches"), [(3, 1), (3, 50), (8, 1), (61, 2), (1, 1)])
def test_buckets_may_be_larger_than_an_epoch(size, batches):
    drawn = [
        index
        for _, index in Bucketed(Shuffled(0, size), 0, 8, batches, lambda i, rng: i)(
            range(5 * size)
        )
    ]
    for epoch in range(5):
        assert sorted(drawn[epoch * size : (epoch + 1) * size]) == list(range(size))


# Mixtures


def test_parts_have_exactly_their_share_of_every_block_and_epochs_of_their_own():
    mixture = Mixture((30, 500), (3, 1))
    order = Mixed(0, mixture)
    drawn = order(range(8000))
    of_first = [one for one in drawn if one.number < 30]
    assert len(of_first) == 6000
    for start in range(0, 8000, 1000):
        assert sum(one.number < 30 for one in drawn[start : start + 1000]) == 750
    for epoch in range(200):
        some = of_first[30 * epoch : 30 * (epoch + 1)]
        assert sorted(one.number for one in some) == list(range(30))
        assert {one.epoch for one in some} == {epoch}
    of_second = [one.number for one in drawn if one.number >= 30]
    assert sorted(of_second[:500]) == list(range(30, 530))
    assert order(range(0, 20)) != Mixed(1, mixture)(range(0, 20))


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 1501, 3999])
def test_a_mixture_is_a_function_of_position(start):
    whole = Mixed(5, Mixture((7, 11, 300), (0.5, 0.3, 0.2)))(range(5000))
    fresh = Mixed(5, Mixture((7, 11, 300), (0.5, 0.3, 0.2)))
    assert fresh(range(start, start + 1001)) == whole[start : start + 1001]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [((1, 2), (333, 666)), ((0.7, 0.3), (700, 300)), ((1, 1e-9), (1000, 1)), ((5,), (1000,))],
)
def test_shares_are_exact_where_ratios_are_simple(weights, counts):
    drawn = Mixed(0, Mixture([10] * len(weights), weights))(range(sum(counts)))
    assert [sum(one.number // 10 == part for one in drawn) for part in range(len(weights))] == list(
        counts
    )
