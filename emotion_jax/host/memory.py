"""The host's memory: how much of it there is for this process, and what is free, given back."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

# What limits a group of processes, by how Linux mounts its groups (version 2, version 1).
_LIMITS = {"": "memory.max", "memory": "memory/memory.limit_in_bytes"}


def host_limit(groups: str = "/proc/self/cgroup", mounted: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process may use: the machine's, or fewer in a container or a cluster's job.

    Args:
      groups: the file in which Linux says what groups the process is in; elsewhere there is none.
      mounted: where their limits are.
    """
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limits(groups, mounted):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            sizes.append(int(path.read_text()))
    return min(sizes)


def _limits(groups: str, mounted: str) -> Iterator[Path]:
    """The files that may limit this process, of its own group and of those that hold it."""
    with contextlib.suppress(OSError):
        for line in Path(groups).read_text().splitlines():
            _, kind, group = line.split(":", 2)
            if kind in _LIMITS:
                place = Path(mounted, _LIMITS[kind])
                inner = Path(group.lstrip("/"))
                # A container sees its own group as the root, whatever its name outside.
                for folder in (inner, *inner.parents):
                    yield place.parent / folder / place.name


def give_back() -> None:
    """Returns what was freed to the system; where the C library is not glibc, does nothing.

    glibc keeps freed memory for each thread that ever asked for some, and most of it for good:
    after XLA has compiled a train step that can be more than all that is in use, and what many
    threads free a little at a time (a checkpoint's arrays, a film's frames) adds up over hours.
    It takes some 20 ms.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # macOS, Windows, musl
        ctypes.CDLL(None).malloc_trim(0)
