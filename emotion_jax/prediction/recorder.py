"""What is kept of a live session: its rows, pictures and films, none of which replaces another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from emotion_jax import images
from emotion_jax.host.closing import Closing
from emotion_jax.prediction.labeller import Labelled
from emotion_jax.rows import RowWriter, make_rows

if TYPE_CHECKING:
    from emotion_jax.video import FilmWriter

# A film is written with the true times of its frames; webcams give about as many.
_RATE_HINT = 30.0


def free_path(folder: str | os.PathLike[str], stem: str, suffix: str) -> str:
    """Choose the first of stem, stem-2, stem-3, ... that is not taken in a folder."""
    number, path = 1, os.path.join(folder, stem + suffix)
    while os.path.lexists(path):
        number += 1
        path = os.path.join(folder, f"{stem}-{number}{suffix}")
    return path


class Recorder(Closing):
    """Writes the rows, pictures and films of a session.

    Attributes:
      labelled: how many frames the rows are of.
      persons: the highest number of a person.
      written: the paths of what was written.
    """

    def __init__(
        self,
        source: str,
        output: str | os.PathLike[str] | None,
        *,
        format: str = "csv",
        rows: bool = True,
    ) -> None:
        """Begin a session; a file is made when there is something to write.

        Args:
          source: what the rows call the camera.
          output: the folder of all that is written. None: the rows go to standard output, pictures
            and films to the current folder.
          format: of the rows: "csv" or "jsonl".
          rows: whether there are rows.
        """
        self.labelled = self.persons = 0
        self.written: list[str] = []
        self._source, self._output = source, output
        self._folder = os.curdir if output is None else output
        self._film: FilmWriter | None = None
        self._rows: RowWriter | None = None
        self._format = format if rows else None

    @property
    def wanted(self) -> bool:
        """False once the reader of standard output has gone (`... | head`): time to stop."""
        return self._rows is None or self._rows.wanted

    @property
    def recording(self) -> bool:
        """Whether a film is being written."""
        return self._film is not None

    def write_rows(self, labelled: Labelled) -> None:
        """Write a row for each face of a frame.

        Raises:
          EmotionError: they cannot be written.
        """
        frame = labelled.frame
        self.labelled += 1
        self.persons = max([self.persons, *labelled.numbers])
        if self._format is None:
            return
        if self._rows is None:  # only now: a camera that fails leaves no empty table
            self._rows = self._begin_rows(self._format)
        size = frame.image.shape[0], frame.image.shape[1]
        rows = make_rows(
            labelled.faces,
            labelled.probabilities,
            source=self._source,
            size=size,
            indices=labelled.numbers,
            frame=frame.index,
            time_s=frame.time_s,
        )
        self._rows.write(rows)

    def _begin_rows(self, format: str) -> RowWriter:
        if self._output is None:
            return RowWriter(format=format)
        path = free_path(self._output, "predictions", f".{format}")
        rows = RowWriter(path, format=format)
        self.written.append(path)
        return rows

    def save(self, image: np.ndarray) -> str:
        """Save a picture, uint8 `[H, W, 3]`, RGB, and return its path.

        Raises:
          EmotionError: it cannot be written.
        """
        path = free_path(self._folder, "camera", ".png")
        images.write_image(path, image)
        self.written.append(path)
        return path

    def start_film(self) -> str:
        """Begin a film and return its path."""
        from emotion_jax.video import FilmWriter  # 0.1 s; only who records pays

        path = free_path(self._folder, "camera", ".mp4")
        self._film = FilmWriter(path, rate_hint=_RATE_HINT)
        return path

    def add_to_film(self, image: np.ndarray, time_s: float) -> None:
        """Append a picture to the film that is being written.

        Args:
          image: uint8 `[H, W, 3]`, RGB.
          time_s: of its frame, in seconds.

        Raises:
          EmotionError: it cannot be written; what was written before can be read.
        """
        assert self._film is not None
        if self._film.frames == 0:
            self.written.append(self._film.path)
        self._film.write(image, time_s)

    def stop_film(self) -> bool:
        """Finish the film, if there is one; returns whether it holds any picture.

        Raises:
          EmotionError: see `add_to_film`.
        """
        film, self._film = self._film, None
        if film is None:
            return False
        film.close()
        return film.frames > 0

    def close(self) -> None:
        """Finish all that is open."""
        try:
            self.stop_film()
        finally:
            if self._rows is not None:
                self._rows.close()
