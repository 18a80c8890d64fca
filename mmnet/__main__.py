"""`python -m mmnet` alone does nothing: it says what does."""

import sys


if __name__ == "__main__":
    says = "say what to do: python -m mmnet.train --help, or python -m mmnet.inspect --help"
    print(f"mmnet: error: {says}", file=sys.stderr)
    sys.exit(2)
