"""`python -m mmnet.data`, which stands in mmnet.data_commands."""

from mmnet.data_commands.cli import cli


if __name__ == "__main__":
    cli()
