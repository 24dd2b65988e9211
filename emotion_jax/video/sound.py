"""The sound of a film, taken over into another: copied where mp4 can hold it as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from emotion_jax.video.reading import open_film
from emotion_jax.video.times import Joins


class Sound:
    """The sound of a film on its way into another.

    What mp4 cannot hold, or no player expects there (a camera's uncompressed sound), becomes AAC.
    """

    def __init__(self, container: Any, source: Any, output: Any, begin_s: float) -> None:
        """Add a stream for it to `output`, which has no packet yet.

        Args:
          container: the film it comes from.
          source: its stream of sound.
          output: the film it goes to.
          begin_s: the time in the source, in seconds, at which the other film begins.
        """
        self._container, self._output = container, output
        self._zero = Fraction(container.start_time or 0, av.time_base)
        self._begin = self._zero + Fraction(begin_s)
        self._source, self._joins = source, Joins(container)
        self._packets = container.demux()  # the pictures, too: they tell where films were joined
        self._waiting: Any = None
        self._latest: int | None = None
        name = source.codec_context.codec.canonical_name
        self._copied = name in output.supported_codecs and not name.startswith("pcm")
        self._filter: Any = None
        if self._copied:
            self._stream = output.add_stream_from_template(source)
            if name == "aac" and not source.codec_context.extradata:
                # From a broadcast: each packet says what it is, where mp4 says it once.
                self._filter = BitStreamFilterContext("aac_adtstoasc", source)
        else:
            # Wave files often say how many channels they have, and not which.
            self._stream = output.add_stream("aac", rate=_aac_rate(source.codec_context))
            self._stream.layout = "mono" if source.codec_context.channels == 1 else "stereo"

    def copy(self, until_s: float | None = None) -> None:
        """Take over what begins before a time in the source, in seconds, or all that is left.

        What ends before the other film begins is left out; a decoder needs the packet before.
        """
        while self._packets is not None:
            packet, self._waiting = self._waiting or self._read(), None
            if packet is None:
                break
            if packet.pts is not None:
                begin = packet.pts * packet.time_base
                if until_s is not None and begin >= self._zero + Fraction(until_s):
                    self._waiting = packet
                    return
                if begin + (packet.duration or 0) * packet.time_base < self._begin:
                    continue
            self._put(packet)

    def close(self) -> None:
        """Take leave of both films: nothing is copied any more."""
        if self._packets is not None and not self._copied:
            self._output.mux(self._stream.encode())
        elif self._packets is not None and self._filter is not None:
            self._mux(self._filter.filter(None))
        self._packets = None
        self._container.close()

    def _read(self) -> Any:
        try:
            for packet in self._packets:
                self._joins.straighten(packet)
                if packet.stream.index == self._source.index:
                    return packet
        except (av.FFmpegError, OSError):  # a film that breaks off
            pass
        return None

    def _put(self, packet: Any) -> None:
        ticks = round(self._begin / packet.time_base)
        if not self._copied:
            try:
                frames = packet.decode()
            except av.FFmpegError:  # damaged sound leaves a gap
                return
            for frame in frames:
                if frame.pts is not None:  # else nobody knows when it is heard: a damaged film
                    frame.pts -= ticks
                    self._output.mux(self._stream.encode(frame))
        elif packet.size and None not in (packet.pts, packet.dts):  # likewise
            packet.pts -= ticks
            packet.dts -= ticks
            self._mux([packet] if self._filter is None else self._filter.filter(packet))

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            if self._latest is not None and packet.dts is not None and packet.dts <= self._latest:
                continue  # said twice, where a film was cut or joined: mp4 takes it once
            self._latest = packet.dts
            packet.stream = self._stream
            self._output.mux(packet)


def _aac_rate(context: Any) -> int:
    """The sound's own rate, or where AAC has none such, that of films."""
    rates = av.Codec("aac", "w").audio_rates or []
    return context.sample_rate if context.sample_rate in rates else 48_000


def open_sound(path: str | os.PathLike[str], output: Any, begin_s: float) -> Sound | None:
    """Open the sound of a film; None where it has none.

    Args:
      path: of the film.
      output: see `Sound`.
      begin_s: likewise.
    """
    container = open_film(os.fspath(path))
    source = container.streams.best("audio")
    if source is None or source.codec_context is None:
        container.close()
        return None
    return Sound(container, source, output, begin_s)
