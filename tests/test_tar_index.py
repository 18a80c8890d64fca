"""Tars are read strictly: what is damaged is named, what is whole is found where it lies."""

import gzip
import io
import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from mmnet.data.places import Places, place_of
from mmnet.data.tar import walk
from mmnet.data.tar_index import Index, index_of, index_path, write_index
from mmnet.errors import UserError
from tests.official.webdataset import write_tar


FULL = bool(os.environ.get("MMNET_FULL"))
FILES = [
    (f"{number:04d}.{extension}", random.Random(number).randbytes(300 * number % 1700))
    for number in range(12)
    for extension in ("jpg", "txt", "json")
]
LONG = "a folder with a long name/" * 8


def shard(folder: Path, kind: int = tarfile.PAX_FORMAT, name: str = "shard.tar") -> Path:
    """Thirty-six files, some with names that a plain header has no room for."""
    files = [
        (LONG + name if number % 9 == 4 else name, content)
        for number, (name, content) in enumerate(FILES)
    ]
    write_tar(folder / name, files, kind)
    return folder / name


def seen(index: Index) -> list[tuple[str, str, int, int]]:
    return [(key, *member[:3]) for key, members in index.samples() for member in members]


def headers(path: Path) -> list[int]:
    """Where the headers of members are, those of long names not among them."""
    with tarfile.open(path) as tar:
        return [member.offset_data - 512 for member in tar]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_tarfile_finds_them(kind: int, tmp_path: Path) -> None:
    path = shard(tmp_path, kind)
    found = {(entry.name, entry.offset, entry.size) for entry in walk(path, path.read_bytes())}
    with tarfile.open(path) as tar:
        assert found == {(member.name, member.offset_data, member.size) for member in tar}
    assert len(found) == len(FILES)


def test_any_member_is_read_alone_and_a_second_index_is_the_first(tmp_path: Path) -> None:
    path = shard(tmp_path)
    index = write_index(path, checksums=True)
    again = index_of(path)
    assert again.table.equals(index.table) and again.num_samples == index.num_samples
    opened, contents = Places(tmp_path), dict(FILES)
    for key, members in again.samples():
        for member in members:
            name = f"{key.rpartition('/')[2]}.{member.extension}"
            content = opened.read(place_of(path.name, *member[1:]))
            assert content == contents[name]
    columns = [again.table.column(name) for name in ("offset", "size", "crc32")]
    assert sum(column.nbytes for column in columns) / len(FILES) <= 20  # on disk; mapped


def test_one_flipped_bit_in_a_header_is_named_or_harmless(tmp_path: Path) -> None:
    """200 times in the full tier; webdataset's reader loses samples without a word in 196."""
    path = shard(tmp_path)
    good, whole = seen(index_of(path)), path.read_bytes()
    index_path(path).unlink()
    rng, harmless = random.Random(6), 0
    every = [place for start in headers(path) for place in range(start, start + 512)]
    for _ in range(200 if FULL else 40):
        place = rng.choice(every)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert seen(index_of(path)) == good
            harmless += 1
        except UserError as error:
            assert str(path) in str(error) and "at byte" in str(error)
            said = int(str(error).split("at byte ")[1].split(":")[0].replace(",", ""))
            assert said <= place < said + 512
        index_path(path).unlink(missing_ok=True)
    assert harmless <= 4


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = shard(tmp_path)
    whole = path.read_bytes()
    starts = headers(path)
    end = whole.rstrip(b"\0")
    ends = -(-len(end) // 512) * 512  # where the blocks of zeros begin
    inside = [starts[5] + 100, starts[5] + 512 + 7, starts[5], starts[1], ends, ends + 512, 511, 1]
    for size in [*inside, ends + 700]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"damaged or cut short at byte [\d,]+"):
            index_of(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        index_of(path)
    path.write_bytes(whole[: ends + 1024])  # what tar itself writes with a blocking factor of 1
    assert index_of(path).num_samples == 16


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda tar: tar + b"rest" * 128, "behind the end"),
        (lambda tar: tar + tar, "behind the end"),
        (lambda tar: b"no tar at all, but long enough" * 100, "checksum"),
        (lambda tar: bytes(1024) + tar, "behind the end"),
        (lambda tar: tar[:512] + bytes(1024) + tar[1536:], "behind the end"),
    ],
)
def test_what_else_is_no_tar(damage, says: str, tmp_path: Path) -> None:
    path = shard(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=says):
        index_of(path)


def test_members_that_are_no_files_are_counted_and_nothing_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    path = tmp_path / "odd.tar"
    kinds = {
        "link.jpg": tarfile.SYMTYPE,
        "hard.jpg": tarfile.LNKTYPE,
        "null.jpg": tarfile.CHRTYPE,
        "pipe.txt": tarfile.FIFOTYPE,
        "folder": tarfile.DIRTYPE,
    }
    with tarfile.open(path, "w") as tar:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
        for name in (
            "../../up.txt",
            "/absolute.txt",
            "plain",
            ".hidden",
            "a.__key__",
            "__m__/a.txt",
        ):
            tar.addfile(tarfile.TarInfo(name))
        for name in ("a.pyd", "a.pkl", "a.pickle", "a.PTH", "a.pyd.gz", "a.x.pkl", "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    index = index_of(path)
    assert [key for key, _ in index.samples()] == ["../../up", "/absolute", "a"]
    assert index.notes == {
        "symbolic links": 1,
        "hard links": 1,
        "devices": 1,
        "pipes": 1,
        "members whose names lead out of a folder (read as names)": 2,
        "members without an extension": 2,
        "members whose names webdataset reserves": 2,
        "pickles, which are never read": 6,
    }


def test_samples_are_put_together_wherever_their_files_lie(tmp_path: Path) -> None:
    path = tmp_path / "apart.tar"
    names = ["a.jpg", "b.jpg", "c.jpg", "a.txt", "b.txt", "c.TXT", "a.jpg"]
    write_tar(path, [(name, name.encode()) for name in names])
    index = index_of(path)
    found = {key: [member.extension for member in members] for key, members in index.samples()}
    assert found == {key: ["jpg", "txt"] for key in "abc"}
    assert index.num_samples == 3
    assert index.notes == {
        "members apart from the rest of their sample": 4,
        "members of a name that was there before": 1,
    }
    first = next(index.samples())[1][0]
    assert Places(tmp_path).read(place_of(path.name, *first[1:])) == b"a.jpg"


def test_a_changed_body_is_found_where_the_index_has_checksums(tmp_path: Path) -> None:
    path = shard(tmp_path)
    index = write_index(path, checksums=True)
    places = [
        place_of(path.name, *one[1:]) for _, some in index.samples() for one in some if one.size
    ]
    rng = random.Random(1)
    whole = path.read_bytes()
    for _ in range(200 if FULL else 40):
        victim = rng.randrange(len(places))
        offset, size = (int(part) for part in places[victim].split(":")[1:3])
        damaged = bytearray(whole)
        damaged[offset + rng.randrange(size)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        opened, bad = Places(tmp_path), []
        assert index_of(path).table.equals(index.table)  # the headers are as they were
        for number, place in enumerate(places):
            try:
                opened.read(place)
            except OSError as error:
                assert "checksum" in str(error)
                bad.append(number)
        assert bad == [victim]


def test_an_index_that_is_not_its_shards_is_no_index(tmp_path: Path) -> None:
    path = shard(tmp_path)
    write_index(path, checksums=True)
    write_tar(path, FILES[:9])
    with pytest.raises(
        UserError, match=r"3 samples .* its index knows 16 .* delete shard.tar.index"
    ):
        index_of(path)
    index_path(path).write_bytes(b"ARROW1")
    with pytest.raises(UserError, match=r"shard.tar.index: damaged"):
        index_of(path)
    index_path(path).unlink()
    assert index_of(path).num_samples == 3


def test_where_nothing_may_be_written_the_index_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    path = shard(tmp_path / "data")
    index_path(path).mkdir()  # nothing can be put there, not even by root
    assert index_of(path).num_samples == 16
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert index_of(path).num_samples == 16


def test_a_gzipped_tar_is_unpacked_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    plain = shard(tmp_path)
    packed = tmp_path / "data/shard.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    index = index_of(packed)
    assert seen(index) == seen(index_of(plain))
    assert [path.name for path in packed.parent.iterdir()] == ["shard.tar.gz"]
    shutil.rmtree(tmp_path / "cache")
    content = packed.read_bytes()
    for damaged in (content[: len(content) // 2], content[:50] + b"?" + content[51:], content[:-4]):
        packed.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged or cut short"):
            index_of(packed)
    packed.write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(UserError, match="grows to more than"):
        index_of(packed)
    packed.write_bytes(b"BZh9" + content)
    with pytest.raises(UserError, match="bzip2"):
        index_of(packed)


def test_a_shard_that_shrinks_while_it_is_read_costs_samples_and_not_the_process(
    tmp_path: Path,
) -> None:
    path = shard(tmp_path)
    places = [place_of(path.name, *one[1:]) for _, some in index_of(path).samples() for one in some]
    opened = Places(tmp_path)
    assert opened.read(places[1]) == FILES[1][1]
    os.truncate(path, 2048)
    assert opened.read(places[0]) == b""
    with pytest.raises(OSError, match="shorter"):
        opened.read(places[-1])
