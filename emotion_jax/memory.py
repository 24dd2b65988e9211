"""Memory that is free within the process, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Returns what was freed to the system; where the C library is not glibc, does nothing.

    glibc keeps freed memory for each thread that ever asked for some, and most of it for good:
    after XLA has compiled a train step that can be more than all that is in use, and what many
    threads free a little at a time (a checkpoint's arrays, a film's frames) adds up over hours.
    It takes some 20 ms.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # macOS, Windows, musl
        ctypes.CDLL(None).malloc_trim(0)
