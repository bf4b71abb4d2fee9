"""The one exception that means "your input is wrong", and how a stage ends on it."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """A fault of the user's input: names the file, key or item and the mend, in one line."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage; an InputError becomes one line on stderr and exit status 1, anything else keeps its traceback."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
