"""Train a policy of the double loop: `python -m mmnet.meta_train`."""

import sys


if __name__ == "__main__":
    from mmnet import train

    # Behind a path of its own, so that --help and errors are those of the one entrypoint.
    sys.argv[1:] = ["task=meta_train", "name=meta", "controller=double_loop", *sys.argv[1:]]
    train.cli()
