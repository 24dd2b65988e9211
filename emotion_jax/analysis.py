"""From a picture to rows: read, detect, crop, predict. What a program calls that wants it all."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from emotion_jax import faces, images
from emotion_jax.classifying import Predictor
from emotion_jax.errors import EmotionError
from emotion_jax.host.threads import map_ahead
from emotion_jax.labels import EMOTIONS
from emotion_jax.rows import Row, Rows, make_rows

if TYPE_CHECKING:
    from emotion_jax.image_spec import ImageSpec

Picture = str | os.PathLike[str] | np.ndarray

# Pictures that are read and searched at a time. Searching one takes ten times as long as a narrow
# network takes for its faces; more threads would hold more pictures.
_WORKERS = min(4, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A picture and what was found in it.

    Attributes:
      source: what its rows call it.
      image: uint8 `[H, W, 3]`, RGB.
      faces: N of them, from left to right.
      probabilities: float32 `[N, 8]`, in the order of `EMOTIONS`.
    """

    source: str
    image: np.ndarray
    faces: list[faces.Face]
    probabilities: np.ndarray

    def rows(self) -> list[Row]:
        """Make a row for each face, see `rows.make_row`."""
        size = self.image.shape[0], self.image.shape[1]
        return make_rows(self.faces, self.probabilities, source=self.source, size=size)


def analyze(
    image: Picture | Iterable[Picture],
    predictor: Predictor | str | os.PathLike[str] | None = None,
    *,
    finder: faces.Finder = faces.DEFAULT,
    source: str | None = None,
) -> Rows:
    """Find the faces of a picture, or of several, and read their emotions.

    Args:
      image: a path, or uint8 `[H, W, 3]`, RGB (what OpenCV reads is BGR: `image[..., ::-1]`); or
        several of them, in a list.
      predictor: from `load_predictor`, or what that takes, which is loaded at the first call; by
        default the shipped one.
      finder: of the faces.
      source: what the rows call a single picture. By default its path, or "array"; arrays in a list
        are "array 0", "array 1", ... by their place.

    Returns:
      a row for each face, picture by picture and from left to right, see `rows.make_row`. A
      picture without a face has no row.

    Raises:
      EmotionError: a picture cannot be read, or is no such array.
    """
    if isinstance(image, str | os.PathLike | np.ndarray):
        pictures = [(source or _name(image), image)]
    elif not isinstance(image, Iterable):
        images.check_image(image)
    else:
        pictures = [(_name(one, f" {i}"), one) for i, one in enumerate(image)]
    rows = Rows()
    if predictor is None or isinstance(predictor, str | os.PathLike):
        predictor = _load_once(None if predictor is None else os.fspath(predictor))
    for result in label_each(pictures, predictor, finder):
        if isinstance(result, EmotionError):
            raise result
        rows += result.rows()
    return rows


def predict_faces(
    image: np.ndarray, found: list[faces.Face], predictor: Predictor, finder: faces.Finder
) -> np.ndarray:
    """Cut the faces out of a picture and read their emotions.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      found: N faces in it. Without any, the predictor is not called.
      predictor: of the emotions.
      finder: cuts out the faces.

    Returns:
      float32 `[N, 8]` in the order of `EMOTIONS`; each row sums to 1.
    """
    if not found:
        return np.empty((0, len(EMOTIONS)), np.float32)
    return np.asarray(predictor(finder.crop(image, found, predictor.spec)))


def label_each(
    pictures: Iterable[tuple[str, Picture]], predictor: Predictor, finder: faces.Finder
) -> Iterator[Labelled | EmotionError]:
    """Label pictures in their order; while one is classified, the next are read and searched.

    The faces of one picture go through the network together. Those of several do not: on a CPU a
    face takes as long among 32 as alone, and the rows would come later.

    Args:
      pictures: what their rows call them, and a path or an array.
      predictor: of the emotions, called once for each picture with faces.
      finder: of the faces.

    Yields:
      for each picture what was found in it, or why it cannot be read. Up to twice the number of
      threads are held in memory, four on two cores.
    """
    find = functools.partial(_find, spec=predictor.spec, finder=finder)
    ahead = 2 * _WORKERS - 1
    with contextlib.closing(map_ahead(find, pictures, threads=_WORKERS, ahead=ahead)) as results:
        for result in results:
            one = result()
            if isinstance(one, EmotionError):
                yield one
                continue
            labelled, crops = one
            if len(crops):
                probabilities = np.asarray(predictor(crops))
                labelled = dataclasses.replace(labelled, probabilities=probabilities)
            yield labelled


def _find(
    named: tuple[str, Picture], *, spec: ImageSpec, finder: faces.Finder
) -> tuple[Labelled, np.ndarray] | EmotionError:
    """A picture with its faces, still without probabilities, and these cut out."""
    source, picture = named
    try:
        if isinstance(picture, str | os.PathLike):
            image = images.read_image(picture)
        else:
            image = images.check_image(picture)
    except EmotionError as error:
        return error
    found = finder.detect(image)
    nothing = np.empty((0, len(EMOTIONS)), np.float32)
    return Labelled(source, image, found, nothing), finder.crop(image, found, spec)


def _name(picture: Picture, number: str = "") -> str:
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    return f"array{number}"


@functools.cache
def _load_once(path: str | None) -> Predictor:
    from emotion_jax.inference import load_predictor  # JAX: only who predicts waits for it

    return load_predictor(path)
