"""The times of films, where what the file says of them cannot be meant."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

# Another film was joined on where a stream steps back by more than this many seconds, which damage
# hardly does, or ahead of all streams by more than that many, FFmpeg's own measure, in a container
# whose clock may start anew.
_BACK, _AHEAD = 1, 10
_RESTARTS = 0x0200  # AVFMT_TS_DISCONT: of transport streams above all

# Where more than this part of the frames stand before the one they follow, times of showing are
# not what they are said to be.
_WRONG = 0.1


class Joins:
    """Straightens films that were joined byte by byte: each begins where the one before ends."""

    def __init__(self, container: Any) -> None:
        self._restarts = bool(container.format.flags & _RESTARTS)
        # Seconds as floats: a film has a million packets, and fractions take four times as long.
        self._shifts = [0.0]  # of each film
        self._films: dict[int, int] = {}  # where each stream is: its film
        self._latest: dict[int, float] = {}  # and its time there
        self._end = 0.0  # of what was read, in straight time

    @property
    def count(self) -> int:
        """How many were found up to now."""
        return len(self._shifts) - 1

    def straighten(self, packet: Any) -> None:
        """Change the times of a packet; those of a stream must come as they lie in the file.

        What is to be heard with its pictures needs the packets of both: they share each shift.
        """
        if packet.dts is None or packet.stream.type not in ("video", "audio"):
            return
        stream, tick = packet.stream.index, float(packet.time_base)
        begin, film = packet.dts * tick, self._films.get(stream, self.count)
        if self._is_elsewhere(begin, film, self._latest.get(stream)):
            # The first stream to get there says where it begins, and the others follow.
            if film == self.count:
                self._shifts.append(self._end - begin)
            film = self.count
        self._films[stream], self._latest[stream] = film, begin
        if film:
            ticks = round(self._shifts[film] / tick)
            packet.dts += ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        shown = packet.dts if packet.pts is None else packet.pts
        self._end = max(self._end, (shown + (packet.duration or 0)) * tick)

    def _is_elsewhere(self, begin: float, film: int, latest: float | None) -> bool:
        if latest is None:
            return False
        ahead = self._restarts and begin + self._shifts[film] > self._end + _AHEAD
        return ahead or begin < latest - _BACK


class Clock:
    """When frames are shown.

    As they say themselves; but H.264 with frames that look ahead says it wrongly in AVI, which
    knows one time for each: the order in which they come out of the decoder is right.
    """

    def __init__(self) -> None:
        self._latest: dict[str, int | None] = {"pts": None, "dts": None}
        self._faults = {"pts": 0, "dts": 0}
        self._frames = 0

    def read(self, frame: Any) -> Fraction | None:
        """The time of the next frame, in seconds of the film's own clock; None if it has none."""
        self._frames += 1
        for kind, latest in self._latest.items():
            time = getattr(frame, kind)
            if time is not None:
                self._faults[kind] += latest is not None and time <= latest
                self._latest[kind] = time
        wrong = self._faults["pts"] - self._faults["dts"] > _WRONG * self._frames
        ticks = frame.dts if wrong else frame.pts
        return None if None in (ticks, frame.time_base) else ticks * frame.time_base


def count_before(container: Any, stream_index: int, pts: int, entry: int | None) -> int:
    """How many frames are shown before the one with this time stamp.

    Args:
      container: of the film, of which nothing has been read.
      stream_index: of its pictures.
      pts: the time stamp, in ticks of that stream.
      entry: where in the file a packet lies that must come before it, in bytes.

    Raises:
      ValueError: that cannot be told: of a film of several, joined, one stamp may mean many frames.
    """
    count, joins, met = 0, Joins(container), False
    for packet in container.demux(container.streams[stream_index]):
        joins.straighten(packet)
        if joins.count:
            raise ValueError("joined")
        if packet.size and packet.pts is None:
            raise ValueError("no time stamps")
        met |= packet.pos == entry
        if packet.dts is not None and packet.dts >= pts:
            break
        count += packet.pts is not None and packet.pts < pts and not packet.is_discard
    if not met:
        raise ValueError("that frame is another's")
    return count
