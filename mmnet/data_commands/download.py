"""How a dataset is got from its publisher, and getting it where that needs no account."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mmnet.data_commands.chosen import Chosen
from mmnet.data_commands.facts import Addresses, Facts, File, facts_of
from mmnet.data_commands.fetch import fetch
from mmnet.data_commands.options import Download
from mmnet.data_commands.unpack import command, unpack
from mmnet.errors import UserError


ACCESS = {
    "open": "needs no account",
    "account": "needs an account, or terms to be accepted",
    "addresses": "the publisher gives addresses of pictures, not pictures",
    "none": "is no longer distributed by its publisher",
}


def download(dataset: Chosen, asked: Download) -> Iterator[str]:
    """Line by line what there is to do, or, with `run`, what is done. Raises UserError."""
    facts = facts_of(dataset.name, asked.facts).of(asked.edition)
    folder = Path(asked.out) if asked.out is not None else dataset.data / dataset.name
    if asked.run:
        try:
            yield from _carry_out(dataset, asked, facts, folder)
        except UserError as error:
            error.exit_code = 1  # something was started
            raise
    else:
        yield from _told(dataset, asked, facts, folder)


def _told(dataset: Chosen, asked: Download, facts: Facts, folder: Path) -> Iterator[str]:
    """Commands for a shell, in comments what they are for."""
    yield f"# {facts.title}: {ACCESS[facts.access]}. {facts.homepage}"
    yield f"# licence: {facts.licence}"
    others = facts_of(dataset.name, asked.facts).editions
    if len(others) > 1:
        chosen = asked.edition or others[0]
        yield f"# edition={chosen}; there is {', '.join(others)}"
    if facts.by_hand:
        yield f"# by hand: {facts.by_hand}"
    public = [file for file in facts.files if file.url]
    if public or facts.commands or facts.addresses:
        yield f"mkdir -p {shlex.quote(str(folder))} && cd {shlex.quote(str(folder))}"
    for file in public:
        yield from _by_shell(file, _url(file, asked.mirror))
    yield from facts.commands
    for one in facts.addresses:
        yield from _img2dataset_by_shell(one, asked.img2dataset)
    if public:
        yield "# the same with run=true: resumed where it stopped, checksums checked"
    yield f"# then: {_then(dataset, facts, folder)}"


def _by_shell(file: File, url: str) -> Iterator[str]:
    name = shlex.quote(file.name)
    yield f"curl -L --fail --create-dirs -C - -o {name} {shlex.quote(url)}"
    if file.checksum:
        kind, digits = file.checksum
        yield f'echo "{digits}  {file.name}" | {kind}sum -c'
    if file.unpack is not None:
        yield command(name, file.unpack)


def _carry_out(dataset: Chosen, asked: Download, facts: Facts, folder: Path) -> Iterator[str]:
    public = [file for file in facts.files if file.url]
    if not public and not facts.addresses:
        more = "".join(f"\n  {line}" for line in facts.commands)
        what = facts.by_hand or facts.homepage
        raise UserError(f"dataset={dataset.name} {ACCESS[facts.access]}: {what}{more}")
    _check_space(public, folder)
    for file in public:
        url = _url(file, asked.mirror)
        yield fetch(file, url, folder, retries=asked.retries, timeout=asked.timeout)
        if file.unpack is not None:
            count = unpack(folder / file.name, folder / file.unpack)
            yield f"{file.name}: {count:,} files unpacked" if count else f"{file.name}: is unpacked"
    for one in facts.addresses:
        yield from _img2dataset(one, asked.img2dataset, folder)
    if facts.by_hand or facts.commands:
        yield f"by hand: {facts.by_hand}"
        yield from (f"  {line}" for line in facts.commands)
    yield f"then: {_then(dataset, facts, folder)}"


def _url(file: File, mirror: str | None) -> str:
    """Where a file is: at its own address, or under the same name below the mirror's."""
    if mirror is None:
        return str(file.url)
    return f"{mirror.rstrip('/')}/{urlsplit(str(file.url)).path.rpartition('/')[2]}"


def _check_space(files: Iterable[File], folder: Path) -> None:
    """Raises UserError if what is not here yet is larger than the disk has room for."""
    needed = sum(file.bytes or 0 for file in files if not (folder / file.name).exists())
    path = folder.absolute()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are to be downloaded, and {free / 1e9:.1f} GB are "
            f"free"
        )


# Addresses of pictures


def _arguments(one: Addresses, listed: str, out: str) -> list[str]:
    """Those of img2dataset 1.x, which goes on where it was stopped."""
    return [
        *("--url_list", listed, "--input_format", one.format),
        *("--url_col", one.url, "--caption_col", one.caption),
        *("--output_format", "webdataset", "--output_folder", out),
        *("--image_size", "512", "--resize_mode", "keep_ratio", "--resize_only_if_bigger", "True"),
        *("--processes_count", str(os.cpu_count() or 1), "--thread_count", "32"),
        *("--retries", "1", "--enable_wandb", "False"),
    ]


def _places(one: Addresses) -> tuple[str, str]:
    """The list as img2dataset reads it, and the folder of what it makes."""
    stem = one.list.partition(".")[0]
    listed = one.list if one.header is None else f"{stem}.with_header.{one.format}"
    return listed, f"shards/{stem}"


def _img2dataset_by_shell(one: Addresses, program: str) -> Iterator[str]:
    listed, out = _places(one)
    if one.header is not None:
        yield f"(printf '{_escaped(one.header)}\\n'; cat {one.list}) > {listed}"
    yield f"mkdir -p {out}"
    yield shlex.join([program, *_arguments(one, listed, out)])


def _img2dataset(one: Addresses, program: str, folder: Path) -> Iterator[str]:
    """Raises UserError if there is no such program, or it fails."""
    source = folder / one.list
    if not source.exists():
        raise UserError(f"{source}: the list of addresses is not here: download it first")
    found = shutil.which(program)
    if found is None:
        raise UserError(
            f"img2dataset={program}: there is no such program. It wants other versions of what "
            f"mmnet uses, so give it an environment of its own: python -m venv img2dataset && "
            f"img2dataset/bin/pip install img2dataset, then add "
            f"img2dataset=img2dataset/bin/img2dataset"
        )
    listed, out = _places(one)
    if one.header is not None:
        _put_in_front(one.header, source, folder / listed)
    (folder / out).mkdir(parents=True, exist_ok=True)
    yield f"{one.list}: {program} downloads into {folder / out}"
    done = subprocess.run([str(Path(found).absolute()), *_arguments(one, listed, out)], cwd=folder)
    if done.returncode:
        raise UserError(f"{program} ended with code {done.returncode}; started again it goes on")


def _put_in_front(header: str, source: Path, path: Path) -> None:
    """A copy with a header, for a list that has none; the list stays as it is published."""
    temporary = path.with_name(f".{path.name}")
    with source.open("rb") as lines, temporary.open("wb") as copy:
        copy.write(f"{header}\n".encode())
        shutil.copyfileobj(lines, copy)
    temporary.replace(path)


def _escaped(header: str) -> str:
    return header.replace("\t", "\\t")


def _then(dataset: Chosen, facts: Facts, folder: Path) -> str:
    if facts.addresses:
        return f"python -m mmnet.train dataset=laion dataset.root={folder / 'shards'}"
    return f"python -m mmnet.data verify dataset={dataset.name} paths.data={folder}"
