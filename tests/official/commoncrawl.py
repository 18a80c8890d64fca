"""Common Crawl: a WET file, one gzip member a record."""

import gzip
from pathlib import Path


WORDS = ("model=text_only", "head=masked_lm", "dataset.val_fraction=0.2")
CHANGES = {"languages": "[deu]"}
NAME = "CC-MAIN-20240517233122-20240518023122-00000.warc.wet.gz"


def make(folder: Path, data: Path) -> None:
    pages = [
        (
            f"https://host{n}.org/page",
            f"Page {n}.\n" + f"Wörter {n}. " * 9,
            ("eng,deu", "deu")[n % 2],
        )
        for n in range(40)
    ]
    (folder / NAME).write_bytes(b"".join(map(gzip.compress, records(pages))))


def records(pages: list[tuple[str, str, str]]) -> list[bytes]:
    """(address, text, languages; "": not told) of each page, after what begins a file."""
    written = [record("warcinfo", "operator: nobody\r\n", "WARC-Filename: x.warc.wet.gz")]
    for url, text, languages in pages:
        told = [f"WARC-Target-URI: {url}", "Content-Type: text/plain"]
        if languages:
            told.append(f"WARC-Identified-Content-Language: {languages}")
        written.append(record("conversion", text, *told))
    return written


def record(kind: str, text: str, *told: str) -> bytes:
    body = text.encode()
    head = ["WARC/1.0", f"WARC-Type: {kind}", *told, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body + b"\r\n\r\n"
