"""Live pictures: the newest frame of a camera, a stream, or a film that stands in for a camera."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.host.closing import Closing
from emotion_jax.prediction import devices

# Seconds without a frame after which a source counts as dead. A webcam that wakes up, or a stream
# that is being negotiated, takes longer for its first; the slowest exposures give two a second.
PATIENCE_S = 5.0
FIRST_PATIENCE_S = 15.0


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture of a live source.

    Attributes:
      image: uint8 `[H, W, 3]`, RGB, as the camera sees it: not mirrored.
      index: its place among all frames of the source, dropped ones too, from 0.
      time_s: seconds since the first frame: when it arrived, or a film's own timestamp.
    """

    image: np.ndarray
    index: int
    time_s: float


class Camera(Closing):
    """Reads a source on a thread of its own and keeps the newest frame alone.

    However slow its reader is, no queue grows and the picture is never old: frames that nobody took
    in time are replaced.

    Attributes:
      source: its name, without a password.
    """

    def __init__(
        self,
        device: str,
        *,
        open_capture: Callable[[str], devices.Capture] | None = None,
        patience_s: float = PATIENCE_S,
        first_patience_s: float = FIRST_PATIENCE_S,
    ) -> None:
        """Begin to open the source and to read it; what then goes wrong is told by `next`.

        Args:
          device: a camera's index or path, a stream's address, or a film.
          open_capture: opens the source.
          patience_s: how long a source may be silent, in seconds.
          first_patience_s: likewise, before its first frame.

        Raises:
          EmotionError: there is no such device or file.
        """
        self.source, self._name = devices.name_source(device), devices.quote_source(device)
        if open_capture is None:
            devices.check(device)
        self._device, self._open = device, open_capture or devices.open_capture
        self._patience = first_patience_s, patience_s  # before and after the first frame
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._failure: EmotionError | None = None
        self._opened = self._ended = False
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._heard = time.monotonic()
        # A daemon: a driver that never answers must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> Frame | None:
        """The newest frame, None before the first."""
        return self._newest

    def next(self, after: int = -1) -> Frame | None:
        """Wait for a frame that is newer than one seen before.

        Args:
          after: the index of that frame.

        Returns:
          the newest frame; None once a film has ended or the camera is closed.

        Raises:
          EmotionError: the source cannot be opened, has gone, or is silent for too long.
        """
        with self._changed:
            if not self._wanted.is_set():
                self._heard = time.monotonic()  # a film has waited for this
                self._wanted.set()
            self._wait(lambda: self._newest is not None and self._newest.index > after)
            newer = self._newest is not None and self._newest.index > after
            return self._newest if newer and not self._closed.is_set() else None

    def wait_open(self) -> None:
        """Wait until the source is open, or the camera is closed.

        Raises:
          EmotionError: it cannot be opened, or does not answer.
        """
        with self._changed:
            self._wait(lambda: self._opened)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait, holding the lock, until something is ready or nothing more will come."""
        while not (ready() or self._closed.is_set()):
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return
            silent = time.monotonic() - self._heard
            patience = self._patience[self._newest is not None]
            if silent >= patience:
                raise EmotionError(
                    f"{self._name} has given no picture for {patience:.0f} seconds; see whether "
                    "it is plugged in, covered by its shutter or used by another program"
                )
            self._changed.wait(min(patience - silent, 1.0))

    def close(self) -> None:
        """Stop reading; whoever waits in `next` gets None."""
        self._closed.set()
        self._wanted.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(1.0)  # a frame takes less; a driver that hangs is left behind

    def _run(self) -> None:
        failure = None
        try:
            capture = self._open(self._device)
            with self._changed:
                self._opened, self._heard = True, time.monotonic()
                self._changed.notify_all()
            try:
                self._keep(capture)
            finally:
                capture.release()
        except EmotionError as error:
            failure = error
        except Exception as error:  # drivers raise what they like; `next` must not wait for ever
            failure = EmotionError(f"{self._name} cannot be read ({' '.join(str(error).split())})")
        with self._changed:
            self._failure, self._ended = failure, True
            self._changed.notify_all()

    def _keep(self, capture: devices.Capture) -> None:
        """Read until the end, keeping the newest frame."""
        # Nothing but a film knows its end, though not every film says it.
        film = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0 or os.path.isfile(str(self._device))
        frames = _read(capture, film=film)
        if film:
            self._patience = float("inf"), float("inf")  # its timestamps may have any gap
            frames = self._pace(frames)
        for index, (time_s, image) in enumerate(frames):
            frame = Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), index, time_s)
            with self._changed:
                self._newest, self._heard = frame, time.monotonic()
                self._changed.notify_all()
            if self._closed.is_set():
                return
        if self._newest is None:
            raise EmotionError(f"{self._name} gives no picture; another program may be using it")
        if not film:
            raise EmotionError(f"{self._name} gives no more pictures; see whether it was unplugged")

    def _pace(self, frames: Iterator[tuple[float, np.ndarray]]) -> Iterator[Any]:
        """Hold each frame of a film back until its time comes; it runs once somebody looks."""
        start = None
        for time_s, image in frames:
            if start is not None:
                self._closed.wait(max(0.0, start + time_s - time.monotonic()))
            yield time_s, image
            if start is None:
                self._wanted.wait()
                start = time.monotonic()


def _read(capture: devices.Capture, *, film: bool) -> Iterator[tuple[float, np.ndarray]]:
    """The frames, each with the seconds since the first: a film's own, else of their arrival."""
    first = None
    while True:
        good, image = capture.read()
        if not good or image is None:
            return
        now = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if film else time.monotonic()
        first = now if first is None else first
        yield now - first, image
