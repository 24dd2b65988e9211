"""An ordered map over several threads that reads no further ahead than it must."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

# Items under way, a thread: enough that one large picture does not hold up the others.
AHEAD = 4


def map_ahead(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Callable[[], Out]]:
    """Applies a function that lets go of Python's lock, such as a decoder, to items in threads.

    Args:
      function: of an item.
      items: taken a few ahead of what is asked for, so that memory stays bounded.

    Yields:
      For each item, in order, a function that returns the result or raises what was raised.
    """
    threads = min(os.cpu_count() or 1, 16)  # disks have ends
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads * AHEAD:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
