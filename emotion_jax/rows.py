"""The rows of a prediction: one a face a frame, as CSV or JSON lines."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.host.closing import Closing
from emotion_jax.labels import EMOTIONS

if TYPE_CHECKING:  # an option: whoever has it gets it
    import pandas

COLUMNS = (
    "source",
    "frame",
    "time_s",
    "face",
    "x",
    "y",
    "width",
    "height",
    "detection_score",
    "emotion",
    "confidence",
    *EMOTIONS,
)

FORMATS = ("csv", "jsonl")

Row = dict[str, str | int | float | None]

_DIGITS = 6  # of a probability; float32 holds little more near 1
_ONE = 10**_DIGITS


class Rows(list[Row]):
    """The rows of some pictures: a list of dicts, shown as a table."""

    def to_pandas(self) -> pandas.DataFrame:
        """Make a data frame of `COLUMNS`; without a row it has the columns all the same.

        Raises:
          EmotionError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise EmotionError("pandas is not installed; pip install pandas") from error
        return pandas.DataFrame(list(self), columns=list(COLUMNS))

    def __repr__(self) -> str:
        if not self:
            return "no face"
        named = max(len(str(row["source"])) for row in self)
        return "\n".join(
            f"{row['source']:<{named}}  face {row['face']:<3} {row['emotion']:<9}"
            f" {100 * cast(float, row['confidence']):3.0f} %  {row['width']}x{row['height']}"
            f" at {row['x']}, {row['y']}"
            for row in self
        )


def make_row(
    face: Face,
    probabilities: np.ndarray,
    *,
    source: str,
    size: tuple[int, int],
    index: int,
    frame: int = 0,
    time_s: float = 0.0,
) -> Row:
    """Make the row of one face in one frame.

    Args:
      face: its box may leave the picture; the row's box is clipped to it, in whole pixels.
      probabilities: float `[8]` in the order of `EMOTIONS`, of any positive sum.
      source: the picture or film.
      size: height and width of the picture.
      index: the face's index in a picture, the person's number in a film.
      frame: counted from 0; a picture has one.
      time_s: of the frame, in seconds.

    Returns:
      a value for each of `COLUMNS`, in that order. The eight probabilities have six decimal digits
      and sum to exactly 1 as decimals; `confidence` is the largest, `emotion` its name. Of a face
      that nobody detected (its score is not a number) `detection_score` is None.

    Raises:
      EmotionError: the probabilities are not finite.
    """
    millionths = _round_to_one(probabilities, source)
    best = int(millionths.argmax())
    values = (millionths / _ONE).tolist()  # the float nearest to each decimal
    left, right = np.clip((round(face.x), round(face.x + face.width)), 0, size[1]).tolist()
    top, bottom = np.clip((round(face.y), round(face.y + face.height)), 0, size[0]).tolist()
    where = (source, frame, round(time_s, 3), index, left, top, right - left, bottom - top)
    score = None if math.isnan(face.score) else round(float(face.score), 4)
    what = (score, EMOTIONS[best], values[best])
    return dict(zip(COLUMNS, (*where, *what, *values), strict=True))


def make_rows(
    faces: Sequence[Face],
    probabilities: np.ndarray,
    *,
    source: str,
    size: tuple[int, int],
    indices: Sequence[int] | None = None,
    frame: int = 0,
    time_s: float = 0.0,
) -> list[Row]:
    """Make the rows of the N faces of one frame, see `make_row`.

    Args:
      faces: N of them.
      probabilities: float `[N, 8]`.
      source, size, frame, time_s: as `make_row` takes them.
      indices: of the faces; by default 0, 1, ... in their order.

    Raises:
      EmotionError: see `make_row`.
    """
    places = range(len(faces)) if indices is None else indices
    return [
        make_row(face, row, source=source, size=size, index=index, frame=frame, time_s=time_s)
        for face, row, index in zip(faces, probabilities, places, strict=True)
    ]


def _round_to_one(probabilities: np.ndarray, source: str) -> np.ndarray:
    """Round to whole millionths, int64 `[8]`, that sum to one million.

    All are rounded down, and the millionths missing then go to the largest remainders: the sum is
    exact, and no probability moves by as much as one millionth.
    """
    exact = np.asarray(probabilities, np.float64)
    if not np.isfinite(exact).all() or exact.sum() <= 0:
        raise EmotionError(f"the network's answer for '{source}' is no number; use other weights")
    exact = exact / exact.sum() * _ONE
    whole: np.ndarray = np.floor(exact).astype(np.int64)
    missing = _ONE - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


class RowWriter(Closing):
    """Writes rows to a file or to standard output, each call at once, so that none is lost.

    Attributes:
      wanted: False once the reader of standard output has gone (`... | head`): time to stop.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, format: str = "csv") -> None:
        """Open a file, or standard output where `path` is None; CSV starts with its header.

        Raises:
          EmotionError: the format is unknown, or the file cannot be written.
        """
        if format not in FORMATS:
            raise EmotionError(f"there is no format '{format}' of rows; use csv or jsonl")
        self.wanted = True
        self._format = format
        self._name = "standard output" if path is None else f"'{os.fspath(path)}'"
        self._stream: TextIO = sys.stdout
        self._owned = path is not None
        if path is not None:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                # Names of files may hold bytes that are no UTF-8; they pass through as they are.
                self._stream = open(
                    path, "w", encoding="utf-8", errors="surrogateescape", newline=""
                )
            except OSError as error:
                raise self._failure(error) from error
        elif sys.stdout is None:  # the shell closed it: `>&-`
            raise EmotionError("standard output is closed; write to a folder with --output")
        elif isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a name must not stop the rows
        if format == "csv":
            self._put(",".join(COLUMNS) + "\n")

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows; they have left this process when the call returns.

        Raises:
          EmotionError: they cannot be written: the disk is full, say.
        """
        self._put("".join(_format_row(row, self._format) for row in rows))

    def close(self) -> None:
        """Close the file; standard output stays open.

        Raises:
          EmotionError: see `write`; what the disk had no room for is tried once more.
        """
        if self._owned:
            try:
                self._stream.close()
            except OSError as error:
                raise self._failure(error) from error

    def _put(self, text: str) -> None:
        if not self.wanted:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self.wanted = False
            # What is still in the buffer would raise again when the interpreter flushes it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> EmotionError:
        reason = str(error.strerror or error)
        advice = "choose another folder" if self._owned else "write to a folder with --output"
        if error.errno == errno.ENOSPC:
            advice = f"make room, or {advice}"
        elif isinstance(error, FileExistsError | NotADirectoryError):  # of mkdir
            reason = "its path leads through a file"
        return EmotionError(f"{self._name} cannot be written ({reason}); {advice}")


def _format_row(row: Row, format: str) -> str:
    if format == "jsonl":
        return json.dumps(row) + "\n"
    decimals = {name: f"{row[name]:.{_DIGITS}f}" for name in ("confidence", *EMOTIONS)}  # no 1e-06
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow({**row, **decimals}.values())
    return text.getvalue()
