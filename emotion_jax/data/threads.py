"""Rows and pictures of a data set are read and encoded by several threads, in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from emotion_jax.host import threads
from emotion_jax.host.threads import CORES

In = TypeVar("In")
Out = TypeVar("Out")

THREADS = min(CORES, 16)  # disks have ends

# Items under way, a thread: enough that one large picture does not hold up the others.
AHEAD = 4


def map_ahead(function: Callable[[In], Out], items: Iterable[In]) -> Generator[Callable[[], Out]]:
    """Applies a function to items, see `threads.map_ahead`."""
    return threads.map_ahead(function, items, threads=THREADS, ahead=THREADS * AHEAD)
