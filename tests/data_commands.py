"""What the tests of mmnet.data's commands share: facts of a dataset, and verifying one."""

from pathlib import Path
from typing import Any

import yaml

from mmnet.data_commands import options
from mmnet.data_commands.chosen import choose
from mmnet.data_commands.verify import verify
from mmnet.errors import UserError


def write_facts(folder: Path, **more: Any) -> Path:
    """facts.yaml in a folder: the least that facts have, and `more`."""
    usual = {
        "title": "Mine",
        "homepage": "https://example.org",
        "licence": "mine",
        "citation": "@misc{mine}",
        "access": "open",
    }
    path = folder / "facts.yaml"
    path.write_text(yaml.safe_dump(usual | more), "utf-8")
    return path


def verified(*words: str) -> tuple[list[str], UserError | None]:
    """The lines that verify says, and what it ends with if that is an error."""
    chosen, asked = options.read(words, options.Verify, choose)
    lines: list[str] = []
    try:
        for line in verify(chosen, asked):
            lines.append(line)
    except UserError as error:
        return lines, error
    return lines, None
