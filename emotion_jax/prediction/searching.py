"""The frames of a film with their faces, found ahead of whoever takes them, in order."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from emotion_jax.faces import SEARCH_EVERY_S, Face, Finder
from emotion_jax.video import Frame

# Frames searched at a time: dlib lets go of Python's lock. More threads would hold more frames.
_WORKERS = min(4, os.cpu_count() or 1)

# Frames decoded before they are searched: enough to bridge a key frame, which takes longer.
_DECODED = 3

# Who is to be hidden is looked for more eagerly than who is to be read.
_HIDDEN_SCORE = -0.3
# For how many frames before a face is first found it is hidden at the same place.
_HIDDEN_BEFORE = 8

T = TypeVar("T")
Searched = tuple[Frame, list[Face]]


@dataclasses.dataclass(frozen=True)
class Found:
    """A frame and what was found in it.

    Attributes:
      frame: of the film.
      faces: in it, from left to right.
      hidden: what must not be seen of it: these faces, doubtful ones, and those of the frames that
        follow; None where nothing is to be hidden.
    """

    frame: Frame
    faces: list[Face]
    hidden: list[Face] | None


def search(frames: Generator[Frame], finder: Finder, *, blur: bool = False) -> Generator[Found]:
    """Find the faces of frames, on threads of its own.

    Args:
      frames: decoded on one thread; closed with this generator.
      finder: of the faces, used by several threads at once.
      blur: find what is to be hidden, too; then every frame is searched for faces of every size,
        otherwise one every `SEARCH_EVERY_S`, and those between for faces as large as the known.

    Yields:
      the frames in their order. Memory holds a number of them that depends on the processor alone.
    """
    eager = finder
    if blur:
        eager = dataclasses.replace(finder, min_score=min(finder.lowest_score, _HIDDEN_SCORE))
    behind = _HIDDEN_BEFORE if blur else 0
    near: deque[tuple[Frame, list[Face]]] = deque()
    with contextlib.closing(_search(frames, eager, narrow=not blur)) as searched:
        for item in searched:
            near.append(item)
            if len(near) > behind:
                yield _take(near, finder, blur)
    while near:
        yield _take(near, finder, blur)


def _take(near: deque[tuple[Frame, list[Face]]], finder: Finder, blur: bool) -> Found:
    hidden = [face for _, faces in near for face in faces] if blur else None
    frame, faces = near.popleft()
    return Found(frame, [face for face in faces if face.score >= finder.lowest_score], hidden)


def _search(frames: Generator[Frame], finder: Finder, *, narrow: bool) -> Generator[Searched]:
    """Frames with all of their faces, in order, searched on several threads."""
    waiting: deque[tuple[Frame, Future[list[Face]]]] = deque()
    with contextlib.closing(_decode_ahead(frames)) as decoded:
        pool = ThreadPoolExecutor(_WORKERS)
        # The faces of the last full search, and those of the one before: these are known by now,
        # and the same on any number of threads.
        last: Future[list[Face]] | None = None
        before: Future[list[Face]] | None = None
        searched_s, shape = -math.inf, (0, 0, 0)
        try:
            for frame in decoded:
                if frame.image.shape != shape:  # nobody is as large as before
                    before = last = None
                    searched_s, shape = -math.inf, frame.image.shape
                full = not narrow or frame.time_s - searched_s >= SEARCH_EVERY_S
                known = [] if full or before is None else before.result()
                found = pool.submit(finder.narrow(known).detect, frame.image)
                if full:
                    before, last, searched_s = last, found, frame.time_s
                waiting.append((frame, found))
                if len(waiting) > _WORKERS:  # one more than at work: none of them has to wait
                    frame, result = waiting.popleft()
                    yield frame, result.result()
            while waiting:
                frame, result = waiting.popleft()
                yield frame, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_ahead(frames: Generator[T]) -> Generator[T]:
    """The same items, made on a thread of their own before they are taken."""
    with contextlib.closing(frames):
        thread = ThreadPoolExecutor(1)
        try:
            made = deque(thread.submit(next, frames, None) for _ in range(_DECODED))
            while (item := made.popleft().result()) is not None:
                made.append(thread.submit(next, frames, None))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
