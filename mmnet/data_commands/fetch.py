"""One file over HTTP: what is here already is kept, what is cut off goes on, and it is whole."""

import re
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from tqdm import tqdm
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry, Timeout

from mmnet import __version__
from mmnet.data_commands.digest import CHUNK, digest
from mmnet.data_commands.facts import File
from mmnet.errors import UserError, first_line


PASSING = (408, 429, 500, 502, 503, 504)  # answers that another try may mend
LONGEST = 60.0  # seconds between two tries


def fetch(file: File, url: str, folder: Path, *, retries: int, timeout: float) -> str:
    """Bring `file` to `folder`; what was done, in words.

    It is written beside its name and gets that name once its size and checksum are those of the
    facts. Of what a stopped download left only the rest is asked for.
    Raises UserError when it cannot be had, or is another file than expected.
    """
    path = folder / file.name
    if path.exists():
        wrong = differs(file, path)
        if wrong:
            raise UserError(f"{path}: {wrong}; remove it, and it is downloaded again")
        return f"{file.name}: here already"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _pool(url, timeout) as pool:
        _whole(pool, url, part, file, retries)
    wrong = differs(file, part)
    if wrong:
        part.unlink()
        raise UserError(f"{url}: {wrong}: it was not kept")
    part.replace(path)
    _mark(part).unlink(missing_ok=True)
    told = f"{file.checksum[0]} as published" if file.checksum else "no checksum is published"
    return f"{file.name}: {path.stat().st_size:,} bytes, {told}"


def _whole(pool: urllib3.PoolManager, url: str, part: Path, file: File, retries: int) -> None:
    """Ask for the rest until nothing lacks; `retries` times in a row without a byte more."""
    fresh = Retry(total=retries, status_forcelist=PASSING, backoff_factor=0.5, backoff_max=LONGEST)
    retry = fresh
    while True:
        before = _size(part)
        try:
            return _rest(pool, url, part, file, retry)
        except MaxRetryError as error:
            raise UserError(f"{url}: {retries + 1} tries failed: {_why(error)}") from error
        except HTTPError as error:  # cut off in the middle
            try:
                retry = (fresh if _size(part) > before else retry).increment(
                    "GET", url, error=error
                )
            except HTTPError:
                raise UserError(
                    f"{url}: {retries + 1} tries failed, {part.name} is kept for the next: "
                    f"{first_line(error)}"
                ) from error
            retry.sleep()


def differs(file: File, path: Path) -> str:
    """In what a file is not as published; empty if in nothing that is known."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"{size:,} bytes, expected {file.bytes:,}"
    if file.checksum is not None:
        kind, expected = file.checksum
        got = digest(path, kind)
        if got != expected:
            return f"its {kind} is {got}, expected {expected}"
    return ""


def _rest(pool: urllib3.PoolManager, url: str, part: Path, file: File, retry: Retry) -> None:
    """Append to `part` what it lacks. Raises HTTPError when cut off, UserError when refused."""
    mark = _mark(part)
    start = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"mmnet/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if mark.exists():  # of another state of the file the server sends all
            headers["If-Range"] = mark.read_text("utf-8")
    answer = pool.request("GET", url, headers=headers, preload_content=False, retries=retry)
    try:
        if answer.status == 416 and start:  # nothing is behind it, or it is no part of this file
            if file.bytes != start:
                part.unlink()
                mark.unlink(missing_ok=True)
                raise HTTPError("what was there did not belong to this file")
            return
        if answer.status not in (200, 206):
            raise UserError(f"{url}: the server answers {answer.status} {answer.reason or ''}")
        whole = answer.status == 200
        if whole:
            start = 0
        elif not re.match(rf"bytes {start}-", answer.headers.get("Content-Range", "")):
            raise UserError(f"{url}: the server sends another part than was asked for")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if total is not None and file.bytes is not None and total != file.bytes:
            raise UserError(f"{url}: {total:,} bytes, expected {file.bytes:,}: not downloaded")
        state = answer.headers.get("ETag", "")
        if state and not state.startswith("W/"):
            mark.write_text(state, "utf-8")
        with part.open("wb" if whole else "ab") as stream:
            _pour(answer, stream, total, file.name, start)
    finally:
        answer.close()


def _pour(
    answer: urllib3.BaseHTTPResponse, stream: BinaryIO, total: int | None, name: str, start: int
) -> None:
    with _bar(total, name, start) as bar:
        while chunk := answer.read1(CHUNK):  # read() would lose what came just before a cut
            stream.write(chunk)
            bar.update(len(chunk))


def _bar(total: int | None, name: str, start: int) -> "tqdm[NoReturn]":
    return tqdm(
        total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None, leave=False
    )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _mark(part: Path) -> Path:
    """Where the state of the file that `part` belongs to is kept (its ETag)."""
    return part.with_name(f"{part.name}.etag")


def _pool(url: str, timeout: float) -> urllib3.PoolManager:
    """Connections as the environment says (http_proxy, no_proxy)."""
    address = urlsplit(url)
    proxy = getproxies().get(address.scheme)
    wait = Timeout(connect=timeout, read=timeout)
    if proxy and not proxy_bypass(address.netloc):
        return urllib3.ProxyManager(proxy, timeout=wait)
    return urllib3.PoolManager(timeout=wait)


def _why(error: MaxRetryError) -> str:
    return first_line(error.reason) if error.reason is not None else first_line(error)
