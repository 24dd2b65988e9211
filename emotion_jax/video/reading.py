"""Reading films: frames as players show them, at their true times."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.video.times import Clock, Joins, count_before

# What FFmpeg would read as a film, too: pictures one by one, and plain text as a terminal's screen.
_NO_FILMS = ("image2", "tty", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe")
# What would open other files in a stranger's name, or wait at a pipe for ever: lists of films.
_LISTS = {"concat", "dash", "hls", "imf", "sdp", "vobsub", "webm_dash_manifest"}
# 8192 x 8192, more than cameras film. Decoders refuse larger frames before they take memory.
MAX_PIXELS = 1 << 26
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _LISTS)),
    "max_pixels": str(MAX_PIXELS),
}
# Titles may be in any old encoding. PyAV 19 reads such without being asked to.
_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
# Pixels longer or taller than this many times themselves are a slip of the header.
_MAX_ASPECT = 16


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of a film, as players show it: upright, with square pixels.

    Attributes:
      index: counted from 0 at the film's beginning, wherever reading started.
      time_s: when it is shown, in seconds since the film's beginning.
      image: uint8 `[H, W, 3]`, RGB; H and W can change within a film.
    """

    index: int
    time_s: float
    image: np.ndarray


class FilmReader:
    """Reads a film frame by frame.

    Attributes:
      rate: frames a second, on the average.
      duration_s: of the film, in seconds; None where its header does not say.
      size: height and width of a frame, in pixels, as the header says, not turned upright.
      damage: after reading, what was wrong, in one sentence; None if nothing was.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a film.

        Raises:
          EmotionError: there is no such file, or it is no film that can be read.
        """
        self._path = os.fspath(path)
        self.damage: str | None = None
        with open_film(self._path) as container:
            stream = _picture_stream(container, self._path)
            rate = stream.average_rate or stream.guessed_rate
            self.rate = float(rate) if rate else 25.0
            self.duration_s = (container.duration or 0) / av.time_base or None
            self.size = stream.height, stream.width

    def frames(
        self, *, every: int = 1, start: float = 0.0, end: float | None = None
    ) -> Generator[Frame]:
        """Read the film, or a part of it; damaged frames are left out.

        Args:
          every: read those frames alone whose index is a multiple of it.
          start: seconds; frames shown before are left out.
          end: seconds; frames shown from then on are left out.

        Raises:
          EmotionError: not one frame can be read at all.
        """
        self.damage = None
        previous: float | None = None
        turn: tuple[int, list[int]] | None = None
        container, stream, index = _enter(self._path, start)
        with container:
            origin, clock = _origin(container), Clock()
            decoder = _Decoder(container, stream)
            for frame in decoder:
                time = clock.read(frame)
                if time is None:
                    time_s = 0.0 if previous is None else previous + 1 / self.rate
                else:
                    time_s = float(time - origin)
                time_s = max(time_s, previous or 0.0)  # of films cut badly together
                previous = time_s
                if end is not None and time_s >= end:
                    return
                if time_s >= start and index % every == 0:
                    try:
                        # Only when it changes: a frame asked for it waits for garbage collection.
                        if turn is None or turn[0] != frame.rotation:
                            turn = frame.rotation, _read_matrix(frame)
                        image = _upright(frame, stream.sample_aspect_ratio, turn[1])
                    except (av.FFmpegError, ValueError):  # pixels of a kind that nothing converts
                        decoder.spoil()
                    else:
                        yield Frame(index, time_s, image)
                index += 1
            self.damage = self._judge(decoder, float(decoder.reached - origin))

    def _judge(self, decoder: _Decoder, reached_s: float) -> str | None:
        """What was wrong with a film that was read to its end."""
        if decoder.damaged and not decoder.decoded:
            raise EmotionError(f"'{self._path}' is damaged: none of its frames can be read")
        if self.duration_s and reached_s < _least_end(self.duration_s, self.rate):
            ends = f"it ends at {max(0.0, reached_s):.1f} of {self.duration_s:.1f} s"
            return f"'{self._path}' is incomplete: {ends}"
        if decoder.damaged:
            return f"'{self._path}' is damaged: {decoder.damaged} of its frames cannot be read"
        return None


def _least_end(duration_s: float, rate: float) -> float:
    """When the last packet of a whole film ends at least, in seconds, as headers are not exact.

    They may count from zero where the film begins later, or leave out how long the last frame is
    shown: half a second, in short films a fifth of it, but not less than two frames.
    """
    return 0.98 * duration_s - max(min(0.5, 0.2 * duration_s), 2 / rate)


def open_film(path: str) -> Any:
    """Open a film's container; FFmpeg's ways of not being able to become one sentence."""
    if not Path(path).is_file():  # a folder, a device, nothing: reading might never end
        raise EmotionError(f"'{path}' is no file; give the path of a film")
    if Path(path).stat().st_size == 0:
        raise EmotionError(f"'{path}' is empty; give a film")
    try:
        # "file:" because a name may hold a colon.
        container = av.open(f"file:{path}", options=_OPTIONS, **_TITLES)
    except (av.FFmpegError, ValueError) as error:
        what = "cannot be read" if isinstance(error, PermissionError) else "is no readable film"
        reason = getattr(error, "strerror", None) or error
        raise EmotionError(
            f"'{path}' {what} ({reason}); it may be damaged or incomplete: give an intact copy"
        ) from error
    if set(container.format.name.split(",")) & set(_NO_FILMS):
        container.close()
        raise EmotionError(f"'{path}' is no film; read pictures with --image=PATH")
    return container


def _picture_stream(container: Any, path: str) -> Any:
    """The stream that a player would show; the cover of a song is none."""
    films = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not films:
        raise EmotionError(f"'{path}' has no pictures, only sound or text; give a film")
    best = container.streams.best("video")
    stream = best if best in films else films[0]
    if stream.codec_context is None:
        raise EmotionError(f"'{path}' has pictures of an unknown coding; save it as mp4")
    if stream.width * stream.height > MAX_PIXELS:
        raise EmotionError(
            f"'{path}' claims frames of {stream.width} x {stream.height}, more than "
            f"{MAX_PIXELS // 10**6} million pixels; give a smaller film"
        )
    return stream


def _origin(container: Any) -> Fraction:
    """When a film begins, in seconds of its own clock."""
    return Fraction(container.start_time or 0, av.time_base)


def _enter(path: str, start: float) -> tuple[Any, Any, int]:
    """A film opened at a key frame at or before `start`, its pictures, the first one's index."""
    container = open_film(path)
    stream = _picture_stream(container, path)
    stream.thread_type = "AUTO"
    if start <= 0:
        return container, stream, 0
    try:
        return container, stream, _seek(container, stream, start, path)
    except (av.FFmpegError, ValueError, StopIteration):
        container.close()  # it cannot be entered in the middle, and is read from its beginning
        return _enter(path, 0.0)


def _seek(container: Any, stream: Any, start: float, path: str) -> int:
    """Go to a key frame at or before `start`; returns the index of the first frame decoded then.

    The frames before are counted by their packets, without decoding them.
    """
    origin = _origin(container)
    place = int((Fraction(start) + origin) / stream.time_base)
    container.seek(place, stream=stream)
    decoder = _Decoder(container, stream)
    first = next(iter(decoder))
    if first.pts is None or first.pts * stream.time_base - origin > start:
        raise ValueError("the film's index is wrong")
    with open_film(path) as counted:
        index = count_before(counted, stream.index, first.pts, decoder.entry)
    container.seek(place, stream=stream)
    return index


class _Decoder:
    """Iterates over every frame of a film that can be decoded.

    Attributes:
      decoded: how many there were up to now.
      damaged: how many packets could not be decoded.
      reached: the latest end of a packet, of pictures or sound, in seconds, as the file says it.
      entry: where in the file its first packet of pictures lies, in bytes.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self.decoded = self.damaged = 0
        self.reached = Fraction(0)
        self.entry: int | None = None

    def __iter__(self) -> Iterator[Any]:
        self._stream.codec_context.options = {"max_pixels": _OPTIONS["max_pixels"]}
        packets, joins = self._container.demux(), Joins(self._container)
        # A film that breaks off in the middle of a packet raises; what came before is whole.
        while (packet := _next(packets)) is not None:
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self.reached = max(self.reached, end)
            joins.straighten(packet)
            if packet.stream.index != self._stream.index:
                continue
            self.entry = packet.pos if self.entry is None else self.entry
            try:
                frames = packet.decode()  # the last one is empty: it gives the frames held back
            except av.FFmpegError:
                self.damaged += 1
                continue
            self.decoded += len(frames)
            yield from frames

    def spoil(self) -> None:
        """Count the frame just given as one that could not be decoded."""
        self.decoded, self.damaged = self.decoded - 1, self.damaged + 1


def _next(packets: Iterator[Any]) -> Any:
    try:
        return next(packets, None)
    except (av.FFmpegError, OSError):
        return None


def _read_matrix(frame: Any) -> list[int]:
    """How players turn and mirror a frame: the nine numbers of its display matrix."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return [1, 0, 0, 0, 1, 0, 0, 0, 1] if data is None else np.frombuffer(data, np.int32).tolist()


def _square_width(frame: Any, aspect: Fraction | None) -> int:
    """The width of a frame in square pixels; its own where the header's ones cannot be meant."""
    if not aspect or not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        return frame.width
    width = max(1, round(frame.width * aspect))
    return width if width * frame.height <= MAX_PIXELS else frame.width


def _upright(frame: Any, aspect: Fraction | None, matrix: list[int]) -> np.ndarray:
    """The pixels as a player shows them, uint8 `[H, W, 3]`, RGB."""
    image = frame.to_ndarray(format="rgb24", width=_square_width(frame, aspect))
    # Where the matrix takes a picture's right and its lower edge: a, b and c, d of libavutil.
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) < abs(b) + abs(c):  # a quarter turn, apart from the mirroring below
        image, a, d = image.swapaxes(0, 1), c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)
