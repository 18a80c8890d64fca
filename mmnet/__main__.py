"""`python -m mmnet`: which commands there are."""

import sys


print(
    "mmnet: error: a command is missing: python -m mmnet.train (or mmnet-train) trains, "
    "python -m mmnet.inspect looks at a network before; each has --help",
    file=sys.stderr,
)
sys.exit(2)
