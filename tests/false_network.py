"""A network that answers without looking, and pictures that say how many faces they have."""

import numpy as np

from emotion_jax import images
from emotion_jax.faces import Face
from emotion_jax.image_spec import ImageSpec


class FalsePredictor:
    """Remembers the shapes of the crops; says "fear" with 0.3 and the rest alike."""

    def __init__(self):
        self.spec = ImageSpec(size=40)
        self.shapes = []

    def __call__(self, crops, /):
        self.shapes.append(crops.shape)
        rows = np.full((len(crops), 8), 0.1, np.float32)
        rows[:, 4] = 0.3
        return rows


def false_detect(image, **_):
    """As many faces as the picture's first pixel says."""
    return [Face(10.0 * i, 20, 30, 30, 1.0) for i in range(int(image[0, 0, 0]))]


def write_picture(path, number):
    image = np.full((120, 160, 3), 60, np.uint8)
    image[0, 0] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write_image(path, image)
    return str(path)
