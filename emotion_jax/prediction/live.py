"""The camera: its newest frame, labelled, in a window, as rows and as a film."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from emotion_jax import draw
from emotion_jax.faces import DEFAULT, Face, Finder
from emotion_jax.host.stopping import Stop
from emotion_jax.host.wording import count
from emotion_jax.prediction.camera import Camera, Frame
from emotion_jax.prediction.labeller import Labelled, Labeller
from emotion_jax.prediction.recorder import Recorder
from emotion_jax.prediction.window import Window, check_display
from emotion_jax.tracking import SMOOTHING, People

if TYPE_CHECKING:
    from emotion_jax.classifying import Predictor

# Seconds that the window waits for the boxes of a newer frame before it shows one without them.
_SMOOTH_S = 0.1

# The smallest faces looked for, as a share of the picture's height: those of people up to about a
# metre from a webcam. As a share it costs the same for any camera: what is searched is 480 high.
_MIN_FACE = 1 / 6

_RATED = 30  # labelled frames over which their rate is taken
_NOTE_S = 2.0  # seconds for which a note stands on the window
_KEYS = "s picture   r record   q quit"


def watch(
    device: str,
    load: Callable[[], Predictor],
    *,
    finder: Finder = DEFAULT,
    min_face: float | None = None,
    smoothing: float = SMOOTHING,
    output: str | os.PathLike[str] | None = None,
    format: str = "csv",
    show: bool = True,
) -> None:
    """Read the emotions in what a camera sees, until it is told to stop.

    The newest frame is labelled; those that come meanwhile are dropped and counted. With a window,
    the boxes belong to the frame that is shown; where finding them takes longer than a tenth of a
    second, they are those of the last labelled frame, so that the picture goes on moving.

    In the window the picture is mirrored, and recorded as it is seen. Without a window nothing is
    mirrored, so that the film fits the rows: their boxes are in pixels of the camera's picture.

    Keys: q and Esc quit, s saves the picture, r starts and stops recording.

    Args:
      device: a camera's index or path, a stream's address, or a film that stands in for a camera
        and is read at its own pace.
      load: gives the predictor; called on a thread while the camera wakes up.
      finder: of the faces.
      min_face: its `min_face`, in pixels; by default a sixth of the picture's height.
      smoothing: of the probabilities over time, in seconds; 0 for none.
      output: a folder for the rows, the pictures and the films. Nothing there is ever replaced.
        Without it pictures and films go to the current folder; the rows go to standard output, but
        not to a terminal while there is a window.
      format: of the rows: "csv" or "jsonl".
      show: open a window. Without one, and with `output`, everything is recorded.

    Raises:
      EmotionError: the camera is missing, fails or is silent, there is no display, or something
        cannot be written; what was written before is kept.
      KeyboardInterrupt: Ctrl-C was pressed, after all is closed.
      SystemExit: likewise after SIGTERM.
    """
    if show:
        check_display()  # before a camera's light goes on
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        camera = stack.enter_context(Camera(device))
        # With a window, rows on a terminal would only bury what the program has to say.
        rows = output is not None or not show or not sys.stdout.isatty()
        recorder = Recorder(camera.source, output, format=format, rows=rows)
        stack.callback(_print_summary, camera, recorder)
        stack.enter_context(recorder)
        labeller = Labeller(
            camera,
            load,
            finder=lambda frame: _fit_finder(finder, min_face, frame),
            people=People(smoothing=smoothing),
        )
        stack.enter_context(labeller)
        if show:
            _run_window(camera, labeller, recorder, stop)
        else:
            _run_blind(labeller, recorder, stop, film=output is not None)
    stop.leave()


def _fit_finder(finder: Finder, min_face: float | None, frame: Frame) -> Finder:
    return dataclasses.replace(finder, min_face=min_face or _MIN_FACE * frame.image.shape[0])


def _run_blind(labeller: Labeller, recorder: Recorder, stop: Stop, *, film: bool) -> None:
    """Write the rows of each labelled frame, and the frame as it is, with what was found."""
    if film:
        recorder.start_film()
    while stop.asked is None and recorder.wanted:
        labelled = labeller.take(_SMOOTH_S)
        if labeller.done:
            return
        if labelled is None:
            continue
        recorder.write_rows(labelled)
        if film:
            picture = _draw(labelled.frame, labelled, mirrored=False)
            recorder.add_to_film(picture, labelled.frame.time_s)


def _run_window(camera: Camera, labeller: Labeller, recorder: Recorder, stop: Stop) -> None:
    """Show frames with what was found, and do what the keys say."""
    with Window() as window:
        view = _View(window, recorder)
        while stop.asked is None and recorder.wanted:
            labelled = labeller.take(_SMOOTH_S)
            if labeller.done:
                return
            if labelled is not None:
                recorder.write_rows(labelled)
            view.show(camera.newest, labelled)
            if not view.obey(window.key()):
                return


class _View:
    """What is on the window: the frame shown, the newest labels, the line about the program."""

    def __init__(self, window: Window, recorder: Recorder) -> None:
        self._window, self._recorder = window, recorder
        self._last: Labelled | None = None
        self._frame: Frame | None = None
        self._picture = np.empty((0, 0, 3), np.uint8)
        self._times: collections.deque[float] = collections.deque(maxlen=_RATED)
        self._note, self._note_ends = f"loading the network   {_KEYS}", math.inf

    def show(self, newest: Frame | None, labelled: Labelled | None) -> None:
        """Show the frame that was labelled or, if that is not newer than the one shown, the newest.

        Without a labelled frame the newest is shown, with the labels known.
        """
        frame, before = newest, self._frame
        if labelled is not None:
            if self._last is None:
                self._note = ""
            self._last = labelled
            self._times.append(time.monotonic())
            if before is None or labelled.frame.index > before.index:
                frame = labelled.frame
        if frame is None:  # the camera wakes up
            return
        self._frame, self._picture = frame, _draw(frame, self._last, mirrored=True)
        if self._recorder.recording and (before is None or frame.index > before.index):
            self._recorder.add_to_film(self._picture, frame.time_s)
        text, recording = self._status(), self._recorder.recording
        self._window.show(draw.annotate_status(self._picture, text, recording=recording))

    def obey(self, key: str | None) -> bool:
        """Do what a key says; whether to go on."""
        if key == "s" and self._frame is not None:
            self._say(f"saved {self._recorder.save(self._picture)}")
        elif key == "r" and self._recorder.recording:
            self._say("recorded" if self._recorder.stop_film() else "nothing recorded")
        elif key == "r":
            self._say(f"recording {self._recorder.start_film()}")
        return key != "q"

    def _say(self, note: str) -> None:
        self._note, self._note_ends = note, time.monotonic() + _NOTE_S

    def _status(self) -> str:
        if self._note and time.monotonic() < self._note_ends:
            return self._note
        if len(self._times) < 2:
            return ""
        return f"{(len(self._times) - 1) / (self._times[-1] - self._times[0]):.0f} fps"


def _draw(frame: Frame, labelled: Labelled | None, *, mirrored: bool) -> np.ndarray:
    """The frame with what was found, there or in one before; text is never mirrored."""
    image = frame.image[:, ::-1] if mirrored else frame.image
    if labelled is None:
        return np.ascontiguousarray(image)
    boxes = labelled.faces
    if mirrored:
        boxes = [_mirror(face, image.shape[1]) for face in boxes]
    return draw.annotate(image, boxes, labelled.probabilities, numbers=labelled.numbers)


def _mirror(face: Face, width: int) -> Face:
    """Where the face is in the mirrored picture, to be drawn: `square` stays as it was."""
    points = face.points
    if points is not None:
        points = np.array([width - 1, 0]) + np.array([-1, 1]) * points
    return dataclasses.replace(face, x=width - face.x - face.width, points=points)


def _print_summary(camera: Camera, recorder: Recorder) -> None:
    if camera.newest is None:
        return
    frames = camera.newest.index + 1
    read, persons = count(frames, "frame"), count(recorder.persons, "person")
    dropped = frames - recorder.labelled
    print(f"{read}, {dropped} of them dropped; {persons}", file=sys.stderr)
    for path in recorder.written:
        print(f"written: {path}", file=sys.stderr)
