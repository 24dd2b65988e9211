"""From pixels to the network's input: `normalize`, the only such map, in pure JAX.

Images are channels last, intensities 0..255.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from emotion_jax.errors import EmotionError

Batch = dict[str, jax.Array]

# ITU-R BT.601, the weights that OpenCV uses too.
LUMINANCE = (0.299, 0.587, 0.114)

# No face is larger, in pixels, and memory ends.
MAX_SIZE = 4096
# Past these a crop shows a dot, or no face.
CROP_SCALES, CROP_SHIFTS = (0.5, 4.0), (-1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How a face becomes the network's input; saved with the weights, for the camera to repeat.

    Attributes:
      size: height and width of the input, in pixels.
      grey: keep the luminance only, for networks trained on grey faces.
      channels: of the input: 3, or 1 where `grey`.
      mean: subtracted from intensities in 0..1, one number or one a channel.
      std: what is left is divided by this, likewise.
      crop_scale: side of the square crop, in widths of the detector's box.
      crop_shift: how far the crop's centre lies below the box's, in heights of the box; negative
        is up. The defaults are what dlib's HOG boxes need to look like FER2013's frames.
      align: the network was trained on faces cut out level, and needs landmarks to find them so.
    """

    size: int = 64
    grey: bool = False
    channels: int = 3
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    crop_scale: float = 1.12
    crop_shift: float = -0.08
    align: bool = False


def check_spec(spec: ImageSpec, keys: Mapping[str, str] | None = None) -> None:
    """Refuses a spec that cannot be meant: whoever wrote it, pixels could not be made by it.

    Args:
      spec: of weights, or as a config says it.
      keys: what the fields are called there; else "spec." and their name.

    Raises:
      EmotionError: naming the field.
    """
    rules = {
        "size": (_within(spec.size, 1, MAX_SIZE, int), f"a whole number from 1 to {MAX_SIZE}"),
        "grey": (isinstance(spec.grey, bool), "true or false"),
        "channels": (spec.channels == 3 or spec.channels == 1 and spec.grey, "3, or 1 where grey"),
        "mean": (_one_a_channel(spec.mean, spec.channels, -1e6), "one number, or one a channel"),
        "std": (_one_a_channel(spec.std, spec.channels, 1e-6), "one number above 0, or such ones"),
        "crop_scale": (
            _within(spec.crop_scale, *CROP_SCALES),
            "from {} to {}".format(*CROP_SCALES),
        ),
        "crop_shift": (
            _within(spec.crop_shift, *CROP_SHIFTS),
            "from {} to {}".format(*CROP_SHIFTS),
        ),
        "align": (isinstance(spec.align, bool), "true or false"),
    }
    for name, (fits, be) in rules.items():
        if not fits:
            value = repr(getattr(spec, name))[:60]
            key = f"spec.{name}" if keys is None else keys[name]
            raise EmotionError(f"{key}: {value}; must be {be}")


def _within(x: Any, low: float, high: float, kind: Any = int | float) -> bool:
    return isinstance(x, kind) and not isinstance(x, bool) and low <= x <= high


def _one_a_channel(numbers: Any, channels: int, low: float) -> bool:
    """Whether they are one number or one a channel, from `low` to a million."""
    counts = isinstance(numbers, tuple) and len(numbers) in (1, channels)
    return counts and all(_within(x, low, 1e6) for x in numbers)


def normalize(images: jax.Array, spec: ImageSpec) -> jax.Array:
    """Maps pixels to the network's input.

    Args:
      images: uint8 or float `[..., H, W, C]`, intensities 0..255, C 1 or 3 (RGB).
      spec: the network's pixels.

    Returns:
      float `[..., H, W, spec.channels]`: (intensity / 255 - mean) / std.
    """
    x = images.astype(float)
    if spec.grey:
        x = luminance(x)
    if x.shape[-1] != spec.channels:
        x = jnp.broadcast_to(x, (*x.shape[:-1], spec.channels))
    return (x / 255 - jnp.asarray(spec.mean)) / jnp.asarray(spec.std)


def fit_size(images: jax.Array, size: int) -> jax.Array:
    """Brings square pictures to another size on the device, bilinearly.

    Enlarged as `images.resize` does on the host; shrunk with a filter wide enough for every pixel
    to count, like that one's mean over areas but not the same to the digit.

    Args:
      images: uint8 or float `[B, S, S, C]`.
      size: height and width wanted.

    Returns:
      float `[B, size, size, C]`; pictures of that size already come back as they are.
    """
    if images.shape[1:3] == (size, size):
        return images
    shape = (images.shape[0], size, size, images.shape[-1])
    # A graphics card's fast products would round intensities to two or three digits.
    return jax.image.resize(
        images.astype(float), shape, "linear", precision=jax.lax.Precision.HIGHEST
    )


def luminance(images: jax.Array) -> jax.Array:
    """Brightness of RGB `[..., 3]` as `[..., 1]`; one channel stays as it is."""
    if images.shape[-1] == 1:
        return images
    weights = jnp.asarray(LUMINANCE, images.dtype)[:, None]
    return jnp.matmul(images, weights, precision="highest")
