"""From the 68 points of a face to a level square around it."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

_FIRST, _SECOND = np.triu_indices(68, k=1)


@dataclasses.dataclass(frozen=True)
class Square:
    """A square that may be turned.

    Attributes:
      x: of its centre, in pixels.
      y: likewise.
      side: in pixels.
      angle: by which it is turned, in radians; positive is clockwise as one sees it.
    """

    x: float
    y: float
    side: float
    angle: float

    def scale(self, factor: float, shift: float) -> Square:
        """Multiply the side, and move the centre down the square by `shift` of its old sides."""
        x = self.x - math.sin(self.angle) * shift * self.side
        y = self.y + math.cos(self.angle) * shift * self.side
        return Square(x, y, factor * self.side, self.angle)


def fit_square(points: np.ndarray, mean: np.ndarray) -> Square:
    """Find the box of a face from all of its points, so that no few of them decide.

    The turn and the scale are the medians over every pair of points of what takes the mean face's
    pair to theirs (the estimator of Theil and Sen, for two dimensions); the place is then a median
    over the points. Where glasses hide the eyes or a hand the mouth, a quarter of the points may
    be anywhere; where the head turns aside, pairs one above the other still tell the scale.

    Args:
      points: float `[68, 2]`, x and y in pixels.
      mean: float `[68, 2]`, the mean face in a box from 0 to 1; see `dlib_models.PointModel`.

    Returns:
      where the mean face's box lies in the picture.
    """
    # As complex numbers, turning and scaling are one multiplication.
    z, m = points @ (1, 1j), mean @ (1, 1j)
    ratios = (z[_FIRST] - z[_SECOND]) / (m[_FIRST] - m[_SECOND])
    upright = np.exp(1j * np.angle(np.median(ratios.real) + 1j * np.median(ratios.imag)))
    angle = np.angle(upright) + np.median(np.angle(ratios / upright))  # far from where they wrap
    side = np.median(np.abs(ratios))
    rest = z - side * np.exp(1j * angle) * (m - (0.5 + 0.5j))
    x, y = np.median(rest.real), np.median(rest.imag)
    return Square(float(x), float(y), float(side), float(angle))


def cut_square(image: np.ndarray, square: Square) -> np.ndarray:
    """Cut a turned square out of a picture, upright; outside the picture its border is repeated.

    Args:
      image: uint8 `[H, W, 3]`.
      square: in its pixels.

    Returns:
      uint8 `[S, S, 3]`, S the side in whole pixels, at least 1.
    """
    side = max(1, round(square.side))
    turn = np.exp(1j * square.angle)
    corner = complex(square.x, square.y) - turn * (side / 2) * (1 + 1j)
    # From the centres of the cut's pixels to those of the picture's.
    origin = corner + turn * (0.5 + 0.5j) - (0.5 + 0.5j)
    to_picture = np.array(
        [[turn.real, -turn.imag, origin.real], [turn.imag, turn.real, origin.imag]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, to_picture, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
