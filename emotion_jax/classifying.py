"""Faces of any size and number to the probabilities of all emotions, whatever computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS

if TYPE_CHECKING:
    from emotion_jax.image_spec import ImageSpec


class Predictor(Protocol):
    """What `emotion_jax.load_predictor` returns: faces in, probabilities out."""

    @property
    def spec(self) -> ImageSpec:
        """How the network wants its faces cropped."""

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """Map uint8 `[N, H, W, 3]`, RGB, to float32 `[N, 8]` whose rows sum to 1."""


class Mirrored:
    """A predictor that looks twice: the mean of its answers to a face and to its mirror image.

    Twice the work; faces and their mirror images get one answer.

    Attributes:
      spec: how the network wants its faces cropped.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Takes what answers, called twice for each call."""
        self.spec, self._predictor = predictor.spec, predictor

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """Map uint8 `[N, H, W, 3]`, RGB, to float32 `[N, 8]` whose rows sum to 1."""
        seen = self._predictor(images)
        return (seen + self._predictor(np.asarray(images)[:, :, ::-1])) / 2


def classify(
    images: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], *, size: int, batch: int
) -> np.ndarray:
    """Call a network for faces, in turns.

    Args:
      images: faces uint8 `[N, H, W, C]`, C 3 (RGB) or 1 (grey), of any height and width.
      predict: the network: from uint8 `[n, size, size, C]` to the probabilities float32 `[n, K]` of
        the first K emotions.
      size: height and width of its input, in pixels.
      batch: the most faces in a call of it.

    Returns:
      float32 `[N, 8]` in the order of `EMOTIONS`; rows sum to 1.

    Raises:
      EmotionError: they are no such faces.
    """
    images = np.asarray(images)
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] in (1, 3)
    if not fits or 0 in images.shape[1:]:
        raise EmotionError(f"faces must be uint8 [N, H, W, 3], not {images.dtype} {images.shape}")
    if images.shape[1:3] != (size, size):
        from emotion_jax.images import resize  # OpenCV: only who needs it waits for it

        shape = (len(images), size, size, images.shape[-1])
        images = np.array([resize(image, size, size) for image in images], np.uint8).reshape(shape)
    result = np.zeros((len(images), len(EMOTIONS)), np.float32)
    for i in range(0, len(images), batch):
        known = predict(images[i : i + batch])
        result[i : i + batch, : known.shape[1]] = known  # without contempt, say: it is never seen
    return result
