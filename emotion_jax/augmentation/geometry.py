"""Moves of a picture as 3x3 matrices, and the one bilinear resampling that applies them.

A matrix maps output to source coordinates (y, x, 1), pixel centres at whole numbers; a product
`A @ B` does B first on the way from the output.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def identity() -> jax.Array:
    """The matrix that moves nothing, `[3, 3]`: of (y, x, 1), pixel centres at whole numbers."""
    return jnp.eye(3)


def flip_matrix(width: int, do: jax.Array | bool = True) -> jax.Array:
    """Mirrors left and right where `do`."""
    mirror = jnp.array([[1.0, 0, 0], [0, -1, width - 1], [0, 0, 1]])
    return jnp.where(do, mirror, identity())


def translate_matrix(dy: jax.Array | float, dx: jax.Array | float) -> jax.Array:
    """Moves the picture's content by `dy` pixels down and `dx` right."""
    return identity().at[0, 2].set(-dy).at[1, 2].set(-dx)


def rotate_matrix(height: int, width: int, degrees: jax.Array | float) -> jax.Array:
    """Turns the content counter-clockwise about the picture's centre."""
    a = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(a), jnp.sin(a)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    # Output to source is the inverse turn; y points down.
    return jnp.array(
        [
            [cos, sin, cy - cos * cy - sin * cx],
            [-sin, cos, cx + sin * cy - cos * cx],
            [jnp.zeros_like(a), jnp.zeros_like(a), jnp.ones_like(a)],
        ]
    )


def crop_matrix(
    height: int,
    width: int,
    *,
    top: jax.Array | float,
    left: jax.Array | float,
    crop_height: jax.Array | float,
    crop_width: jax.Array | float,
) -> jax.Array:
    """Enlarges a rectangle, in pixels from the top left corner, to the whole picture."""
    sy, sx = crop_height / height, crop_width / width
    # Corners map to corners: the centre of output pixel i lies at (i + 1/2) * s - 1/2.
    m = identity().at[0, 0].set(sy).at[1, 1].set(sx)
    return m.at[0, 2].set(top + sy / 2 - 0.5).at[1, 2].set(left + sx / 2 - 0.5)


def warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Resamples a float image `[H, W, C]` bilinearly; outside it, its border repeats.

    `matrix` `[3, 3]` maps an output pixel's (y, x, 1) to source coordinates.
    """
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width].astype(matrix.dtype)
    sy = jnp.clip(matrix[0, 0] * y + matrix[0, 1] * x + matrix[0, 2], 0, height - 1)
    sx = jnp.clip(matrix[1, 0] * y + matrix[1, 1] * x + matrix[1, 2], 0, width - 1)
    top, left = jnp.floor(sy).astype(int), jnp.floor(sx).astype(int)
    fy, fx = (sy - top)[..., None], (sx - left)[..., None]
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    upper = image[top, left] * (1 - fx) + image[top, right] * fx
    lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
    return upper * (1 - fy) + lower * fy
