"""Does nothing until it is told to stop. Standard library only."""

import signal
import sys


def main() -> int:
    """Wait for SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
