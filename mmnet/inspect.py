"""Look at a network before it trains: `python -m mmnet.inspect model=late_fusion hardware=a100`."""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from mmnet.columns import aligned
from mmnet.compose import load
from mmnet.config import Run
from mmnet.errors import UserError, report


if TYPE_CHECKING:
    from mmnet.anatomy import Memory, Row

DEPTH = 3
HELP = """\
Look at a network before it trains: its tree with shapes, parameters and FLOPs, what memory a
step takes, and how many samples fit at once.

  python -m mmnet.inspect model=late_fusion
  python -m mmnet.inspect model=guide hardware=a100 trainer.batch_size=512

It takes the words that mmnet.train takes. No weights are downloaded and no data is read; a
vocabulary that is named on the hub is fetched once.
"""


def cli() -> None:
    """The command."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, without a word
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    try:
        run = load(*arguments)
        # In the working folder, so that parts of a study, experiments.*, are found.
        sys.path.append(os.getcwd())  # noqa: PTH109
        for line in inspect(run):
            print(line)
    except UserError as error:
        print(report(error), file=sys.stderr)
        sys.exit(error.exit_code)


def inspect(run: Run) -> list[str]:
    """What there is to say, by line. Raises UserError where two parts do not fit together."""
    from mmnet import anatomy
    from mmnet.assembly import check_parts
    from mmnet.hardware import capacity, planned
    from mmnet.library import unpretrained
    from mmnet.model import without_data

    run = unpretrained(run)
    check_parts(run)
    network = without_data(run)
    anatomy.check_widths(network)
    rows = anatomy.rows(network, DEPTH)
    _, precision = planned(run.hardware)
    memory = anatomy.memory(network, run, precision)
    where, available = capacity(run.hardware)
    return [run.name, *table(rows), "", *advice(run, memory, precision, where, available)]


def table(rows: "list[Row]") -> list[str]:
    """The tree, right-aligned numbers."""
    cells = [("", "", "output", "parameters", "MFLOPs a sample")]
    for row in rows:
        frozen = "" if row.trainable == row.parameters else f" ({row.trainable:,} trained)"
        cells.append(
            (
                "  " * row.depth + row.name,
                row.kind,
                row.output,
                f"{row.parameters:,}{frozen}",
                f"{row.flops / 1e6:,.2f}",
            )
        )
    return aligned(cells, right=(3, 4))


def advice(run: Run, memory: "Memory", precision: str, where: str, available: int) -> list[str]:
    """Memory of a training step and the largest micro-batch."""
    batch, micro = run.trainer.batch_size, run.micro_batch_size
    most = min(memory.fits(available), batch)
    whole = max((n for n in range(1, most + 1) if batch % n == 0), default=0)
    lines = [
        f"training in {precision}: {gb(memory.fixed)} for weights, gradients and optimizer, and "
        f"{gb(memory.per_sample)} a sample at once",
        f"micro-batch of {micro}: about {gb(memory.at(micro))} of the {gb(available)} of {where}",
    ]
    if not whole:
        lines.append(
            "not one sample fits: hardware.activation_checkpointing=true, a smaller network, or "
            "more memory"
        )
    elif whole == batch:
        lines.append(f"the whole batch of {batch} fits at once")
    else:
        lines.append(f"the largest that fits: hardware.micro_batch_size={whole}")
    return lines


def gb(count: Any) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


if __name__ == "__main__":
    cli()
