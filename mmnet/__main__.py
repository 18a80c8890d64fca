"""`python -m mmnet` alone does nothing: it says what does."""

import sys


if __name__ == "__main__":
    commands = ", ".join(f"python -m mmnet.{name} --help" for name in ("train", "inspect", "data"))
    says = f"say what to do: {commands}"
    print(f"mmnet: error: {says}", file=sys.stderr)
    sys.exit(2)
