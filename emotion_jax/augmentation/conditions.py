"""What a camera's faces suffer and a data set's do not: glasses, bad light, blur, compression.

Pure JAX, for one face at a time: float `[H, W, C]` in 0..255, framed as FER2013's are. Nothing is
drawn at random here; `augmentation` does that.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# Where the eyes lie, the left one of the picture first: (y, x) as shares of height and width.
EYES = ((0.385, 0.32), (0.385, 0.68))

# How square a lens is: 2 is an ellipse, more and more a rectangle.
LENS_POWER = 3.0

# The brightness table of the JPEG standard (ITU-T T.81, table K.1): steps of a block's frequencies,
# down and along, at quality 50. Not whole numbers: a program that changes `jax.enable_x64` between
# two calls would find them compiled in the other's type, and stop.
JPEG_STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
# The cosines of eight samples, an orthogonal matrix: frequency by sample.
_COSINES = np.cos(np.pi / 16 * np.outer(np.arange(8), 2 * np.arange(8) + 1)) / 2
_COSINES[0] /= np.sqrt(2)


def wear_glasses(
    image: jax.Array,
    eyes: jax.Array,
    *,
    size: jax.Array | float,
    frame: jax.Array | float,
    frame_value: jax.Array | float,
    tint: jax.Array | float,
    glare: jax.Array | float,
    glare_slope: jax.Array | float = 0.0,
) -> jax.Array:
    """Puts glasses on.

    Args:
      image: `[H, W, C]`.
      eyes: centres of the two lenses, (y, x) in pixels, `[2, 2]`, left in the picture first.
      size: half a lens' width, in distances between the eyes; it is 3/4 as high.
      frame: width of its rim, likewise.
      frame_value: brightness of rim, bridge and arms, 0..255.
      tint: share of the light that the lenses keep from the eye, 0..1.
      glare: share of each lens' height, from above, that mirrors a bright window, 0..1.
      glare_slope: of the window's lower edge: what it falls across a lens, in its heights.
    """
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width].astype(image.dtype)
    across = eyes[1] - eyes[0]
    between = jnp.maximum(jnp.hypot(*across), 1.0)
    level = across / between
    # Each pixel from each lens' centre, along the glasses and down, in half lenses.
    dy, dx = y[..., None] - eyes[:, 0], x[..., None] - eyes[:, 1]
    half = size * between
    u = (dy * level[0] + dx * level[1]) / half
    v = (dy * level[1] - dx * level[0]) / (0.75 * half)
    radius = (jnp.abs(u) ** LENS_POWER + jnp.abs(v) ** LENS_POWER + 1e-6) ** (1 / LENS_POWER)
    # Signed distances in pixels, nearly: negative within the lens.
    away = (radius - 1) * 0.85 * half
    lens = _inside(away).max(axis=-1)[..., None]
    edge = (v + 1 - 2 * glare - glare_slope * u) * 0.75 * half
    window = (_inside(away) * _inside(edge)).max(axis=-1)[..., None] * (glare > 0)
    image = image * (1 - tint * lens)
    image = image + (245.0 - image) * 0.85 * window
    rim = jnp.abs(away).min(axis=-1)
    # Bridge and arms: the line through both centres, outside the lenses, out to the ears.
    outside = (away.min(axis=-1) > 0) & (jnp.abs(u).min(axis=-1) < 2.2)
    line = jnp.where(outside, jnp.abs(v[..., 0]) * 0.75 * half, jnp.inf)
    drawn = _inside(jnp.minimum(rim, line) - frame * between / 2)[..., None]
    return image + (frame_value - image) * drawn


def darken(image: jax.Array, light: jax.Array | float, noise: jax.Array) -> jax.Array:
    """Leaves a share of the light, adds `noise` `[H, W, 1]` and rounds to whole intensities."""
    return jnp.round(jnp.clip(image * light + noise, 0, 255))


def light_from_behind(image: jax.Array, strength: jax.Array | float) -> jax.Array:
    """A bright window behind: the face darkens, a veil lies on it, what is around overflows.

    Args:
      image: `[H, W, C]`.
      strength: 0 is nothing, 1 leaves a third of the face's contrast.
    """
    height, width, _ = image.shape
    y, x = (jnp.mgrid[:height, :width] + 0.5) / jnp.array([height, width]).reshape(2, 1, 1)
    # 1 on the edge of an oval that a frame's head fills.
    radius = jnp.hypot((x - 0.5) / 0.43, (y - 0.52) / 0.55)[..., None]
    behind = jnp.clip((radius - 0.85) / 0.3, 0, 1) * jnp.minimum(4 * strength, 1)
    veil = 45.0 * strength * jnp.clip(radius, 0, 1) ** 2
    face = image * (1 - 0.66 * strength) + veil
    return face + (250.0 - face) * behind


def blur(image: jax.Array, across: jax.Array | float, down: jax.Array | float) -> jax.Array:
    """Blurs by Gaussians of `across` and `down` pixels, as what is out of focus."""
    rows, columns = _blurring(image.shape[0], down), _blurring(image.shape[1], across)
    # In full precision, for a graphics card's fast products round intensities to a tenth.
    blurred = jnp.einsum("ij,jkc,lk->ilc", rows, image, columns, precision="highest")
    # Sums of rounded weights may pass 1 by a little.
    return jnp.clip(blurred, 0, 255)


def smear(image: jax.Array, right: jax.Array | float, down: jax.Array | float) -> jax.Array:
    """The mean along a straight path, as of a head that moves while the shutter is open.

    Args:
      image: `[H, W, C]`; beyond its border lies what lies on it.
      right: of the path, in pixels, to either side; no more than a fifth of the side both ways.
      down: likewise.
    """
    height, width, _ = image.shape
    # A point a pixel at least, or the picture would be seen several times.
    count = 1 + max(height, width) // 5
    points = (jnp.arange(count) + 0.5) / count - 0.5
    rows, columns = _shifting(height, down * points), _shifting(width, right * points)
    seen = jnp.einsum("tij,jkc,tlk->ilc", rows, image, columns, precision="highest")
    # Sums of rounded weights may pass 1 by a little.
    return jnp.clip(seen / count, 0, 255)


def compress(image: jax.Array, quality: jax.Array | float) -> jax.Array:
    """Loses what a JPEG loses, each channel as if it were brightness; in whole intensities.

    Args:
      image: `[H, W, C]`.
      quality: 1..100, as libjpeg counts.
    """
    height, width, channels = image.shape
    scale = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = jnp.clip(jnp.floor((JPEG_STEPS * scale + 50) / 100), 1, 255)
    padding = [(0, -side % 8) for side in (height, width)]
    x = jnp.pad(jnp.round(image) - 128, (*padding, (0, 0)), mode="edge")
    x = x.reshape(x.shape[0] // 8, 8, x.shape[1] // 8, 8, channels)
    # Rounded products of a graphics card would move frequencies to another step.
    with jax.default_matmul_precision("highest"):
        x = jnp.einsum("ui,aibjc,vj->aubvc", _COSINES, x, _COSINES)
        x = jnp.round(x / steps[:, None, :, None]) * steps[:, None, :, None]
        x = jnp.einsum("ui,aubvc,vj->aibjc", _COSINES, x, _COSINES)
    x = x.reshape(x.shape[0] * 8, -1, channels)[:height, :width]
    return jnp.clip(jnp.round(x + 128), 0, 255)


def _blurring(count: int, sigma: jax.Array | float) -> jax.Array:
    """The matrix `[count, count]` that blurs a line; at its ends it weighs what there is."""
    # A tenth of a pixel leaves a line as it is, and nothing is divided by 0.
    distance = jnp.subtract.outer(jnp.arange(count), jnp.arange(count)) / jnp.maximum(sigma, 0.1)
    weights = jnp.exp(-0.5 * distance**2)
    return weights / weights.sum(axis=1, keepdims=True)


def _shifting(count: int, offsets: jax.Array) -> jax.Array:
    """The matrices `[T, count, count]` that read a line so many pixels on, between its pixels."""
    at = jnp.clip(jnp.arange(count) + offsets[:, None], 0, count - 1)
    return jnp.maximum(1 - jnp.abs(at[..., None] - jnp.arange(count)), 0)


def _inside(distance: jax.Array) -> jax.Array:
    """1 within a shape, 0 without, and in between where its edge crosses a pixel."""
    return jnp.clip(0.5 - distance, 0, 1)
