"""Augmentation on the device, in pure JAX: drawn at random, one key an example.

It works on intensities in 0..255, before `normalize`, and a batch comes out the same however it is
split over devices. Every geometric change is a 3x3 matrix that maps output to source coordinates;
their product is applied in one bilinear resampling.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from emotion_jax.augmentation import conditions, geometry
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
      glasses: probability of glasses: clear, dark, or with a window mirrored in them.
      darkness: probability of losing up to seven eighths of the light, and of a camera's noise.
      backlight: probability of a bright window behind the head.
      blur: probability of being out of focus, along rows and columns each by its own.
      motion: probability of moving while the shutter is open, any way.
      jpeg: probability of being compressed, to a quality of 8 to 60.
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
    glasses: float = 0.0
    darkness: float = 0.0
    backlight: float = 0.0
    blur: float = 0.0
    motion: float = 0.0
    jpeg: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.25
    mixup: float = 0.0


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


def _sometimes(
    key: jax.Array, probability: float, altered: jax.Array, image: jax.Array
) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, probability), altered, image)


def _random_geometry(key: jax.Array, height: int, width: int, config: Augmentation) -> jax.Array:
    flip, area, aspect, place, shift, angle = jax.random.split(key, 6)
    matrix = geometry.identity()
    if config.crop_area < 1:
        share = jax.random.uniform(area, minval=config.crop_area, maxval=1.0)
        # No wider or taller than the picture: a large share leaves little room for an aspect.
        widest = jnp.minimum(jnp.log(config.crop_aspect), -jnp.log(share))
        log_aspect = widest * jax.random.uniform(aspect, minval=-1.0)
        h = height * jnp.sqrt(share * jnp.exp(-log_aspect))
        w = width * jnp.sqrt(share * jnp.exp(log_aspect))
        v = jax.random.uniform(place, (2,))
        matrix = matrix @ geometry.crop_matrix(
            height,
            width,
            top=v[0] * (height - h),
            left=v[1] * (width - w),
            crop_height=h,
            crop_width=w,
        )
    if config.rotate:
        degrees = config.rotate * jax.random.uniform(angle, minval=-1.0)
        matrix = matrix @ geometry.rotate_matrix(height, width, degrees)
    if config.translate:
        v = config.translate * jax.random.uniform(shift, (2,), minval=-1.0)
        matrix = matrix @ geometry.translate_matrix(v[0] * height, v[1] * width)
    return matrix @ geometry.flip_matrix(width, jax.random.bernoulli(flip, config.flip))


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
    return _sometimes(do, config.erase, erased, image)


def _random_glasses(key: jax.Array, image: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    place, numbers = jax.random.split(key)
    # Nobody's eyes are the mean's: off by 4 % of the side, both together and each for itself.
    moved = 0.04 * jax.random.normal(place, (3, 2))
    eyes = (jnp.array(conditions.EYES) + 0.5 * moved[:2] + moved[2]) * jnp.array([height, width])
    kind, size, frame, value, tint, glare, slope = jax.random.uniform(numbers, (7,))
    return conditions.wear_glasses(
        image,
        eyes,
        size=0.32 + 0.16 * size,
        frame=0.03 + 0.12 * frame**2,
        # Most frames are dark, some of bright metal.
        frame_value=jnp.where(value < 0.8, 75 * value, 255 * value),
        # Half mirror, which is hardest; of the others most are clear.
        tint=jnp.where((kind > 0.3) & (kind < 0.5), 0.4 + 0.6 * tint, 0.1 * tint),
        glare=jnp.where(kind >= 0.5, 0.15 + 0.9 * glare, 0.0),
        glare_slope=2 * slope - 1,
    )


def _random_light(key: jax.Array, image: jax.Array, config: Augmentation) -> jax.Array:
    """Backlight, motion, blur, darkness, compression: in the order in which they come about."""
    height, width, _ = image.shape
    # What came later folds in more, so that what was drawn before it existed is drawn still.
    keys = jax.random.split(key, 6)
    if config.backlight:
        lit = conditions.light_from_behind(image, jax.random.uniform(keys[0], maxval=1.1))
        image = _sometimes(keys[1], config.backlight, lit, image)
    if config.motion:
        way, does = jax.random.split(jax.random.fold_in(key, 7))
        length, turn = jax.random.uniform(way, (2,))
        # Up to 18 % of the side: of what is finer than an eye little is left.
        right, down = 0.18 * length * jnp.array([jnp.cos(jnp.pi * turn), jnp.sin(jnp.pi * turn)])
        moved = conditions.smear(image, right * width, down * height)
        image = _sometimes(does, config.motion, moved, image)
    if config.blur:
        # Up to 5 % of the side each way: little more is left than of a face of 12 pixels.
        across, down = 0.05 * jax.random.uniform(keys[2], (2,))
        blurred = conditions.blur(image, across * width, down * height)
        image = _sometimes(keys[3], config.blur, blurred, image)
    if config.darkness:
        stops, grain, noise = jax.random.split(keys[4], 3)
        light = 2.0 ** -jax.random.uniform(stops, maxval=3.0)
        sigma = jax.random.uniform(grain, maxval=3.0)
        noise = sigma * jax.random.normal(noise, (height, width, 1))
        dark = conditions.darken(image, light, noise)
        image = _sometimes(keys[5], config.darkness, dark, image)
    if config.jpeg:
        drawn, does = jax.random.split(jax.random.fold_in(key, 6))
        pressed = conditions.compress(image, jax.random.uniform(drawn, minval=8.0, maxval=60.0))
        image = _sometimes(does, config.jpeg, pressed, image)
    return image


def augment_image(image: jax.Array, key: jax.Array, config: Augmentation) -> jax.Array:
    """Draws one altered copy of a float image `[H, W, C]`, intensities 0..255."""
    moves, bright, contrast, grey, rectangle = jax.random.split(key, 5)
    height, width, _ = image.shape
    # A sixth, so that what was drawn before these existed is drawn still: key i of a split is
    # the key that i folds in.
    glasses, wears, light = jax.random.split(jax.random.fold_in(key, 5), 3)
    if config.glasses:
        # Before the face is moved: later nobody knows where its eyes are.
        image = _sometimes(wears, config.glasses, _random_glasses(glasses, image), image)
    if config.flip or config.crop_area < 1 or config.rotate or config.translate:
        # A graphics card's fast products round coordinates to a tenth of a pixel.
        with jax.default_matmul_precision("highest"):
            matrix = _random_geometry(moves, height, width, config)
        image = geometry.warp(image, matrix)
    if config.brightness:
        step = config.brightness * jax.random.uniform(bright, minval=-1.0)
        image = adjust_brightness(image, 1 + step)
    if config.contrast:
        step = config.contrast * jax.random.uniform(contrast, minval=-1.0)
        image = adjust_contrast(image, 1 + step)
    if config.grey:
        image = _sometimes(grey, config.grey, to_grey(image), image)
    if config.erase:
        image = _random_erase(rectangle, image, config)
    return _random_light(light, image, config)


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
