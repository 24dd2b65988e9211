"""From pixels to the network's input: `normalize`, the only such map, in pure JAX.

Images are channels last, intensities 0..255.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from emotion_jax.image_spec import ImageSpec

Batch = dict[str, jax.Array]

# ITU-R BT.601, the weights that OpenCV uses too.
LUMINANCE = (0.299, 0.587, 0.114)


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
    """Brightness of RGB `[..., 3]` as float `[..., 1]`; one channel stays as it is."""
    if images.shape[-1] == 1:
        return images
    # Of uint8 the weights would be 0.
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else float
    weights = jnp.asarray(LUMINANCE, dtype)[:, None]
    return jnp.matmul(images.astype(dtype), weights, precision="highest")
