"""The drawing tools: smooth curves in face coordinates, and a pen that turns them with the head.

Face coordinates: the unit is half the width of the head, x to the right of the picture, y down, the
origin between the eyes. A head is 2 wide and about 2.6 high.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

# Polygons are given to OpenCV in 1/16 pixel.
_SHIFT = 4
# A shade layer multiplies the picture by itself / NEUTRAL.
NEUTRAL = 128
# Shadows are soft: their layer has a third of the picture's resolution, and a ninth of its cost.
_COARSE = 3
# Brush strokes narrower than this, in pixels, are left out: OpenCV would draw them a pixel wide.
_FINEST = 0.75


@functools.cache
def _spline(count: int, closed: bool, steps: int) -> np.ndarray:
    """The Catmull-Rom curve through `count` points, as a matrix from those to the curve's."""
    segments = count if closed else count - 1
    start = np.repeat(np.arange(segments), steps)
    t = np.tile(np.arange(steps) / steps, segments)
    if not closed:
        start, t = np.append(start, segments - 1), np.append(t, 1.0)
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    matrix = np.zeros((len(t), count))
    for weight, step in zip(weights, (-1, 0, 1, 2), strict=True):
        index = (start + step) % count if closed else np.clip(start + step, 0, count - 1)
        np.add.at(matrix, (np.arange(len(t)), index), weight)
    return matrix


def smooth(points, *, closed: bool = False, steps: int = 4) -> np.ndarray:
    """Lead a smooth curve through points `[N, 2]`, with `steps` points a segment."""
    points = np.asarray(points, float)
    return _spline(len(points), closed, steps) @ points


@functools.cache
def _circle(exponent: float, count: int) -> np.ndarray:
    angle = np.arange(count) * (2 * np.pi / count)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.sign(circle) * np.abs(circle) ** (2 / exponent)


def ellipse(x, y, width, height, *, exponent: float = 2.0, count: int = 20) -> np.ndarray:
    """An ellipse of half-axes `width` and `height`; a larger exponent makes it a rounded box."""
    return _circle(exponent, count) * (width, height) + (x, y)


def stroke(curve: np.ndarray, width: float, *, taper: float = 1.0) -> np.ndarray:
    """Outline a brush stroke, `[2N, 2]`, thinner towards both ends.

    Args:
      curve: what it follows, `[N, 2]`, no point twice in a row.
      width: at the middle.
      taper: 0 keeps the width to the ends, 1 ends in points.
    """
    # As complex numbers: a normal is the direction times i.
    line = np.ascontiguousarray(curve, float).view(complex)[:, 0]
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    across = along * (_profile(len(line), taper) * (0.5j * width) / np.abs(along))
    return np.concatenate([line + across, (line - across)[::-1]]).view(float).reshape(-1, 2)


@functools.cache
def _profile(count: int, taper: float) -> np.ndarray:
    return 1 - taper * np.linspace(-1, 1, count) ** 2


class Pen:
    """Draws shapes in face coordinates onto a picture, turned, placed and sized like one head."""

    def __init__(
        self,
        picture: np.ndarray,
        *,
        centre: tuple[float, float],
        scale: float,
        yaw: float,
        pitch: float,
        roll: float,
    ):
        """Place a head.

        Args:
          picture: uint8 `[H, W, 3]`, drawn on in place.
          centre: where the origin of the face coordinates falls, (x, y) in pixels.
          scale: pixels per unit.
          yaw: how far the head is turned to the right, in degrees.
          pitch: how far it is bent down, in degrees.
          roll: how far it is tilted clockwise, in degrees.
        """
        self.picture = picture
        height, width = picture.shape[:2]
        self._shade = np.full((height // _COARSE, width // _COARSE, 3), NEUTRAL, np.uint8)
        self._mask = np.full((height, width), 255, np.uint8)  # where shading falls
        self._queue: list[tuple] = []
        self._shadows: list[tuple] = []
        self.centre, self.scale = np.array(centre, float), scale
        sin_yaw, sin_pitch, sin_roll = np.sin(np.radians([yaw, pitch, roll]))
        cos_yaw, cos_pitch, cos_roll = np.cos(np.radians([yaw, pitch, roll]))
        roll_matrix = scale * np.array([[cos_roll, -sin_roll], [sin_roll, cos_roll]])
        # Columns: x, y and z (towards the camera); only two rows, for the camera is far away.
        turn = np.array([[cos_yaw, 0, sin_yaw], [-sin_yaw * sin_pitch, cos_pitch, sin_pitch]])
        self._turn = roll_matrix @ turn
        # A head is a little less deep than wide: the ellipse's extent as it turns.
        extent = np.sqrt(cos_yaw**2 + (0.85 * sin_yaw) ** 2)
        self._outline = roll_matrix @ np.array([[extent, 0, sin_yaw], [0, 1, sin_pitch]])
        self._body = scale * np.array([[1.0, 0.0, 0.3 * sin_yaw], [0.0, 1.0, 0.0]])

    def face(self, points: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Pixels of points on the face, an ellipsoid; `lift` raises them above it (the nose)."""
        x, y = points[:, 0], points[:, 1]
        # The constants are the half-axes: the head 1.04 wide, 1.7 high, 0.8 deep.
        depth = 0.8 * np.sqrt(np.maximum(1 - (x / 1.04) ** 2 - ((y - 0.1) / 1.7) ** 2, 0)) + lift
        return points @ self._turn[:, :2].T + depth[:, None] * self._turn[:, 2] + self.centre

    def outline(self, points: np.ndarray) -> np.ndarray:
        """Pixels of points on the silhouette, which keeps its width and leads with the chin."""
        depth = (0.38 * points[:, 1] - 0.08).clip(-0.35, 0.45)
        return points @ self._outline[:, :2].T + depth[:, None] * self._outline[:, 2] + self.centre

    def hanging(self, points: np.ndarray) -> np.ndarray:
        """Pixels of hair or cloth: on the silhouette above, below the jaw more and more upright."""
        loose = ((points[:, 1:] - 0.6) / 1.2).clip(0, 1)
        return (1 - loose) * self.outline(points) + loose * self.body(points)

    def body(self, points: np.ndarray) -> np.ndarray:
        """Pixels of points on the neck and the shoulders, which follow the head a little."""
        follow = (1.6 - points[:, 1]).clip(0, 1)
        return points @ self._body[:, :2].T + follow[:, None] * self._body[:, 2] + self.centre

    def fill(self, pixels: np.ndarray, colour) -> None:
        """Fill a polygon of pixels `[N, 2]`, anti-aliased."""
        self.flush()
        _fill(self.picture, _corners(pixels), colour)

    def paint(self, points: np.ndarray, colour, lift: float = 0.0) -> None:
        """Fill a polygon `[N, 2]` on the face at the next `flush`: many at once are faster."""
        self._queue.append((points, colour, lift))

    def line(
        self, curve: np.ndarray, width: float, colour, lift: float = 0.0, taper: float = 1.0
    ) -> None:
        """Paint a brush stroke, unless it is too fine to be seen at this size."""
        if width * self.scale > _FINEST:
            self.paint(stroke(curve, width, taper=taper), colour, lift)

    def flush(self) -> None:
        """Fill what was painted, in that order."""
        for corners, colour in self._placed(self._queue):
            _fill(self.picture, corners, colour)

    def _placed(self, queue: list[tuple], coarse: int = 1) -> Iterator[tuple[np.ndarray, Any]]:
        """Empty a queue of (points, what, lift), placing all its polygons together."""
        if not queue:
            return
        polygons, colours, lifts = zip(*queue, strict=True)
        queue.clear()
        lengths = [len(points) for points in polygons]
        pixels = self.face(np.concatenate(polygons), np.repeat(lifts, lengths))
        corners = _corners(pixels, coarse)
        start = 0
        for length, colour in zip(lengths, colours, strict=True):
            yield corners[start : start + length], colour
            start += length

    def glaze(self, polygons: list[np.ndarray], colour, alpha: float) -> None:
        """Fill polygons of pixels with a colour that lets 1 - `alpha` of the picture through."""
        self.flush()
        glazed = self.picture.copy()
        for pixels in polygons:
            _fill(glazed, _corners(pixels), colour)
        cv2.addWeighted(glazed, alpha, self.picture, 1 - alpha, 0, self.picture)

    def darken(self, points: np.ndarray, factor: float, lift: float = 0.0) -> None:
        """Shade a polygon on the face softly: below 1 a shadow, above 1 a light."""
        self._shadows.append((points, factor, lift))

    def darken_pixels(self, pixels: np.ndarray, factor: float) -> None:
        """Shade a polygon of pixels, as `darken` does one on the face."""
        _fill(self._shade, _corners(pixels, _COARSE), _shadow(factor))

    def shade_within(self, pixels: np.ndarray) -> None:
        """Limit shading to a polygon of pixels: no shadow falls on what lies behind the head."""
        self._mask = np.zeros(self.picture.shape[:2], np.uint8)
        _fill(self._mask, _corners(pixels), (255, 255, 255))

    def apply_shade(self, softness: float) -> None:
        """Soften the shade by a sigma in face units, multiply it in and clear it."""
        self.flush()
        for corners, factor in self._placed(self._shadows, _COARSE):
            _fill(self._shade, corners, _shadow(factor))
        soft = cv2.GaussianBlur(self._shade, (0, 0), softness * self.scale / _COARSE)
        height, width = self.picture.shape[:2]
        soft = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
        shaded = cv2.multiply(self.picture, soft, scale=1 / NEUTRAL)
        cv2.copyTo(shaded, self._mask, self.picture)
        self._shade[:] = NEUTRAL


def _shadow(factor: float) -> tuple[float, float, float]:
    """A colour of the shade layer; shadows on skin are warm: they take more blue than red."""
    dark = 1 - factor
    return NEUTRAL * (1 - 0.85 * dark), NEUTRAL * factor, NEUTRAL * (1 - 1.08 * dark)


def _corners(pixels: np.ndarray, coarse: int = 1) -> np.ndarray:
    """Pixels as OpenCV's integers, on a layer `coarse` times smaller than the picture."""
    if coarse > 1:
        pixels = (pixels + 0.5) / coarse - 0.5  # the middle of a pixel is its position
    return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


def _fill(picture: np.ndarray, corners: np.ndarray, colour) -> None:
    scalar = colour.tolist() if isinstance(colour, np.ndarray) else colour
    cv2.fillPoly(picture, [corners], scalar, cv2.LINE_AA, _SHIFT)
