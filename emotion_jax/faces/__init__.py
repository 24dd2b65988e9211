"""Faces in a picture: detected, and cut out as training cut them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.faces import dlib_models
from emotion_jax.faces.landmarks import Square, cut_square, fit_square
from emotion_jax.images import check_image, resize

if TYPE_CHECKING:  # who only detects need not import JAX
    from emotion_jax.image_spec import ImageSpec

Detector = Literal["hog", "cnn"]

# The detectors' window: they find faces from about this size on (dlib's own figure).
_WINDOW = 80

# What is searched at most, after scaling: about half a second on one core with HOG. It leaves
# pictures of up to 2 million pixels the default `min_face`; a 12-megapixel photo gets one of 98
# pixels. The network takes 11 s a million pixels on a core.
_MAX_SEARCHED = {"hog": 8_000_000, "cnn": 4_000_000}

# HOG: of 89 faces in 18 photos the weakest scores 0.22; an emblem on a suit passes for one at 0.06.
# The network: its own threshold.
_MIN_SCORE = {"hog": 0.1, "cnn": 0.0}


# A film or camera is searched for faces of every size as often, in seconds; in between for those
# known, see `Finder.narrow`. A little less than a fifth: at 5 frames a second that is all of them.
SEARCH_EVERY_S = 0.19
# To what share of its width a known face may shrink until then, by walking away or by the
# detector's doubts.
_SHRINKS = 0.7
# Between the sizes at which dlib's HOG looks: each picture has 5/6 of the side of the one before.
_PYRAMID = 6 / 5


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
      x: left edge of the box, in pixels of the picture; below 0 where the box leaves it.
      y: top edge, likewise.
      width: of the box, in pixels.
      height: likewise.
      score: the detector's. HOG's is unbounded: 0 is its own threshold, 1 and more are near
        certain. The network's begins at 0, and is near 1 where it is certain.
      points: float `[68, 2]`, x and y of the landmarks in pixels, where they were looked for.
      square: the level box that the landmarks tell, likewise.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    points: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)
    square: Square | None = dataclasses.field(default=None, compare=False, repr=False)


def detect(
    image: np.ndarray,
    *,
    min_face: float = 40,
    min_score: float | None = None,
    detector: Detector = "hog",
    cnn_model: str | None = None,
) -> list[Face]:
    """Find the faces in a picture.

    The detectors know faces of about 80 pixels and larger, so the picture is scaled until
    `min_face` has that size. Where that would be too large to search, it is scaled less, and only
    correspondingly larger faces are found.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      min_face: width in pixels of about the smallest faces to look for; some are found that are a
        tenth smaller. Time falls with its square: film of one person at arm's length does well
        with 160.
      min_score: drop what the detector scores lower: less finds more, and more that is no face. By
        default 0.1 for HOG, 0 for the network.
      detector: "hog" finds faces that look towards the camera; "cnn", a network, those too that
        are turned aside or tilted, in a hundred times the time on a CPU.
      cnn_model: path of that network; by default the one of the `landmarks` extra.

    Returns:
      the faces, from left to right.

    Raises:
      EmotionError: it is no such picture, or the network is not installed, or the file is none.
    """
    height, width = check_image(image).shape[:2]
    scale = min(_WINDOW / min_face, math.sqrt(_MAX_SEARCHED[detector] / (height * width)))
    searched = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    lowest = _MIN_SCORE[detector] if min_score is None else min_score
    if detector == "hog":
        boxes = dlib_models.detect_hog(searched, lowest)
    else:
        boxes = dlib_models.detect_cnn(searched, lowest, cnn_model)
    # Rounding the size makes the two axes' scales differ a little.
    sx, sy = width / searched.shape[1], height / searched.shape[0]
    faces = [Face(x * sx, y * sy, w * sx, h * sy, score) for x, y, w, h, score in boxes]
    return sorted(faces, key=lambda face: (face.x, face.y))


def add_landmarks(
    image: np.ndarray, faces: Sequence[Face], *, model: str | None = None
) -> list[Face]:
    """Find the 68 points of faces, and the level squares around them.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      faces: found in it.
      model: path of dlib's 68-point model; by default the one of the `landmarks` extra.

    Returns:
      the faces, with `points` and `square`.

    Raises:
      EmotionError: the model is not installed, or the file is none.
    """
    predict = dlib_models.load_points(model)
    image = np.ascontiguousarray(image)
    marked = []
    for face in faces:
        points = predict(image, (face.x, face.y, face.width, face.height))
        square = fit_square(points, predict.mean)
        marked.append(dataclasses.replace(face, points=points, square=square))
    return marked


def crop(image: np.ndarray, faces: Sequence[Face], spec: ImageSpec) -> np.ndarray:
    """Cut squares around faces, as the network was trained on.

    The side is `spec.crop_scale` widths of the box; the centre lies `spec.crop_shift` heights of
    the box below the box's. With landmarks it is their level box, and the cut is turned with it.
    Outside the picture its border is repeated.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      faces: N faces; their boxes may leave the picture.
      spec: of the network's input.

    Returns:
      uint8 `[N, spec.size, spec.size, 3]`, RGB (a network of grey faces takes the grey itself).

    Raises:
      EmotionError: it is no such picture, or the network wants level faces and these have no
        landmarks.
    """
    check_image(image)
    squares = np.empty((len(faces), spec.size, spec.size, 3), np.uint8)
    for square, face in zip(squares, faces, strict=True):
        if face.square is not None:
            level = face.square.scale(spec.crop_scale, spec.crop_shift)
            cut = cut_square(image, level)
        elif spec.align:
            raise EmotionError("this network reads level faces; find them with --landmarks")
        else:
            cut = _cut_box(image, face, spec)
        square[:] = resize(cut, spec.size, spec.size)
    return squares


def _cut_box(image: np.ndarray, face: Face, spec: ImageSpec) -> np.ndarray:
    """The square around a face's box, uint8 `[S, S, 3]`; a view where it lies in the picture."""
    height, width = image.shape[:2]
    side = max(1, round(spec.crop_scale * face.width))
    left = round(face.x + face.width / 2 - side / 2)
    top = round(face.y + face.height * (0.5 + spec.crop_shift) - side / 2)
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return image[top : top + side, left : left + side]
    rows = np.arange(top, top + side).clip(0, height - 1)
    columns = np.arange(left, left + side).clip(0, width - 1)
    return image.take(rows, 0).take(columns, 1)


@dataclasses.dataclass(frozen=True)
class Finder:
    """How the faces of pictures are found and cut out.

    Attributes:
      min_face: see `detect`; above 0.
      min_score: likewise.
      detector: likewise.
      landmarks: find the 68 points of each face, too, and cut it out level by them.
      cnn_model: see `detect`.
      landmarks_model: see `add_landmarks`.

    Raises:
      EmotionError: a value cannot be meant.
    """

    min_face: float = 40
    min_score: float | None = None
    detector: Detector = "hog"
    landmarks: bool = False
    cnn_model: str | None = None
    landmarks_model: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_face < math.inf:
            raise EmotionError(f"min_face: {self.min_face}; use a width in pixels, such as 40")
        if self.detector not in _MIN_SCORE:
            raise EmotionError(f"detector: '{self.detector}'; use {' or '.join(_MIN_SCORE)}")

    @property
    def lowest_score(self) -> float:
        """The lowest score of a face, `min_score` or the detector's default."""
        return _MIN_SCORE[self.detector] if self.min_score is None else self.min_score

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of uint8 `[H, W, 3]`, RGB, from left to right."""
        faces = detect(
            image,
            min_face=self.min_face,
            min_score=self.min_score,
            detector=self.detector,
            cnn_model=self.cnn_model,
        )
        if not self.landmarks:
            return faces
        return add_landmarks(image, faces, model=self.landmarks_model)

    def narrow(self, known: Sequence[Face]) -> Finder:
        """Look for known faces alone, and for larger ones: faster where all of them are large.

        Args:
          known: faces of a moment ago; without any, everything is looked for.
        """
        if not known:
            return self
        smallest = _SHRINKS * min(face.width for face in known)
        # In whole steps of the detectors' own pyramid, so that boxes do not jump between the two.
        steps = math.floor(math.log(max(smallest / self.min_face, 1), _PYRAMID))
        return dataclasses.replace(self, min_face=self.min_face * _PYRAMID**steps)

    def crop(self, image: np.ndarray, faces: Sequence[Face], spec: ImageSpec) -> np.ndarray:
        """Cut them out as the network wants them, see `crop`."""
        return crop(image, faces, spec)


DEFAULT = Finder()
