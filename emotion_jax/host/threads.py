"""An ordered map over several threads, no further ahead than told, and what threads share."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

# The cores that this process may use (a job of SLURM, a container); macOS does not tell.
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def batched(items: Iterable[In], count: int) -> Iterator[list[In]]:
    """Lists of `count` items, the last one shorter; `itertools` has it from Python 3.12 on."""
    items = iter(items)
    while some := list(islice(items, count)):
        yield some


def map_ahead(
    function: Callable[[In], Out], items: Iterable[In], *, threads: int, ahead: int
) -> Generator[Callable[[], Out]]:
    """Applies a function that lets go of Python's lock, such as a decoder, to items in threads.

    Args:
      function: of an item.
      items: taken on the caller's thread.
      threads: at work at a time.
      ahead: items that are taken beyond the one yielded, so that memory stays bounded.

    Yields:
      For each item, in order, a function that returns the result or raises what was raised. Once
      the generator is closed (`contextlib.closing`), only what is under way is still finished.
    """
    waiting: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
    finally:
        pool.shutdown(cancel_futures=True)


class Shared:
    """What is entered once for all threads that are within it: by the first, until the last leaves.

    For what belongs to the whole process, such as its filters of warnings: threads that each put
    them back would put back one another's.
    """

    def __init__(self, enter: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        """Enter nothing yet; `enter` makes a context each time that the first thread comes."""
        self._enter, self._lock, self._inside = enter, threading.Lock(), 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        """Enter the context, unless another thread is within it."""
        with self._lock:
            if self._inside == 0:
                self._stack.enter_context(self._enter())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        """Leave it, unless another thread still is within it."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._stack.close()
