"""Writing films: annotated frames at their true times, with the sound of their source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emotion_jax.errors import EmotionError
from emotion_jax.host.closing import Closing
from emotion_jax.host.memory import give_back
from emotion_jax.images import resize
from emotion_jax.video.sound import Sound, open_sound

# Ticks a second of the films written: a multiple of most frame rates, and as many as MPEG-4 takes.
_TICKS = 60_000
_TIME_BASE = Fraction(1, _TICKS)

# H.264 plays everywhere; a build of FFmpeg without it has the older MPEG-4. Visually no loss, at a
# speed that leaves the processor to the faces.
_ENCODERS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},  # 118 for each step, of which 1 is best
}
_BT709 = 1  # the colours of high definition, in FFmpeg's numbers

# Frames after which memory is given back: else a film's, or a camera's, grows by the hour.
_TIDY_EVERY = 1000


class FilmWriter(Closing):
    """Writes a film as mp4, which stays readable however the writing ends.

    It is written in fragments of two seconds, each complete, and becomes an ordinary mp4 when it is
    closed. Without a frame, no file is made.

    Attributes:
      path: of the film.
      frames: how many were written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate_hint: float,
        audio_from: str | os.PathLike[str] | None = None,
    ) -> None:
        """Prepare to write.

        Args:
          path: of the film; what is there is replaced. Its folder is made if need be.
          rate_hint: frames a second, about.
          audio_from: a film whose sound is taken over; its times are those given to `write`.
        """
        self.path, self.frames = os.fspath(path), 0
        self._rate = Fraction(rate_hint).limit_denominator(1001)
        self._audio_from = audio_from
        self._container: Any = None
        self._stream: Any = None
        # One for all frames: to prepare a conversion takes longer than to convert a small frame.
        self._converter = VideoReformatter()
        self._sound: Sound | None = None
        self._origin = 0.0
        self._pts = -1

    def write(self, image: np.ndarray, time_s: float) -> None:
        """Append a frame.

        Args:
          image: uint8 `[H, W, 3]`, RGB. The first sets the size of the film; where that is odd, the
            last row or column is repeated. Others are scaled to fit, on black.
          time_s: when it is shown, in seconds; the film begins with its first frame. One that is
            not later than the frame before is shown one tick after it.

        Raises:
          EmotionError: it cannot be written: the disk is full, say.
        """
        with self._failures():
            if self._container is None:
                self._begin(image, time_s)
            height, width = self._stream.height, self._stream.width
            frame = av.VideoFrame.from_ndarray(_fit(image, height, width), format="rgb24")
            frame = self._converter.reformat(frame, format="yuv420p", dst_colorspace=_BT709)
            self._pts = max(self._pts + 1, round((time_s - self._origin) * _TICKS))
            frame.pts, frame.time_base = self._pts, _TIME_BASE
            self._container.mux(self._stream.encode(frame))
            self.frames += 1
        self.copy_sound(time_s)
        if self.frames % _TIDY_EVERY == 0:
            give_back()

    def copy_sound(self, until_s: float | None = None) -> None:
        """Take the sound over up to a time in seconds, or all that is left of it.

        Raises:
          EmotionError: see `write`.
        """
        if self._sound is not None:
            with self._failures():
                self._sound.copy(until_s)

    def close(self) -> None:
        """Finish the film; once it is closed, or where there is no frame, do nothing.

        Raises:
          EmotionError: see `write`; what was written before can be read.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        sound, self._sound = self._sound, None
        with self._failures(), container:
            container.mux(self._stream.encode())
            if sound is not None:
                sound.close()

    def _begin(self, image: np.ndarray, time_s: float) -> None:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        flags = {"movflags": "hybrid_fragmented+frag_keyframe+delay_moov", "flush_packets": "1"}
        self._container = av.open(f"file:{self.path}", "w", format="mp4", options=flags)
        self._stream = _add_pictures(self._container, self._rate)
        self._stream.height, self._stream.width = (side + side % 2 for side in image.shape[:2])
        self._origin = time_s
        if self._audio_from is not None:
            self._sound = open_sound(self._audio_from, self._container, time_s)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            what = getattr(error, "strerror", None) or error
            advice = "free some space or choose another folder"
            if not isinstance(error, OSError):  # no disk's fault
                advice = "copy the film with another program and read the copy"
            raise EmotionError(f"'{self.path}' cannot be written ({what}); {advice}") from error


def _add_pictures(container: Any, rate: Fraction) -> Any:
    """The stream of the film's pictures, by the best encoder there is."""
    for name, options in _ENCODERS.items():
        try:
            stream = container.add_stream(name, rate=rate, options=options)
        except (av.FFmpegError, ValueError):
            continue
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = _TIME_BASE
        context.gop_size = max(1, round(2 * rate))
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        return stream
    raise EmotionError("this build of PyAV writes no films; install the wheel of av from PyPI")


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture of the film's size: itself where it is that but for an odd edge, else on black."""
    tall, wide = height - image.shape[0], width - image.shape[1]
    if 0 <= tall <= 1 and 0 <= wide <= 1:
        return np.pad(image, ((0, tall), (0, wide), (0, 0)), "edge")
    scale = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(1, round(scale * side)) for side in image.shape[:2])
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas[top : top + rows, left : left + columns] = resize(image, rows, columns)
    return canvas
