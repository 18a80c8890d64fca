"""Lengths of texts before they are read, and texts packed by them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mmnet.assembly import assemble
from mmnet.compose import load
from mmnet.data.lengths import lengths_of
from mmnet.data.order import Mixture, SampleRandom
from mmnet.data.packed import Packed, packed
from mmnet.data.published import Drawn, Texts
from mmnet.data.records import Found, Record
from mmnet.dataset.mix import MixSplit
from mmnet.encoder.text.bytes import ToBytes
from mmnet.encoder.text.huggingface import Tokenize
from mmnet.encoder.text.sources import load_tokenizer
from mmnet.errors import ConfigError
from mmnet.interfaces import BadSample
from mmnet.meta_batch import carve
from mmnet.session import run_training


@dataclass
class Sentences(Drawn, Texts):
    """One to four texts a sample; a few samples have none, and a few texts are blank."""

    title: ClassVar[str] = "sentences"
    layouts: ClassVar[list[list[str]]] = [["list.txt"]]
    offers: ClassVar[tuple[str, ...]] = ("group", "match")

    def sources(self) -> list[Path]:
        return [self.folder / "list.txt"]

    def records(self, found: Found) -> Iterator[Record]:
        chance = random.Random(0)
        for number in range(int(self.sources()[0].read_text())):
            texts = tuple(
                " ".join(
                    chance.choice(("wow", "cat", "antidisestablishment", "\u00fc\u200b!"))
                    for _ in range(chance.randint(1, 30))
                )
                for _ in range(chance.randint(1, 4))
            )
            if number % 50 == 7:
                texts = ("\u200b",)
            yield Record(key=str(number), captions=() if number % 50 == 9 else texts)


def sentences(folder: Path, count: int = 300) -> Sentences:
    (folder / "list.txt").write_text(str(count))
    return Sentences(
        root=str(folder),
        on_bad_sample="skip",
        max_bad_fraction=0.1,
        data=folder,
        split_seed=0,
        val_fraction=0.2,
        passage=None,
    )


@pytest.fixture(params=["bytes", "bert"])
def words(request: pytest.FixtureRequest, data: Path) -> Any:
    if request.param == "bytes":
        return ToBytes(100)
    vocabulary = data / "bert_vocab/bert-base-uncased/vocab.txt"
    return Tokenize(load_tokenizer(str(vocabulary)), 40)


def read(split: Any, words: Any, index: int, rng: random.Random | None) -> int:
    """The length of the text that a sample shows, 0 without one."""
    try:
        sample = split.sample(index, ("text",), rng)
    except BadSample:
        return 0
    return len(words(sample["text"])) if "text" in sample else 0


@pytest.mark.parametrize("targets", [(), ("match",), ("group",)])
@pytest.mark.parametrize("name", ["train", "val"])
def test_lengths_are_those_of_the_texts_that_will_be_shown(tmp_path, words, name, targets):
    split = sentences(tmp_path).split(name, targets)
    lengths, rng = lengths_of(split, words), SampleRandom(3)
    for index in range(len(split)):
        assert lengths(index, None) == read(split, words, index, None)
        for epoch in (0, 5):
            told = lengths(index, rng.at(epoch, index))
            assert told == read(split, words, index, rng.at(epoch, index))
    assert all(
        longest >= read(split, words, index, None)
        for index, longest in enumerate(lengths.longest())
        if "match" not in targets
    )


def test_lengths_are_measured_once_for_each_tokenizer(tmp_path, words, monkeypatch):
    monkeypatch.setenv("MMNET_CACHE", str(tmp_path / "cache"))
    split = sentences(tmp_path).split("train", ())
    first = lengths_of(split, words).longest()
    calls: list[int] = []
    own = words.lengths

    def counted(texts: list[str]) -> Any:
        calls.append(len(texts))
        return own(texts)

    words.lengths = counted
    assert np.array_equal(lengths_of(split, words).longest(), first)
    assert not calls
    words.digest = "another"
    lengths_of(split, words)
    assert calls
    kept = list((tmp_path / "cache").glob("lengths-*.npy"))
    assert len(kept) == 2
    for path in kept:
        path.write_bytes(b"damaged")
    assert np.array_equal(lengths_of(split, words).longest(), first)


def test_what_is_left_of_a_split_knows_its_lengths(tmp_path, words):
    _, rest = carve(sentences(tmp_path).split("train", ()), 30, seed=0)
    lengths = lengths_of(rest, words)
    assert [lengths(i, None) for i in range(len(rest))] == [
        read(rest, words, i, None) for i in range(len(rest))
    ]
    assert len(lengths.longest()) == len(rest)


# Packing


def test_texts_that_follow_one_another_are_joined_while_they_fit(tmp_path, words):
    split = sentences(tmp_path).split("train", ())
    longest = lengths_of(split, words).longest()
    whole = Packed(split, words, words_limit(words))
    members = [list(whole._members(i)) for i in range(len(whole))]
    assert [one for pack in members for one in pack] == list(range(len(split)))
    assert len(whole) < len(split)
    for index, pack in enumerate(members):
        if len(pack) > 1:
            assert all(longest[one] > 0 for one in pack)
            for rng in (None, random.Random(index)):
                raw = whole.sample(index, ("text",), rng)["text"]
                assert raw.count(" ") >= len(pack) - 1
                assert words.lengths([raw])[0] <= words_limit(words)
    assert whole.notes["texts packed"] == len(split)


def words_limit(words: Any) -> int:
    return 100 if isinstance(words, ToBytes) else 40


def test_a_pack_is_as_full_as_it_can_be():
    # 4 5 | 30: too long | 0: bad | 3 3 2 | 9, to which not even 1 fits | 1
    found = packed(np.array([4, 5, 30, 0, 3, 3, 2, 9, 1]), joint=1, room=10)
    assert found.tolist() == [0, 2, 3, 4, 7, 8]
    assert packed(np.array([4, 5]), joint=1, room=10).tolist() == [0]
    assert packed(np.array([4, 6]), joint=1, room=10).tolist() == [0, 1]
    assert packed(np.array([], np.int32), joint=1, room=10).tolist() == []


def test_the_fill_is_the_share_of_places_that_are_taken(tmp_path):
    words: Any = ToBytes(100)
    split = sentences(tmp_path).split("val", ())
    whole = Packed(split, words, 100)
    real = 0
    for index in range(len(whole)):
        real += read(whole, words, index, None)
    told = whole.notes["packed: places taken of 100"]
    # By its longest texts, which evaluation does not show.
    assert 100 * real / (100 * len(whole)) - 1 <= told <= 100
    assert told > 60


def test_a_bad_text_costs_no_other(tmp_path, words):
    split = sentences(tmp_path).split("train", ())
    whole = Packed(split, words, words_limit(words))
    bad = {split.key(i) for i in range(len(split)) if not lengths_of(split, words)(i, None)}
    alone = {whole.key(i) for i in range(len(whole)) if not read(whole, words, i, None)}
    assert bad == alone != set()


def test_of_a_mixture_each_part_is_packed_by_itself(tmp_path, words):
    split = sentences(tmp_path).split("train", ())
    mixed = MixSplit({"a": split, "b": split}, [1.0, 3.0])
    whole = Packed(mixed, words, words_limit(words))
    alone = len(Packed(split, words, words_limit(words)))
    assert whole.mixture == Mixture([alone, alone], [1.0, 3.0])


BOOKS = (
    "dataset=bookcorpus",
    "dataset.passage=60",
    "model=text_only",
    "head=masked_lm",
    "tracker=none",
    "hardware=cpu",
    "hardware.threads=1",
    "trainer.batch_size=4",
    "trainer.steps=3",
    "encoder.text.max_length=256",
    "encoder.text.dim=32",
    "encoder.text.depth=1",
    "encoder.text.num_heads=2",
)


@pytest.mark.train
@pytest.mark.parametrize("word", ["trainer.pack=true", "trainer.bucket_batches=4"])
def test_text_alone_trains_packed_and_in_buckets(data, tmp_path, word):
    words = (*BOOKS, f"paths.data='{data / 'books/bookcorpus_layout'}'", word)
    (tmp_path / "looked at").mkdir()
    job = assemble(load(*words), tmp_path / "looked at")
    if "pack" in word:
        assert job.train.notes["packed: places taken of 100"] > 75
        assert job.train.notes["texts packed"] > 2 * len(job.train)
    (tmp_path / "run").mkdir()
    run_training(load(*words), tmp_path / "run", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trainer.pack=true", "model=text_only"), "have no label: it needs head=masked_lm"),
        (("trainer.pack=true", "head=masked_lm"), r"have no picture: leave it out"),
        (("trainer.pack=true", "model=image_only"), "there is no encoder/text"),
        (("trainer.bucket_batches=5", "model=image_only"), "there is no encoder/text"),
        (("trainer.bucket_batches=0",), "a whole number of at least 1 or null"),
    ],
)
def test_what_cannot_be_packed_or_sorted_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        load(*words)
