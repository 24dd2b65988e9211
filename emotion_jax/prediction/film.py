"""From a film to rows, an annotated film and a timeline."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from emotion_jax import draw, faces
from emotion_jax.analysis import predict_faces
from emotion_jax.classifying import Predictor
from emotion_jax.errors import EmotionError
from emotion_jax.host.stopping import Stop
from emotion_jax.host.wording import count
from emotion_jax.prediction.paths import folder_of
from emotion_jax.prediction.searching import Found, search
from emotion_jax.prediction.timeline import Timeline, plot_timeline, prepare_plot
from emotion_jax.prediction.window import Window
from emotion_jax.rows import RowWriter, make_rows
from emotion_jax.tracking import SMOOTHING, People
from emotion_jax.video import FilmReader, FilmWriter

# Faces of 80 pixels are found in a frame of 1280 x 720 (50 ms on one core); of a larger frame as
# many pixels are searched, and the faces to find grow with it: in 4K, 240 pixels.
_MIN_FACE, _SEARCHED = 80.0, 1280 * 720


@dataclasses.dataclass(frozen=True)
class FilmSummary:
    """What became of a film.

    Attributes:
      frames: how many were read.
      faces: how many were found in them.
      people: whose.
      complete: whether it was read to its end, or to the end asked for.
      damage: what was wrong with the film, in one sentence; None if nothing was.
      written: the files.
    """

    frames: int
    faces: int
    people: int
    complete: bool
    damage: str | None
    written: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{count(self.frames, 'frame')}, {count(self.faces, 'face')}"
        if self.faces:
            text += f" of {count(self.people, 'person')}"
        lines = ["stopped: " * (not self.complete) + text, *filter(None, [self.damage])]
        return "\n".join([*lines, *(f"written: {path}" for path in self.written)])


def analyze_film(
    path: str | os.PathLike[str],
    predictor: Predictor,
    *,
    finder: faces.Finder = faces.DEFAULT,
    min_face: float | None = None,
    output: str | os.PathLike[str] | None = None,
    format: str = "csv",
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    smoothing: float = SMOOTHING,
    blur: bool = False,
    show: bool = False,
) -> FilmSummary:
    """Read the emotions of the people in a film and write them down as they come.

    Ctrl-C and SIGTERM end it as if the film ended there. A summary goes to standard error.

    Args:
      path: of the film.
      predictor: from `load_predictor`; called once a frame, with all of its faces.
      finder: of the faces.
      min_face: its `min_face`, in pixels; by default for the film's size, see `choose_min_face`.
      output: a folder, made if need be, for `predictions.csv` (or .jsonl), the annotated film with
        its sound, named as its source, and `timeline.png`. The source is never overwritten.
        Without it rows go to standard output, and nothing else does.
      format: of the rows: "csv" or "jsonl".
      every: read every so many frames alone; the annotated film has no others.
      start: seconds of the film to leave out.
      end: seconds at which to stop; None for the film's end.
      smoothing: time constant in seconds of the average over each person's frames; 0 for none.
      blur: hide the faces in what is written and shown: those that are found, also for eight frames
        before, and for two seconds after a detector has lost them.
      show: show the annotated film in a window while it is read; q or Esc stops.

    Returns:
      the counts. If it was asked to stop, it ends the program instead, as the signal would have.

    Raises:
      EmotionError: the film cannot be read, has no frame in the part asked for, an option is out
        of its range, or something cannot be written. What was written before can be read.
    """
    _check(every, start, end, smoothing)
    source = os.fspath(path)
    reader = FilmReader(source)
    finder = dataclasses.replace(finder, min_face=min_face or choose_min_face(reader.size))
    frames = reader.frames(every=every, start=start, end=end)
    complete = False
    with Stop() as stop:
        with contextlib.ExitStack() as files:
            window = files.enter_context(Window()) if show else None
            found = files.enter_context(contextlib.closing(search(frames, finder, blur=blur)))
            first = next(found, None)
            if first is None:  # before any file is opened: what an earlier run left stays
                raise EmotionError(_nothing(source, start, end, reader.duration_s))
            table = None if output is None else os.path.join(output, f"predictions.{format}")
            rows = files.enter_context(RowWriter(table, format=format))
            film = None if output is None else _open_film(source, output, reader.rate / every)
            files.enter_context(film or contextlib.nullcontext())
            advance = files.enter_context(_progress(reader, start, end, shown=film is not None))
            if output is not None:
                prepare_plot()
            people, timeline = People(smoothing=smoothing), Timeline(step_s=every / reader.rate)
            session = _Session(source, predictor, finder, people, timeline, rows, film, window)
            for item in itertools.chain([first], found):
                wanted = session.take(item)
                advance(item.frame.time_s)
                if stop.asked is not None or not wanted:
                    break
            else:
                complete = True
                if film is not None and end is None:
                    film.copy_sound()
        written = [] if film is None or table is None else [table, film.path]
        if output is not None and people.seen:
            written.append(os.path.join(output, "timeline.png"))
            plot_timeline(timeline, written[-1], title=os.path.basename(source))
        summary = FilmSummary(
            session.frames, session.faces, people.seen, complete, reader.damage, tuple(written)
        )
        print(summary, file=sys.stderr)
        stop.leave()
    return summary


def choose_min_face(size: tuple[int, int]) -> float:
    """Choose the smallest faces to look for in films of a size.

    So many pixels that the time for a frame does not grow with its size beyond 1280 x 720.

    Args:
      size: height and width of a frame, in pixels.

    Returns:
      the width of a face in pixels, 80 or more.
    """
    return _MIN_FACE * max(1.0, math.sqrt(size[0] * size[1] / _SEARCHED))


@dataclasses.dataclass
class _Session:
    """A film on its way: who was seen in it, and where what is read goes."""

    source: str
    predictor: Predictor
    finder: faces.Finder
    people: People
    timeline: Timeline
    rows: RowWriter
    film: FilmWriter | None
    window: Window | None
    frames: int = 0
    faces: int = 0

    def take(self, found: Found) -> bool:
        """Label the next frame and pass it on; returns whether another is wanted."""
        frame, boxes = found.frame, found.faces
        raw = predict_faces(frame.image, boxes, self.predictor, self.finder)
        size = frame.image.shape[0], frame.image.shape[1]
        numbers, probabilities = self.people.update(boxes, raw, frame.time_s, size=size)
        self.frames, self.faces = self.frames + 1, self.faces + len(boxes)
        self.timeline.add(numbers, probabilities, frame.time_s)
        rows = make_rows(
            boxes,
            probabilities,
            source=self.source,
            size=size,
            indices=numbers,
            frame=frame.index,
            time_s=frame.time_s,
        )
        self.rows.write(rows)
        if self.film is None and self.window is None:
            return self.rows.wanted
        hidden = [] if found.hidden is None else [*found.hidden, *self.people.missing()]
        canvas = draw.hide(frame.image, hidden)
        shown = found.hidden is None
        canvas = draw.annotate(canvas, boxes, probabilities, numbers=numbers, landmarks=shown)
        if self.film is not None:
            self.film.write(canvas, frame.time_s)
        if self.window is not None:
            self.window.show(canvas)
            return self.rows.wanted and self.window.key() != "q"
        return self.rows.wanted


def _check(every: int, start: float, end: float | None, smoothing: float) -> None:
    if every < 1:
        raise EmotionError(f"--every: {every}; use 1 for all frames, or more")
    if not 0 <= start < math.inf:
        raise EmotionError(f"--start: {start}; use 0 or more seconds")
    if end is not None and not end > start:
        raise EmotionError(f"--end: {end}; use more seconds than the start's {start:g}")
    if not 0 <= smoothing < math.inf:
        raise EmotionError(f"--smoothing: {smoothing}; use 0 for none, or more seconds")


def _nothing(source: str, start: float, end: float | None, duration_s: float | None) -> str:
    if start == 0 and end is None:
        return f"'{source}' holds not one frame that can be read; give an intact copy"
    until = "the end" if end is None else f"{end:g} s"
    length = "" if duration_s is None else f"; the film has {duration_s:.1f} s"
    return f"'{source}' has no frame from {start:g} s to {until}{length}"


def _open_film(source: str, output: str | os.PathLike[str], rate: float) -> FilmWriter:
    """The annotated film: named as its source, but never the source itself nor one beside it."""
    stem = Path(source).stem
    target = Path(output) / f"{stem}.mp4"
    if folder_of(target) == folder_of(source) or (target.exists() and target.samefile(source)):
        target = Path(output) / f"{stem}-emotions.mp4"
    return FilmWriter(target, rate_hint=rate, audio_from=source)


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
