"""`python -m mmnet.data`, which stands in mmnet.data_commands."""

import os
import signal
from types import FrameType
from typing import NoReturn


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C in the middle of somebody's import."""
    os.write(2, b"mmnet: stopped; mmnet.data with the same words goes on\n")
    os._exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, leave)
    from mmnet.data_commands.cli import cli

    cli()
