"""Labelled frames of a live source, made on a thread beside the one that shows them."""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
from collections.abc import Callable

import numpy as np

from emotion_jax import faces
from emotion_jax.analysis import predict_faces
from emotion_jax.classifying import Predictor
from emotion_jax.host.closing import Closing
from emotion_jax.prediction.camera import Camera, Frame
from emotion_jax.tracking import People


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A frame and what was found in it.

    Attributes:
      frame: the picture.
      faces: N faces.
      numbers: of the persons.
      probabilities: float `[N, 8]`, smoothed over time.
    """

    frame: Frame
    faces: list[faces.Face]
    numbers: list[int]
    probabilities: np.ndarray


class Labeller(Closing):
    """Labels a camera's newest frame, again and again, one frame ahead of whoever takes them.

    The network is loaded and compiled on the thread, too, so that the picture is there before it.

    Attributes:
      done: whether the source has ended and its last frame was taken.
    """

    def __init__(
        self,
        camera: Camera,
        load: Callable[[], Predictor],
        *,
        finder: Callable[[Frame], faces.Finder],
        people: People,
    ) -> None:
        """Begin.

        Args:
          camera: the frames.
          load: gives the predictor.
          finder: gives the finder of the faces, once the first frame is known.
          people: who is who.
        """
        self._camera, self._load, self._finder, self._people = camera, load, finder, people
        self._results: queue.Queue[Labelled | BaseException | None] = queue.Queue(1)
        self._closed, self._loaded = threading.Event(), threading.Event()
        self.done = False
        self._thread = threading.Thread(target=self._run, name="labeller", daemon=True)
        self._thread.start()

    def take(self, wait_s: float) -> Labelled | None:
        """Take the next labelled frame.

        Args:
          wait_s: how long to wait for it, in seconds.

        Returns:
          it; None where there is none yet, or no more: `done` tells.

        Raises:
          EmotionError: the source or the network failed.
        """
        try:
            result = self._results.get(timeout=wait_s)
        except queue.Empty:
            return None
        if isinstance(result, BaseException):
            raise result
        self.done = result is None
        return result

    def close(self) -> None:
        """Stop, after the frame at hand; the camera is closed, too.

        What is still being loaded is not waited for: its thread goes on, and ends by itself.
        """
        self._closed.set()
        self._camera.close()
        while self._thread.is_alive() and self._loaded.is_set():
            self._thread.join(0.1)

    def _run(self) -> None:
        try:
            self._label()
            self._put(None)
        except BaseException as error:  # raised where the results are taken
            self._put(error)

    def _label(self) -> None:
        # The detector is loaded while the camera is opened; what is missing is told before the
        # network is loaded.
        blank = Frame(np.zeros((80, 80, 3), np.uint8), 0, 0.0)
        self._finder(blank).detect(blank.image)
        self._camera.wait_open()
        if self._closed.is_set():
            return
        predictor = self._load()
        # Compiled for one face now, or it would be when the first comes in.
        predictor(np.zeros((1, predictor.spec.size, predictor.spec.size, 3), np.uint8))
        self._loaded.set()
        frame = self._camera.next()
        if frame is None:
            return
        finder, known, searched_s = self._finder(frame), list[faces.Face](), -math.inf
        while frame is not None and not self._closed.is_set():
            if frame.time_s - searched_s >= faces.SEARCH_EVERY_S:
                known, searched_s = [], frame.time_s
            found = finder.narrow(known).detect(frame.image)
            known = known or found
            raw = predict_faces(frame.image, found, predictor, finder)
            size = frame.image.shape[0], frame.image.shape[1]
            numbers, probabilities = self._people.update(found, raw, frame.time_s, size=size)
            self._put(Labelled(frame, found, numbers, probabilities))
            frame = self._camera.next(frame.index)

    def _put(self, result: Labelled | BaseException | None) -> None:
        """Wait until the one before has been taken: no frame is labelled for nothing."""
        while not self._closed.is_set():
            try:
                return self._results.put(result, timeout=0.1)
            except queue.Full:
                continue
