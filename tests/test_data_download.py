"""Getting a dataset from its publisher, from a server on this machine that does what they do."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmnet.data_commands import options
from mmnet.data_commands.chosen import choose
from mmnet.data_commands.download import download
from mmnet.data_commands.facts import File, facts_of, known
from mmnet.data_commands.fetch import fetch
from mmnet.data_commands.unpack import unpack
from mmnet.errors import UserError
from tests.data_commands import write_facts


CONTENT = bytes(range(256)) * 4000  # a megabyte
SHA = hashlib.sha256(CONTENT).hexdigest()
FILE = File("part/file.bin", bytes=len(CONTENT), sha256=SHA)


class Server(ThreadingHTTPServer):
    """Answers with CONTENT, or with `files`; `plan` says how the next requests go wrong."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.plan: list[Any] = []  # a status; "cut": half of what was asked for; "whole": no ranges
        self.asked: list[str | None] = []  # the Range of each request
        self.etag = '"one"'

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        fate = self.server.plan.pop(0) if self.server.plan else None
        content = self.server.files.get(self.path.rpartition("/")[2], CONTENT)
        if isinstance(fate, int):
            self.send_error(fate)
            return
        start = int(wanted[6:-1]) if wanted and fate != "whole" else 0
        if self.headers.get("If-Range", self.server.etag) != self.server.etag:
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: len(body) // 2] if fate == "cut" else body)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mmnet.data_commands.fetch.LONGEST", 0.01)  # waits between tries
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def get(server: Server, folder: Path, file: File = FILE, retries: int = 3) -> str:
    return fetch(file, f"{server.address}/{file.name}", folder, retries=retries, timeout=5)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_comes_whole_and_once(server: Server, tmp_path: Path) -> None:
    assert "sha256 as published" in get(server, tmp_path)
    assert (tmp_path / "part/file.bin").read_bytes() == CONTENT
    assert "here already" in get(server, tmp_path)
    assert len(server.asked) == 1 and left(tmp_path) == ["file.bin"]


def test_a_connection_that_is_cut_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "cut", "cut"]
    get(server, tmp_path, retries=1)  # of those without a byte more
    assert (tmp_path / "part/file.bin").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked[:3] == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_download_that_was_stopped_goes_on(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:1000])
    get(server, tmp_path)
    assert server.asked == ["bytes=1000-"]
    assert (tmp_path / "part/file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("fate", ["changed", "whole"])
def test_what_cannot_go_on_begins_anew(server: Server, tmp_path: Path, fate: str) -> None:
    part = tmp_path / "part/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"something else")
    if fate == "changed":
        part.with_name("file.bin.part.etag").write_text('"before"')
    else:
        server.plan = ["whole"]
    get(server, tmp_path)
    assert (tmp_path / "part/file.bin").read_bytes() == CONTENT


def test_all_of_it_being_there_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    get(server, tmp_path)
    assert left(tmp_path) == ["file.bin"]


def test_more_than_all_of_it_begins_anew(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    get(server, tmp_path)
    assert (tmp_path / "part/file.bin").read_bytes() == CONTENT


def test_a_server_that_is_ill_for_a_moment_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.plan = [500, 503, 429]
    get(server, tmp_path)
    assert len(server.asked) == 4


def test_a_server_that_stays_ill_is_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = [500] * 10
    with pytest.raises(UserError, match=r"3 tries failed: too many 500 error responses"):
        get(server, tmp_path, retries=2)
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_refused_is_not_asked_for_again(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.plan = [status]
    with pytest.raises(UserError, match=f"file.bin: the server answers {status}"):
        get(server, tmp_path)
    assert len(server.asked) == 1 and not left(tmp_path)


def test_another_file_than_expected_is_not_kept(server: Server, tmp_path: Path) -> None:
    wrong = File("file.bin", bytes=len(CONTENT), sha256="0" * 64)
    with pytest.raises(UserError, match=f"its sha256 is {SHA}, expected 0000.*not kept"):
        get(server, tmp_path, wrong)
    assert not [name for name in left(tmp_path) if not name.endswith(".etag")]
    with pytest.raises(UserError, match="1,024,000 bytes, expected 5: not downloaded"):
        get(server, tmp_path, File("file.bin", bytes=5))
    with pytest.raises(UserError, match="its md5 is"):
        get(server, tmp_path, File("file.bin", md5="0" * 32))


def test_a_file_of_that_name_that_is_another_is_not_replaced(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/file.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match="4 bytes, expected 1,024,000; remove it"):
        get(server, tmp_path)
    assert (tmp_path / "part/file.bin").read_bytes() == b"mine"


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 tries failed"):
        fetch(FILE, "http://127.0.0.1:9/file.bin", tmp_path, retries=1, timeout=1)


# Archives


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return content.getvalue()


@pytest.mark.parametrize(("name", "made"), [("a.zip", zipped), ("a.tar.gz", tarred)])
def test_unpacking_goes_on_where_it_was_stopped(name: str, made: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(made({"x/one": b"1", "x/two": b"22", "x/three": b"333"}))
    assert unpack(tmp_path / name, tmp_path / "out") == 3
    (tmp_path / "out/x/two").write_bytes(b"2")  # cut off
    (tmp_path / "out/x/three").unlink()
    assert unpack(tmp_path / name, tmp_path / "out") == 2
    assert (tmp_path / "out/x/two").read_bytes() == b"22"
    assert unpack(tmp_path / name, tmp_path / "out") == 0


@pytest.mark.parametrize(("name", "made"), [("a.zip", zipped), ("a.tar.gz", tarred)])
def test_an_archive_writes_nothing_outside_its_folder(name: str, made: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(made({"../outside": b"1", f"{tmp_path}/elsewhere": b"2"}))
    if name == "a.tar.gz":
        with pytest.raises(UserError, match="cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "out")
    else:
        unpack(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "elsewhere").exists()


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    for name, made in (("a.zip", zipped), ("a.tar.gz", tarred)):
        (tmp_path / name).write_bytes(made({"one": CONTENT})[:100])
        with pytest.raises(UserError, match=f"{name}: cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "out")


# The command


def told(*words: str) -> list[str]:
    dataset, asked = options.read(words, options.Download, choose)
    return list(download(dataset, asked))


def test_it_says_the_commands_and_does_nothing(tmp_path: Path) -> None:
    lines = told("dataset=coco", f"out={tmp_path / 'coco'}")
    assert not (tmp_path / "coco").exists()
    text = "\n".join(lines)
    assert "-o train2017.zip http://images.cocodataset.org/zips/train2017.zip" in text
    assert "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268" in text
    assert "2014.zip" not in text
    assert "train2014.zip" in "\n".join(told("dataset=coco", "edition=2014"))


def test_what_it_says_is_a_script_that_a_shell_carries_out(server: Server, tmp_path: Path) -> None:
    archive = zipped({"a/b.txt": b"text"})
    server.files["data.zip"] = archive
    file = {"name": "data.zip", "url": f"{server.address}/data.zip", "unpack": "."}
    sha = hashlib.sha256(archive).hexdigest()
    facts = write_facts(tmp_path, files=[file | {"sha256": sha}], by_hand="nothing")
    script = "\n".join(told("dataset=sbu", f"facts={facts}", f"out='{tmp_path / 'in here'}'"))
    subprocess.run(["bash", "-e", "-c", script], check=True, capture_output=True)
    assert (tmp_path / "in here/a/b.txt").read_bytes() == b"text"


def test_it_downloads_checks_and_unpacks(server: Server, tmp_path: Path) -> None:
    archive = tarred({"a/b.txt": b"text"})
    server.files["data.tar.gz"] = archive
    digests = {"bytes": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    file = {"name": "data.tar.gz", "url": "https://example.org/x/data.tar.gz", "unpack": "in"}
    facts = write_facts(tmp_path, files=[file | digests])
    words = ["dataset=sbu", f"facts={facts}", f"mirror={server.address}/y/", "run=true"]
    first = told(*words, f"out={tmp_path / 'data'}")
    assert (tmp_path / "data/in/a/b.txt").read_bytes() == b"text"
    assert "1 files unpacked" in first[1]
    again = told(*words, f"out={tmp_path / 'data'}")
    assert "here already" in again[0] and "is unpacked" in again[1]
    facts = write_facts(tmp_path, files=[file | {"bytes": 10**18}])
    with pytest.raises(UserError, match="GB are to be downloaded") as error:
        told(*words, f"out={tmp_path / 'more'}")
    assert error.value.exit_code == 1


@pytest.mark.parametrize("name", ["flickr30k", "imagenet1k", "mimic_cxr", "amazon", "arxiv"])
def test_of_what_needs_an_account_it_says_what_to_do(name: str, tmp_path: Path) -> None:
    facts = Path(facts_file(name))
    with pytest.raises(UserError, match="needs an account") as error:
        told("dataset=sbu", f"facts={facts}", "run=true", f"out={tmp_path / 'x'}")
    assert facts_of(name).by_hand.strip() in str(error.value)
    assert not (tmp_path / "x").exists()


def facts_file(name: str) -> Path:
    return Path(sys.modules["mmnet.data_commands.facts"].FOLDER) / f"{name}.yaml"


@pytest.mark.parametrize("name", known())
def test_facts_are_whole(name: str) -> None:
    facts = facts_of(name)
    assert facts.access in ("open", "account", "addresses", "none")
    assert facts.citation.startswith("@") and facts.homepage.startswith("https://")
    for file in facts.files:
        assert file.source and (file.sha256 is None or len(file.sha256) == 64)
        assert file.md5 is None or len(file.md5) == 32
        assert file.url is None or file.url.startswith(("https://", "http://images.cocodataset"))
    assert all(count.source and count.number > 0 for count in facts.counts)
    assert (facts.access == "open") <= any(file.url for file in facts.files)
    assert (facts.access in ("account", "none")) <= bool(facts.by_hand)
    assert (facts.access == "addresses") <= bool(facts.addresses)


# Addresses of pictures

PROGRAM = """\
#!{python}
import json, pathlib, sys
words = sys.argv[1:]
asked = dict(zip(words[::2], words[1::2], strict=True))
asked["first line"] = open(asked["--url_list"]).readline()
pathlib.Path(asked["--output_folder"], "asked.json").write_text(json.dumps(asked))
"""


def addresses(folder: Path) -> tuple[Path, Path]:
    """Facts with a list of addresses, the list, and a program that takes img2dataset's words."""
    data = folder / "data"
    data.mkdir()
    (data / "list.tsv").write_text("a dog\thttp://127.0.0.1:9/dog.jpg\n")
    listed = {"list": "list.tsv", "format": "tsv", "url": "url", "caption": "caption"}
    facts = write_facts(folder, access="addresses", addresses=[listed | {"header": "caption\turl"}])
    program = folder / "img2dataset"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return facts, program


def test_img2dataset_is_given_the_list_with_a_header(tmp_path: Path) -> None:
    facts, program = addresses(tmp_path)
    out = tmp_path / "data"
    lines = told(
        "dataset=sbu", f"facts={facts}", f"out={out}", "run=true", f"img2dataset={program}"
    )
    asked = yaml.safe_load((out / "shards/list/asked.json").read_text())
    assert asked["first line"] == "caption\turl\n"
    assert (asked["--url_col"], asked["--caption_col"]) == ("url", "caption")
    assert (out / "list.tsv").read_text().startswith("a dog")  # as it is published
    assert str(out / "shards") in lines[-1]


def test_what_it_says_of_img2dataset_does_the_same(tmp_path: Path) -> None:
    facts, program = addresses(tmp_path)
    out = tmp_path / "data"
    lines = told("dataset=sbu", f"facts={facts}", f"out={out}", f"img2dataset={program}")
    subprocess.run(["bash", "-e", "-c", "\n".join(lines)], check=True)
    asked = yaml.safe_load((out / "shards/list/asked.json").read_text())
    assert asked["first line"] == "caption\turl\n"


def test_without_img2dataset_it_says_how_to_get_it(tmp_path: Path) -> None:
    facts, _ = addresses(tmp_path)
    words = ["dataset=sbu", f"facts={facts}", f"out={tmp_path / 'data'}", "run=true"]
    with pytest.raises(UserError, match="environment of its own: python -m venv"):
        told(*words, "img2dataset=/nowhere/img2dataset")
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nexit 3\n")
    failing.chmod(0o755)
    with pytest.raises(UserError, match="ended with code 3"):
        told(*words, f"img2dataset={failing}")


@pytest.mark.skipif("MMNET_IMG2DATASET" not in os.environ, reason="img2dataset is elsewhere")
def test_the_real_img2dataset_takes_these_words(server: Server, tmp_path: Path, data: Path) -> None:
    facts, _ = addresses(tmp_path)
    picture = next((data / "coco/val2017").glob("*.jpg")).read_bytes()
    server.files["dog.jpg"] = picture
    out = tmp_path / "data"
    (out / "list.tsv").write_text(f"a dog\t{server.address}/dog.jpg\n")
    program = os.environ["MMNET_IMG2DATASET"]
    told("dataset=sbu", f"facts={facts}", f"out={out}", "run=true", f"img2dataset={program}")
    with tarfile.open(out / "shards/list/00000.tar") as shard:
        kinds = sorted(name.partition(".")[2] for name in shard.getnames())
    assert kinds == ["jpg", "json", "txt"]
