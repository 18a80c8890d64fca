"""Prepare, verify, describe, download and probe a dataset: `python -m mmnet.data <command>`."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence

from mmnet.compose import load
from mmnet.data_commands import options
from mmnet.data_commands.chosen import choose
from mmnet.errors import UserError, nearest, report


HELP = """\
Do something with a dataset beside training on it.

  python -m mmnet.data prepare  dataset=coco out=shards/coco       write shards, read fast
  python -m mmnet.data verify   dataset=coco                       hold it against what is published
  python -m mmnet.data describe dataset=coco out=cards/coco        a card with plots and samples
  python -m mmnet.data download dataset=coco                       how to get it; run=true: get it
  python -m mmnet.data probe    dataset=coco model=late_fusion     what keeps a step waiting

Each takes the words that mmnet.train takes (dataset=..., dataset.root=..., paths.data=...) and
options of its own: python -m mmnet.data <command> --help.
"""

PREPARE = """\
Write a dataset as webdataset shards with an index beside them, which
dataset=webdataset dataset.root=<out> trains on: the same samples, labels and splits.

  python -m mmnet.data prepare dataset=coco paths.data=/data out=shards/coco short_side=512

  out=<folder>       where shards go
  short_side=<n>     shrink pictures whose shorter side is longer (JPEG, quality 95); null: none,
                     files are copied byte by byte
  shard_mb=<n>       about so large is a shard (256)
  workers=<n>        processes (as many as there are cores)
  decode=false       do not look into pictures for damage; true does

Stopped at any moment, the same command goes on, and ends with the same bytes. Samples that cannot
be read are left out, counted and named in <out>/bad.jsonl; dataset.on_bad_sample and
dataset.max_bad_fraction say how many may be.
"""

VERIFY = """\
Hold a dataset against what its publisher says of it: sizes and checksums of files, counts of each
split, and whether pictures can be decoded. The exit code is 1 if something is wrong.

  python -m mmnet.data verify dataset=coco paths.data=/data pictures=all

  pictures=<n>|all   so many are decoded, evenly spread (1000)
  facts=<file>       a YAML file like those in mmnet/dataset/facts in place of mmnet's own
"""

DESCRIBE = """\
Write a card of a dataset: counts, lengths of texts, sizes of pictures, balance of labels,
duplicates, licence, citation, dead links, and a sheet of real samples.

  python -m mmnet.data describe dataset=coco paths.data=/data out=cards/coco

  out=<folder>       where README.md and its pictures go
  pictures=<n>|all   so many are measured and compared, evenly spread (1000)
  facts=<file>       a YAML file like those in mmnet/dataset/facts in place of mmnet's own
"""

DOWNLOAD = """\
Say how a dataset is got from its publisher; with run=true get what needs no account.

  python -m mmnet.data download dataset=coco
  python -m mmnet.data download dataset=coco out=/data/coco run=true

  out=<folder>       where it goes (the dataset's name below paths.data)
  run=true           do it: stopped, the same command goes on where it was; checksums are checked
  edition=<name>     which of several (the first)
  mirror=<address>   below which the same files lie, in place of the publisher's address
  retries=<n>        of each file (5)
  timeout=<seconds>  without a byte (60)
  img2dataset=<program>  for lists of addresses; it wants an environment of its own
  facts=<file>       a YAML file like those in mmnet/dataset/facts in place of mmnet's own
"""

PROBE = """\
Say whether reading data or computing is what a training step waits for, and what to change.

  python -m mmnet.data probe dataset=coco model=late_fusion hardware=auto paths.data=/data

  steps=<n>          so many are timed: of reading alone, of computing alone, of both (20)

It takes every word that mmnet.train takes, and leaves nothing behind.
"""


def prepare(arguments: Sequence[str]) -> Iterable[str]:
    dataset, asked = options.read(arguments, options.Prepare, choose)
    from mmnet.data_commands.prepare import prepare as command

    return command(dataset, asked)


def verify(arguments: Sequence[str]) -> Iterable[str]:
    dataset, asked = options.read(arguments, options.Verify, choose)
    from mmnet.data_commands.verify import verify as command

    return command(dataset, asked)


def describe(arguments: Sequence[str]) -> Iterable[str]:
    dataset, asked = options.read(arguments, options.Describe, choose)
    from mmnet.data_commands.describe import describe as command

    return command(dataset, asked)


def download(arguments: Sequence[str]) -> Iterable[str]:
    dataset, asked = options.read(arguments, options.Download, choose)
    from mmnet.data_commands.download import download as command

    return command(dataset, asked)


def probe(arguments: Sequence[str]) -> Iterable[str]:
    run, asked = options.read(arguments, options.Probe, lambda words: load(*words))
    from mmnet.data_commands.probe import probe as command

    return command(run, asked)


Command = Callable[[Sequence[str]], Iterable[str]]
COMMANDS: dict[str, tuple[Command, str]] = {
    "prepare": (prepare, PREPARE),
    "verify": (verify, VERIFY),
    "describe": (describe, DESCRIBE),
    "download": (download, DOWNLOAD),
    "probe": (probe, PROBE),
}


def cli() -> None:
    """The installed command, and `python -m mmnet.data`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, without a word
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, *arguments = sys.argv[1:] or [""]
    asks = {"-h", "--help"} & {name, *arguments}
    if asks and (name in COMMANDS or name in asks):
        print(COMMANDS[name][1] if name in COMMANDS else HELP, end="")
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # In the working folder, so that parts of a study, experiments.*, are found.
    sys.path.append(os.getcwd())  # noqa: PTH109
    try:
        if name not in COMMANDS:
            said = f"{name}: no such command{nearest(name, COMMANDS)}; " if name else ""
            raise UserError(f"{said}say what to do: python -m mmnet.data {'|'.join(COMMANDS)}")
        for line in COMMANDS[name][0](arguments):
            print(line, flush=True)
    except UserError as error:
        print(report(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"mmnet: stopped; mmnet.data {name} with the same words goes on", file=sys.stderr)
        os._exit(128 + signal.SIGINT)  # at once: whoever works for it leaves with it
