"""Who is who in a film, and each person's emotions smoothed over time: arrays and numbers only.

Each person moves on evenly until the next frame and is then looked for near that place; who is
whom is decided for all at once (the assignment problem), as in SORT (arXiv 1602.00763). Distances
count in widths of a face rather than by overlap, so that few frames a second are enough.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from emotion_jax.faces import Face

# Two frames of a calm face differ by some percent; an expression takes half a second to appear.
SMOOTHING = 0.2

# Seconds without a face after which a person is forgotten: a turn of the head, someone passing by.
_MEMORY = 2.0
# Seconds over which a speed is averaged: a detector's boxes jump by a tenth of a face.
_STEADY = 0.2
# Seconds after which someone unseen has come to rest: nobody keeps a speed for long.
_COAST = 0.5
# How far from where it is expected a face may appear, in widths of it: at once, more a second
# unseen, and at most. Two faces side by side are 1.5 widths apart.
_REACH, _REACH_PER_SECOND, _MAX_REACH = 0.8, 0.8, 2.0


@dataclasses.dataclass(eq=False)
class _Person:
    """What is known of someone: `place` is centre x, y and width, in pixels; `speed` its change."""

    number: int
    place: np.ndarray
    speed: np.ndarray
    probabilities: np.ndarray
    time_s: float
    face: Face

    def predict(self, time_s: float) -> np.ndarray:
        """Where the person is by then, slowing down on the way."""
        seconds = _COAST * (1 - math.exp((self.time_s - time_s) / _COAST))
        return self.place + seconds * self.speed

    def stay(self, time_s: float) -> np.ndarray:
        """Where the person was seen last."""
        return self.place


class People:
    """The persons of one film or camera.

    Attributes:
      seen: how many there were up to now.
    """

    def __init__(self, *, smoothing: float = 0.0) -> None:
        """Begin with nobody.

        Args:
          smoothing: time constant in seconds of the exponential average of a person's
            probabilities; 0 leaves them as they are.
        """
        self.seen = 0
        self._smoothing = smoothing
        self._people: list[_Person] = []
        self._time_s = -math.inf
        self._size: tuple[int, int] | None = None

    def update(
        self,
        faces: Sequence[Face],
        probabilities: np.ndarray,
        time_s: float,
        *,
        size: tuple[int, int] | None = None,
    ) -> tuple[list[int], np.ndarray]:
        """Recognize the persons of the next frame by place, size and motion.

        A person keeps the number through up to two seconds without a face, and however long it is
        from one call to the next.

        Args:
          faces: N faces, in any order.
          probabilities: float `[N, 8]`, rows sum to 1.
          time_s: of the frame, in seconds; never less than in the call before.
          size: height and width of the frame, in pixels. Where they are others than in the call
            before, everybody is where they were as shares of the picture.

        Returns:
          N different numbers, counted from 1 in the order of appearance and never used again, and
          float32 `[N, 8]`, smoothed, rows sum to 1.
        """
        self._people = [
            person
            for person in self._people
            if person.time_s >= self._time_s or time_s - person.time_s <= _MEMORY
        ]
        self._time_s = time_s
        if size is not None and self._size not in (None, size):
            self._fit(size)
        self._size = size
        places = np.array([_place(face) for face in faces]).reshape(-1, 3)
        known = self._recognize(places, time_s)
        for i, (face, place, row) in enumerate(zip(faces, places, probabilities, strict=True)):
            if i in known:
                self._move(known[i], face, place, row, time_s)
            else:
                self.seen += 1
                known[i] = _Person(self.seen, place, np.zeros(3), row, time_s, face)
                self._people.append(known[i])
        smoothed = np.empty(np.shape(probabilities), np.float32)
        for i, person in known.items():
            smoothed[i] = person.probabilities
        return [known[i].number for i in range(len(faces))], smoothed

    def missing(self) -> list[Face]:
        """The last known boxes of those who were not found in the last frame but are remembered."""
        return [person.face for person in self._people if person.time_s < self._time_s]

    def _fit(self, size: tuple[int, int]) -> None:
        """Move everybody along to a picture of another size."""
        old = self._size or size
        tall, wide = size[0] / old[0], size[1] / old[1]
        scale = np.array([wide, tall, wide])  # of centre x, y and width
        for person in self._people:
            person.place, person.speed = scale * person.place, scale * person.speed
            person.face = dataclasses.replace(
                person.face,
                x=wide * person.face.x,
                y=tall * person.face.y,
                width=wide * person.face.width,
                height=tall * person.face.height,
            )

    def _recognize(self, places: np.ndarray, time_s: float) -> dict[int, _Person]:
        """Who stands at each of the places `[N, 3]`, by its index; those of nobody are left out."""
        known: dict[int, _Person] = {}
        # Whoever left the picture comes back where they left it, not where they would be by now.
        for expect in (_Person.predict, _Person.stay):
            waiting = [person for person in self._people if person not in known.values()]
            free = [i for i in range(len(places)) if i not in known]
            if not waiting or not free:
                break
            expected = np.array([expect(person, time_s) for person in waiting])
            unseen = np.array([time_s - person.time_s for person in waiting])
            reach = np.minimum(_REACH + _REACH_PER_SECOND * unseen, _MAX_REACH)
            for row, column in _assign(expected, places[free], reach):
                known[free[column]] = waiting[row]
        return known

    def _move(
        self, person: _Person, face: Face, place: np.ndarray, row: np.ndarray, time_s: float
    ) -> None:
        """Take a person's new place and emotions in."""
        gap = time_s - person.time_s
        if gap > 0:
            share = 1 - math.exp(-gap / _STEADY)
            person.speed += share * ((place - person.place) / gap - person.speed)
        share = 1 - math.exp(-gap / self._smoothing) if self._smoothing > 0 else 1.0
        person.probabilities = (1 - share) * person.probabilities + share * row
        person.place, person.time_s, person.face = place, time_s, face


def _place(face: Face) -> tuple[float, float, float]:
    return face.x + face.width / 2, face.y + face.height / 2, max(face.width, 1.0)


def _assign(expected: np.ndarray, found: np.ndarray, reach: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of (expected, found), together as near as can be, none further apart than `reach`.

    Args:
      expected: `[P, 3]` centres and widths in pixels.
      found: `[F, 3]`.
      reach: `[P]` in widths.
    """
    width = np.sqrt(np.maximum(expected[:, None, 2], 1) * found[None, :, 2])
    away = np.hypot(*np.moveaxis(expected[:, None, :2] - found[None, :, :2], 2, 0)) / width
    # A face of half the width is another one, even at the same place.
    ratio = np.abs(np.log2(np.maximum(expected[:, None, 2], 1) / found[None, :, 2]))
    # What a pair gains over being left apart: 1 at the very place, 0 at the end of its reach.
    gain = np.maximum(1 - (away + ratio) / reach[:, None], 0)
    if 1 in gain.shape:  # one person, mostly: the nearest pair, and no SciPy to wait for
        best = int(gain.argmax())
        rows, columns = [best // gain.shape[1]], [best % gain.shape[1]]
    else:
        from scipy.optimize import linear_sum_assignment  # 0.5 s

        rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(r, c) for r, c in zip(rows, columns, strict=True) if gain[r, c] > 0]
