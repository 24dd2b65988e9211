"""From a film to rows, an annotated film and a timeline."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from emotion_jax import draw, faces
from emotion_jax.analyze import Predictor
from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.labels import EMOTIONS
from emotion_jax.rows import Row, RowWriter, make_row
from emotion_jax.timeline import Timeline, plot_timeline
from emotion_jax.tracking import SMOOTHING, People
from emotion_jax.video import FilmReader, FilmWriter, Frame
from emotion_jax.workdir import Stop

# Faces of 80 pixels are found in a frame of 1280 x 720 (50 ms on one core); of a larger frame as
# many pixels are searched, and the faces to find grow with it: in 4K, 240 pixels.
_MIN_FACE, _SEARCHED = 80.0, 1280 * 720

# Frames between two stages: enough that neither waits for the other's slow frames.
_AHEAD = 4

# Who is to be hidden is looked for more eagerly than who is to be read.
_HIDDEN_SCORE = -0.3
# How many frames before a face is found, and after, it is hidden at the same place.
_HIDDEN_AHEAD = 8

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Found:
    """A frame, the faces in it, and those to be hidden in it."""

    frame: Frame
    faces: list[Face]
    hidden: list[Face]


@dataclasses.dataclass(frozen=True)
class FilmSummary:
    """What became of a film.

    Attributes:
      frames: how many were read.
      faces: how many were found in them.
      people: whose.
      damage: what was wrong with the film, in one sentence; None if nothing was.
      stopped: whether it was asked to stop before the film's end.
      written: the files.
    """

    frames: int
    faces: int
    people: int
    damage: str | None
    stopped: bool
    written: tuple[str, ...]

    def __str__(self) -> str:
        counts = ((self.frames, "frame"), (self.faces, "face"))
        text = ", ".join(f"{n} {noun}" + ("" if n == 1 else "s") for n, noun in counts)
        if self.faces:
            text += f" of {self.people} " + ("person" if self.people == 1 else "persons")
        lines = ["stopped: " * self.stopped + text, *filter(None, [self.damage])]
        return "\n".join([*lines, *(f"written: {path}" for path in self.written)])


def analyze_film(
    path: str | os.PathLike[str],
    predictor: Predictor,
    *,
    finder: faces.Finder | None = None,
    output: str | os.PathLike[str] | None = None,
    format: str = "csv",
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    smoothing: float = SMOOTHING,
    blur: bool = False,
) -> FilmSummary:
    """Read the emotions of the people in a film and write them down as they come.

    Ctrl-C and SIGTERM end it as if the film ended there. A summary goes to standard error.

    Args:
      path: of the film.
      predictor: from `load_predictor`; called once a frame, with all of its faces.
      finder: of the faces; by default one for the size of the film, see `make_finder`.
      output: a folder, made if need be, for `predictions.csv` (or .jsonl), the annotated film with
        its sound, named as its source, and `timeline.png`. The source is never overwritten.
        Without it rows go to standard output, and nothing else does.
      format: of the rows: "csv" or "jsonl".
      every: read every so many frames alone; the annotated film has no others.
      start: seconds of the film to leave out.
      end: seconds at which to stop; None for the film's end.
      smoothing: time constant in seconds of the average over each person's frames; 0 for none.
      blur: hide the faces in what is written.

    Returns:
      the counts. If it was asked to stop, it ends the program instead, as the signal would have.

    Raises:
      EmotionError: the film cannot be read, has no frame in the part asked for, an option is out
        of its range, or something cannot be written. What was written before can be read.
    """
    _check(every, start, end, smoothing)
    source = os.fspath(path)
    reader = FilmReader(source)
    finder = finder or make_finder(reader.size)
    frames = reader.frames(every=every, start=start, end=end)
    people, timeline = People(smoothing=smoothing), Timeline(step_s=every / reader.rate)
    read = seen = 0
    with Stop() as stop:
        with contextlib.ExitStack() as files:
            found = files.enter_context(contextlib.closing(_find(frames, finder, blur=blur)))
            first = next(found, None)
            if first is None:  # before any file is opened: what an earlier run left stays
                raise EmotionError(_nothing(source, start, end, reader.duration_s))
            table = None if output is None else os.path.join(output, f"predictions.{format}")
            rows = files.enter_context(RowWriter(table, format=format))
            film = None if output is None else _open_film(source, output, reader.rate / every)
            if film is not None:
                files.enter_context(film)
            advance = files.enter_context(_progress(reader, start, end, shown=film is not None))
            for item in itertools.chain([first], found):
                frame, boxes = item.frame, item.faces
                numbers, probabilities = people.update(
                    boxes, _predict(frame.image, boxes, predictor, finder), frame.time_s
                )
                read, seen = read + 1, seen + len(boxes)
                rows.write(_make_rows(source, frame, boxes, numbers, probabilities))
                timeline.add(numbers, probabilities, frame.time_s)
                if film is not None:
                    hidden = [*item.hidden, *people.missing()] if blur else []
                    canvas = draw.hide(frame.image, hidden)
                    canvas = draw.annotate(canvas, boxes, probabilities, numbers=numbers)
                    film.write(canvas, frame.time_s)
                advance(frame.time_s)
                if stop.asked is not None or not rows.wanted:
                    break
            else:
                if film is not None and end is None:
                    film.copy_sound()
        written = [] if film is None or table is None else [table, film.path]
        if output is not None and people.seen:
            written.append(os.path.join(output, "timeline.png"))
            plot_timeline(timeline, written[-1], title=os.path.basename(source))
        stopped = stop.asked is not None
        summary = FilmSummary(read, seen, people.seen, reader.damage, stopped, tuple(written))
        print(summary, file=sys.stderr)
        stop.leave()
    return summary


def make_finder(size: tuple[int, int]) -> faces.Finder:
    """Make the default finder for films of a size: (height, width) in pixels.

    It looks for faces from 80 pixels on, and in films beyond 1280 x 720 from correspondingly more,
    so that the time for a frame does not grow with its size.
    """
    return faces.Finder(min_face=_MIN_FACE * max(1.0, math.sqrt(size[0] * size[1] / _SEARCHED)))


def _check(every: int, start: float, end: float | None, smoothing: float) -> None:
    if every < 1:
        raise EmotionError(f"every: {every}; use 1 for all frames, or more")
    if not 0 <= start < math.inf:
        raise EmotionError(f"start: {start}; use 0 or more seconds")
    if end is not None and not end > start:
        raise EmotionError(f"end: {end}; use more seconds than the start's {start:g}")
    if not 0 <= smoothing < math.inf:
        raise EmotionError(f"smoothing: {smoothing}; use 0 for none, or more seconds")


def _nothing(source: str, start: float, end: float | None, duration_s: float | None) -> str:
    if start == 0 and end is None:
        return f"'{source}' holds not one frame that can be read; give an intact copy"
    until = "the end" if end is None else f"{end:g} s"
    length = "" if duration_s is None else f"; the film has {duration_s:.1f} s"
    return f"'{source}' has no frame from {start:g} s to {until}{length}"


def _open_film(source: str, output: str | os.PathLike[str], rate: float) -> FilmWriter:
    """The annotated film: named as its source, and never the source itself."""
    stem = Path(source).stem
    target = Path(output) / f"{stem}.mp4"
    if target.exists() and target.samefile(source):
        target = Path(output) / f"{stem}-emotions.mp4"
    return FilmWriter(target, rate_hint=rate, audio_from=source)


def _find(frames: Generator[Frame], finder: faces.Finder, *, blur: bool) -> Generator[_Found]:
    """Frames with their faces, in order: decoded and searched on two threads, some frames ahead."""
    eager = finder
    if blur:
        eager = dataclasses.replace(finder, min_score=min(finder.min_score, _HIDDEN_SCORE))

    def search() -> Generator[tuple[Frame, list[Face]]]:
        with contextlib.closing(_ahead(frames, _AHEAD)) as decoded:
            for frame in decoded:
                yield frame, eager.detect(frame.image)

    near: deque[tuple[Frame, list[Face]]] = deque()

    def take() -> _Found:
        frame, all_faces = near[0]
        hidden = [face for _, others in near for face in others] if blur else []
        near.popleft()
        return _Found(frame, [f for f in all_faces if f.score >= finder.min_score], hidden)

    with contextlib.closing(_ahead(search(), _AHEAD)) as searched:
        for item in searched:
            near.append(item)
            if len(near) > _HIDDEN_AHEAD * blur:
                yield take()
        while near:
            yield take()


def _ahead(items: Generator[T], count: int) -> Generator[T]:
    """The same items, made on a thread of their own, at most `count` before they are taken."""
    with ThreadPoolExecutor(1) as thread, contextlib.closing(items):
        try:
            pending = deque(thread.submit(next, items, None) for _ in range(count))
            while (item := pending.popleft().result()) is not None:
                pending.append(thread.submit(next, items, None))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


def _predict(
    image: np.ndarray, boxes: list[Face], predictor: Predictor, finder: faces.Finder
) -> np.ndarray:
    if not boxes:
        return np.empty((0, len(EMOTIONS)), np.float32)
    return np.asarray(predictor(finder.crop(image, boxes, predictor.spec)))


def _make_rows(
    source: str,
    frame: Frame,
    boxes: list[Face],
    numbers: list[int],
    probabilities: np.ndarray,
) -> list[Row]:
    size = frame.image.shape[0], frame.image.shape[1]
    make = partial(make_row, source=source, size=size, frame=frame.index, time_s=frame.time_s)
    return [
        make(face, row, index=number)
        for face, number, row in zip(boxes, numbers, probabilities, strict=True)
    ]


@contextlib.contextmanager
def _progress(
    reader: FilmReader, start: float, end: float | None, *, shown: bool
) -> Iterator[Callable[[float], None]]:
    """A bar on standard error, where that is a terminal; yields what moves it to a time."""
    if not shown or not sys.stderr.isatty():
        yield lambda time_s: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    ends = [second for second in (end, reader.duration_s) if second is not None]
    columns = (BarColumn(), TextColumn("{task.fields[done]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        total = min(ends) - start if ends else None
        task = bar.add_task("", total=total, done="")
        yield lambda time_s: bar.update(task, completed=time_s - start, done=f"{time_s:.1f} s")
