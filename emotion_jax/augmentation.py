"""Augmentation on the device, in pure JAX: drawn at random, one key an example.

It works on intensities in 0..255, before `normalize`, and a batch comes out the same however it is
split over devices. Every geometric change is a 3x3 matrix that maps output to source coordinates;
their product is applied in one bilinear resampling.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from emotion_jax.preprocess import Batch, luminance


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What `augment` draws at random; every default is "off".

    Attributes:
      flip: probability of a left-right flip.
      crop_area: smallest share of the picture's area that a random resized crop keeps; 1 is off.
      crop_aspect: widest aspect ratio of that crop, in the picture's own; its inverse is the
        narrowest. Without effect while `crop_area` is 1.
      translate: largest shift, as a share of height and width.
      rotate: largest angle, in degrees.
      brightness: intensities are multiplied by 1 - b .. 1 + b.
      contrast: distances from the picture's mean are multiplied by 1 - c .. 1 + c.
      grey: probability of dropping the colour.
      erase: probability of painting over a rectangle (Zhong et al., arXiv 1708.04896).
      erase_area: largest share of the picture that the rectangle covers.
      mixup: alpha of Beta(alpha, alpha) (Zhang et al., arXiv 1710.09412); 0 is off.
    """

    flip: float = 0.0
    crop_area: float = 1.0
    crop_aspect: float = 1.0
    translate: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    grey: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.25
    mixup: float = 0.0


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


def adjust_brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Multiplies intensities and clips them to 0..255."""
    return jnp.clip(image * factor, 0, 255)


def adjust_contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Stretches a float image `[H, W, C]` about its mean luminance and clips it to 0..255."""
    mean = luminance(image).mean()
    return jnp.clip(mean + (image - mean) * factor, 0, 255)


def to_grey(image: jax.Array) -> jax.Array:
    """Replaces colours by their luminance; the number of channels stays."""
    return jnp.broadcast_to(luminance(image), image.shape)


def erase(
    image: jax.Array,
    *,
    top: jax.Array | int,
    left: jax.Array | int,
    height: jax.Array | int,
    width: jax.Array | int,
    value: jax.Array,
) -> jax.Array:
    """Paints a rectangle of whole pixels with `value` `[C]`, where it lies inside the image."""
    y, x = jnp.mgrid[: image.shape[0], : image.shape[1]]
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return jnp.where(inside[..., None], value, image)


def _random_geometry(key: jax.Array, height: int, width: int, config: Augmentation) -> jax.Array:
    flip, area, aspect, place, shift, angle = jax.random.split(key, 6)
    matrix = identity()
    if config.crop_area < 1:
        share = jax.random.uniform(area, minval=config.crop_area, maxval=1.0)
        # No wider or taller than the picture: a large share leaves little room for an aspect.
        widest = jnp.minimum(jnp.log(config.crop_aspect), -jnp.log(share))
        log_aspect = widest * jax.random.uniform(aspect, minval=-1.0)
        h = height * jnp.sqrt(share * jnp.exp(-log_aspect))
        w = width * jnp.sqrt(share * jnp.exp(log_aspect))
        v = jax.random.uniform(place, (2,))
        matrix = matrix @ crop_matrix(
            height,
            width,
            top=v[0] * (height - h),
            left=v[1] * (width - w),
            crop_height=h,
            crop_width=w,
        )
    if config.rotate:
        degrees = config.rotate * jax.random.uniform(angle, minval=-1.0)
        matrix = matrix @ rotate_matrix(height, width, degrees)
    if config.translate:
        v = config.translate * jax.random.uniform(shift, (2,), minval=-1.0)
        matrix = matrix @ translate_matrix(v[0] * height, v[1] * width)
    return matrix @ flip_matrix(width, jax.random.bernoulli(flip, config.flip))


def _random_erase(key: jax.Array, image: jax.Array, config: Augmentation) -> jax.Array:
    height, width, channels = image.shape
    do, area, aspect, place, colour = jax.random.split(key, 5)
    # 2 % is the paper's smallest area, 3:10 to 10:3 its aspect ratios.
    share = jax.random.uniform(area, minval=min(0.02, config.erase_area), maxval=config.erase_area)
    ratio = jnp.exp(jnp.log(10 / 3) * jax.random.uniform(aspect, minval=-1.0))
    h = jnp.minimum(jnp.round(height * jnp.sqrt(share * ratio)), height)
    w = jnp.minimum(jnp.round(width * jnp.sqrt(share / ratio)), width)
    v = jax.random.uniform(place, (2,))
    erased = erase(
        image,
        top=jnp.floor(v[0] * (height - h + 1)),
        left=jnp.floor(v[1] * (width - w + 1)),
        height=h,
        width=w,
        value=jax.random.uniform(colour, (channels,), maxval=255.0),
    )
    return jnp.where(jax.random.bernoulli(do, config.erase), erased, image)


def augment_image(image: jax.Array, key: jax.Array, config: Augmentation) -> jax.Array:
    """Draws one altered copy of a float image `[H, W, C]`, intensities 0..255."""
    geometry, bright, contrast, grey, rectangle = jax.random.split(key, 5)
    height, width, _ = image.shape
    if config.flip or config.crop_area < 1 or config.rotate or config.translate:
        # A graphics card's fast products round coordinates to a tenth of a pixel.
        with jax.default_matmul_precision("highest"):
            matrix = _random_geometry(geometry, height, width, config)
        image = warp(image, matrix)
    if config.brightness:
        step = config.brightness * jax.random.uniform(bright, minval=-1.0)
        image = adjust_brightness(image, 1 + step)
    if config.contrast:
        step = config.contrast * jax.random.uniform(contrast, minval=-1.0)
        image = adjust_contrast(image, 1 + step)
    if config.grey:
        image = jnp.where(jax.random.bernoulli(grey, config.grey), to_grey(image), image)
    if config.erase:
        image = _random_erase(rectangle, image, config)
    return image


def mixup(batch: Batch, keys: jax.Array, alpha: float) -> Batch:
    """Blends neighbours 2i and 2i+1, each with the other, images and labels alike.

    Pairs never straddle two devices where each holds an even number of examples. An example of
    weight 0 is padding and is blended with nobody.

    Args:
      batch: image float `[B, H, W, C]`, label `[B, K]`, weight `[B]`; B even.
      keys: one an example, `[B]`; a pair draws its share from the first.
      alpha: of Beta(alpha, alpha).
    """
    size = batch["weight"].shape[0]
    if size % 2:
        raise ValueError(f"mixup blends pairs: {size} examples on a device are not even")
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys[::2])
    real = (batch["weight"] > 0).reshape(-1, 2).all(axis=1)
    share = jnp.repeat(jnp.where(real, share, 1.0), 2)

    def blend(x: jax.Array) -> jax.Array:
        partner = x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)
        s = share.reshape(-1, *[1] * (x.ndim - 1))
        return x * s + partner * (1 - s)

    return {**batch, "image": blend(batch["image"]), "label": blend(batch["label"])}


def augment(batch: Batch, keys: jax.Array, config: Augmentation) -> Batch:
    """Alters a training batch at random.

    Args:
      batch: image uint8 or float `[B, H, W, C]` in 0..255, label float `[B, K]`, weight `[B]`.
      keys: one an example, `[B]`.
      config: what is drawn.

    Returns:
      The batch with float images in 0..255 and, under mixup, blended labels.
    """
    both = jax.vmap(jax.random.split)(keys)
    images = jax.vmap(augment_image, in_axes=(0, 0, None))(
        batch["image"].astype(float), both[:, 0], config
    )
    batch = {**batch, "image": images}
    return mixup(batch, both[:, 1], config.mixup) if config.mixup else batch
