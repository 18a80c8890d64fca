"""Shards in webdataset's layout: tars in which consecutive files of one key are a sample."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import pyarrow.compute as pc
from braceexpand import braceexpand

from mmnet.data.members import (
    LABELS,
    TEXTS,
    Members,
    Unreadable,
    captions_of,
    number_of,
    strings_of,
)
from mmnet.data.own import Classes, Own
from mmnet.data.places import Places, place_of
from mmnet.data.records import Found, Record
from mmnet.data.shard_format import CARD, Card, Entry, read_card, record_of
from mmnet.data.tar_index import Index, Member, index_of
from mmnet.errors import UserError, nearest
from mmnet.interfaces import Names


MOST = 1_000_000  # shards that a pattern may stand for
WORDS = {
    "image": "a picture",
    "text": "a text",
    "label": "a label",
    "labels": "labels",
    "value": "a value",
}


@dataclass
class WebDataset(Own):
    """Samples of tar shards, each read where it lies.

    The key of a sample is the path up to the first dot of the file's name, as webdataset has it;
    its files count wherever they lie in the shard. What is no part of a sample (links, devices,
    pickles) is left out and counted. Shards are for train or val where their names say so
    (val-000000.tar, valid/00.tar). What `prepare` wrote is read as it was.

    shards: which of the folder's tars, as names with * or {000..007}, or several of them; None:
    all. text, label, labels, value: a file's extension or a field of its JSON, see data.members;
    None: of texts and labels the usual ones. needs: what a sample may not lack.

    Raises UserError where a shard is damaged, naming it and the byte.
    """

    shards: str | list[str] | None
    needs: list[Literal["image", "text"]]
    text: str | None
    label: str | None
    labels: str | None
    value: str | None

    title: ClassVar[str] = "webdataset"
    layouts: ClassVar[list[list[str]]] = [["*.tar"], ["*.tar.gz"], ["*.tgz"], ["train/*.tar"]]

    def __post_init__(self) -> None:
        super().__post_init__()
        card = self._card
        if card is not None:  # what is peculiar to the dataset that was prepared
            vars(self)["unsaid"] = float("nan") if card.unsaid is None else card.unsaid

    def sources(self) -> list[Path]:
        patterns = [self.shards] if isinstance(self.shards, str) else self.shards
        found = self._all() if patterns is None else self._asked_for(patterns)
        card = self.folder / CARD
        return [*found, card] if card.is_file() else found

    def settings(self) -> dict[str, Any]:
        fields = ("needs", "text", "label", "labels", "value", "num_classes")
        named = [*(self.train_split or ()), *(self.val_split or ())]
        return {**{name: getattr(self, name) for name in fields}, "splits": named}

    def roles(self) -> Mapping[str, list[str]]:
        return {} if self._card is None else self._card.roles

    def missing(self, target: str) -> str:
        if target == "label":
            return f"it may be in {' or '.join(LABELS)}, or where dataset.label says"
        return f"dataset.{target} says where it is, such as json.{target}"

    def picture(self, place: str) -> bytes:
        return self._files.read(place)

    def records(self, found: Found) -> Iterator[Record]:
        shards = [path for path in self.sources() if path.name != CARD]
        if self._card is not None:
            yield from self._prepared(shards, self._card, found)
            return
        classes, labels = self._classes(shards)
        found.names.append(Names(classes=classes.names, labels=labels.names))
        seen, lacking = Counter(dict.fromkeys(WORDS, 0)), Counter[str]()
        extensions: set[str] = set()
        for path in shards:
            index, name = index_of(path), path.relative_to(self.folder).as_posix()
            found.notes.update(index.notes)
            split = self.named_split(name)
            for key, list_of in index.samples():
                members = self._members(name, list_of)
                extensions |= members.by_extension.keys()
                try:
                    record = self._record(members, name, classes, labels)
                except Unreadable as problem:
                    found.notes[f"samples with {problem}"] += 1
                    continue
                has = {field: self._has(record, field) for field in seen}
                lacking.update(field for field in has if not has[field])
                seen.update(field for field in has if has[field])
                if all(has[what] for what in self.needs) and (has["image"] or has["text"]):
                    yield record._replace(key=f"{name}/{key}", split=split)
        self._check(seen, extensions)
        for field, count in lacking.items():
            if field != "labels" and (seen[field] or field in self.needs):
                found.notes[f"samples without {WORDS[field]}"] = count

    # What there is

    @cached_property
    def _card(self) -> Card | None:
        return read_card(self.folder)

    @cached_property
    def _files(self) -> Places:
        return Places(self.folder)

    def _all(self) -> list[Path]:
        kinds = ("*.tar", "*.tar.gz", "*.tgz")
        found = {path for kind in kinds for path in self.folder.glob(kind)}
        if not found:
            found = {path for kind in kinds for path in self.folder.glob(f"*/{kind}")}
        return sorted(path for path in found if path.is_file() and path.name[0] != ".")

    def _asked_for(self, patterns: list[str]) -> list[Path]:
        found: dict[Path, None] = {}
        for pattern in patterns:
            if pattern.startswith("pipe:") or "://" in pattern:
                raise UserError(
                    f"dataset.shards={pattern}: random access is to files; streams are read with "
                    f"dataset=stream"
                )
            try:
                names = list(islice(braceexpand(pattern), MOST))
            except ValueError as error:
                raise UserError(f"dataset.shards={pattern}: {error}") from error
            for name in names:
                if not set(name) & set("*?["):
                    paths = [path] if (path := self.folder / name).is_file() else []
                elif Path(name).is_absolute():
                    paths = sorted(Path(name).parent.glob(Path(name).name))
                else:
                    paths = sorted(self.folder.glob(name))
                if not paths:
                    near = nearest(name, [path.name for path in self._all()])
                    raise UserError(f"dataset.shards={pattern}: {self.folder} has no {name}{near}")
                found.update(dict.fromkeys(paths))
        return list(found)

    # What a sample says

    def _members(self, name: str, members: list[Member]) -> Members:
        def read(member: Member) -> bytes:
            return self._files.read(place_of(name, *member[1:]))

        return Members(members, read)

    def _classes(self, shards: list[Path]) -> tuple[Classes, Classes]:
        """All labels there are, in the order in which they are numbered."""

        def values(field: Literal["label", "labels"]) -> Iterator[Any]:
            for path in shards:
                index, name = index_of(path), path.relative_to(self.folder).as_posix()
                if not self._may_have(index, field):
                    continue
                for _, list_of in index.samples():
                    try:
                        yield from self._named(self._members(name, list_of), field)
                    except Unreadable:
                        continue  # counted when the sample is read

        numbered = Classes(values("label")).at_least(self.num_classes)
        return numbered, Classes(values("labels"))

    def _may_have(self, index: Index, field: Literal["label", "labels"]) -> bool:
        asked = getattr(self, field)
        if asked is None:
            ours = bool(pc.any(pc.match_substring(index.table.column("extension"), "cls")).as_py())
            return field == "label" and ours
        return True

    def _named(self, members: Members, field: Literal["label", "labels"]) -> list[Any]:
        asked = getattr(self, field)
        if asked is None and field == "labels":
            return []
        found = members.value((asked,) if asked else LABELS[:1])
        if field == "labels":
            return strings_of(found)
        if isinstance(found, str):
            found = found.strip()
        return [] if found is None or found == "" or isinstance(found, list | dict) else [found]

    def _record(self, members: Members, name: str, classes: Classes, labels: Classes) -> Record:
        picture = members.picture()
        label = self._named(members, "label")
        present = self._named(members, "labels")
        places = sorted({place for one in present if (place := labels(one)) is not None})
        return Record(
            key="",
            image=None if picture is None else place_of(name, *picture[1:]),
            captions=captions_of(members.value((self.text,) if self.text else TEXTS)),
            label=classes(label[0]) if label else None,
            present=None if self.labels is None else tuple(places),
            value=None if self.value is None else number_of(members.value((self.value,))),
        )

    @staticmethod
    def _has(record: Record, what: str) -> bool:
        match what:
            case "image":
                return record.image is not None
            case "text":
                return bool(record.captions)
            case "labels":
                return bool(record.present)
            case "label":
                return record.label is not None
        return record.value is not None

    def _check(self, seen: Mapping[str, int], extensions: set[str]) -> None:
        """Raises UserError where a setting names what no sample has."""
        for field, count in seen.items():
            asked = getattr(self, field, None)  # a picture is not asked for by name
            if asked is not None and not count:
                there = ", ".join(sorted(extensions)[:20])
                raise UserError(
                    f"dataset.{field}={asked}: no sample of {self.folder} has it"
                    f"{nearest(asked, extensions)}; the files of samples are {there or 'none'}"
                )

    def _prepared(self, shards: list[Path], card: Card, found: Found) -> Iterator[Record]:
        names = card.names
        found.names.append(Names(names.classes, names.labels, names.unit))
        found.notes.update(card.notes)
        if self.shards is None:
            gone = card.shards.keys() - {path.name for path in shards}
            if gone:
                raise UserError(f"{self.folder}: lacks {', '.join(sorted(gone)[:5])}, of {CARD}")
        for path in shards:
            index, name = index_of(path), path.relative_to(self.folder).as_posix()
            if index.num_samples != card.shards.get(path.name, index.num_samples):
                raise UserError(
                    f"{path}: {index.num_samples:,} samples, but {CARD} says "
                    f"{card.shards[path.name]:,}"
                )
            for _, list_of in index.samples():
                members = self._members(name, list_of)
                picture = members.picture()
                try:
                    entry = msgspec.json.decode(members.value(("json",)) or "", type=Entry)
                except (Unreadable, msgspec.MsgspecError, RecursionError):
                    found.notes["samples whose json is malformed or damaged"] += 1
                    continue
                place = None if picture is None else place_of(name, *picture[1:])
                record = record_of(entry, place)
                yield record._replace(split=record.split or self.named_split(name))
