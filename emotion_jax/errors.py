"""The one exception that means "the input is wrong", and the one place that catches it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class EmotionError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do about it.

    What it quotes, a file's name or a flag, may hold line breaks and a terminal's commands: these
    are shown as Python writes them.
    """

    def __init__(self, sentence: str):
        """Takes the sentence, without a full stop."""
        super().__init__(_show(sentence))


def _show(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def run(main: Callable[[], int | None], *, debug: bool = False) -> int:
    """Calls `main` and turns bad input and failing disks into one line on standard error.

    Args:
      main: the program; what it returns is the exit status (None means 0).
      debug: let the exception through, with its traceback.

    Returns:
      The exit status: that of `main`, 2 for bad input, 130 for Ctrl-C.
    """
    try:
        return main() or 0
    except EmotionError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # What no one below could say better: a full disk, a folder that may not be written.
        if debug:
            raise
        where = f" '{error.filename}'" if error.filename else ""
        what = f"{error.strerror or error}{where}"
        print(f"error: {_show(what)}; what was written before is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if debug:
            raise
        if not stop.args:  # else it has been said
            print("stopped", file=sys.stderr)
        return 130
