"""Faces in a picture: detected, and cut out as training cut them. The only file that knows dlib."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion_jax.images import resize

if TYPE_CHECKING:  # who only detects need not import JAX
    from emotion_jax.preprocess import ImageSpec

# The detector's window: it finds faces from about this size on (dlib's own figure).
_WINDOW = 80

# What is searched at most, after scaling: about half a second on one core. It leaves pictures of
# up to 2 million pixels the default `min_face`; a 12-megapixel photo gets one of 98 pixels.
_MAX_SEARCHED = 8_000_000

# Of 89 faces in 18 photos the weakest scores 0.22; an emblem on a suit passes for one at 0.06.
_MIN_SCORE = 0.1

# The detector keeps its work inside itself and lets go of Python's own lock: one call at a time.
_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
      x: left edge of the box, in pixels of the picture; below 0 where the box leaves it.
      y: top edge, likewise.
      width: of the box, in pixels.
      height: likewise.
      score: the detector's, unbounded: 0 is its own threshold, 1 and more are near certain.
    """

    x: float
    y: float
    width: float
    height: float
    score: float


@functools.cache
def make_detector() -> Any:
    """Make dlib's frontal face detector (HOG), once: later calls return the same one."""
    import dlib  # 0.2 s with its model; only who looks for faces pays

    return dlib.get_frontal_face_detector()


def detect(image: np.ndarray, *, min_face: float = 40, min_score: float = _MIN_SCORE) -> list[Face]:
    """Find the faces in a picture that look towards the camera.

    The detector knows faces of about 80 pixels and larger, so the picture is scaled until
    `min_face` has that size. Where that would be too large to search, it is scaled less, and only
    correspondingly larger faces are found.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      min_face: width in pixels of the smallest faces to look for. Time falls with its square: film
        of one person at arm's length does well with 160.
      min_score: drop what the detector scores lower; negative finds more, and more that is no face.

    Returns:
      the faces, from left to right.
    """
    height, width = image.shape[:2]
    scale = min(_WINDOW / min_face, math.sqrt(_MAX_SEARCHED / (height * width)))
    searched = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    with _LOCK:
        boxes, scores, _ = make_detector().run(searched, 0, min_score)
    # Rounding the size makes the two axes' scales differ a little.
    sx, sy = width / searched.shape[1], height / searched.shape[0]
    faces = [
        Face(box.left() * sx, box.top() * sy, box.width() * sx, box.height() * sy, score)
        for box, score in zip(boxes, scores, strict=True)
    ]
    return sorted(faces, key=lambda face: (face.x, face.y))


def crop(image: np.ndarray, faces: Sequence[Face], spec: ImageSpec) -> np.ndarray:
    """Cut squares around faces, as the network was trained on.

    The side is `spec.crop_scale` widths of the box; the centre lies `spec.crop_shift` heights of
    the box below the box's. Outside the picture its border is repeated.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      faces: N faces; their boxes may leave the picture.
      spec: of the network's input.

    Returns:
      uint8 `[N, spec.size, spec.size, 3]`, RGB (a network of grey faces takes the grey itself).
    """
    height, width = image.shape[:2]
    squares = np.empty((len(faces), spec.size, spec.size, 3), np.uint8)
    for square, face in zip(squares, faces, strict=True):
        side = max(1, round(spec.crop_scale * face.width))
        left = round(face.x + face.width / 2 - side / 2)
        top = round(face.y + face.height * (0.5 + spec.crop_shift) - side / 2)
        rows = np.arange(top, top + side).clip(0, height - 1)
        columns = np.arange(left, left + side).clip(0, width - 1)
        square[:] = resize(image.take(rows, 0).take(columns, 1), spec.size, spec.size)
    return squares


@dataclasses.dataclass(frozen=True)
class Finder:
    """How the faces of pictures are found and cut out.

    Attributes:
      min_face: see `detect`.
      min_score: likewise.
    """

    min_face: float = 40
    min_score: float = _MIN_SCORE

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of uint8 `[H, W, 3]`, RGB, from left to right."""
        return detect(image, min_face=self.min_face, min_score=self.min_score)

    def crop(self, image: np.ndarray, faces: Sequence[Face], spec: ImageSpec) -> np.ndarray:
        """Cut them out as the network wants them, see `crop`."""
        return crop(image, faces, spec)


DEFAULT = Finder()
