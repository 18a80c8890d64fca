"""What is done with a dataset beside training on it: `python -m mmnet.data <command> ...`."""
