"""What a person at the terminal reads while stages run."""

import sys


def say(line: str) -> None:
    """Progress, for terminal and log."""
    print(line, file=sys.stderr, flush=True)
