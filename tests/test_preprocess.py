"""Pixels: every map against a plain loop or OpenCV, on pictures that are not square."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emotion_jax import augmentation, preprocess
from emotion_jax.augmentation import Augmentation, geometry
from emotion_jax.image_spec import ImageSpec

SIZES = [(9, 14), (13, 8)]  # height, width
EVERYTHING = Augmentation(
    flip=0.5,
    crop_area=0.6,
    crop_aspect=4 / 3,
    translate=0.2,
    rotate=20,
    brightness=0.5,
    contrast=0.5,
    grey=0.3,
    glasses=0.5,
    darkness=0.5,
    backlight=0.5,
    blur=0.5,
    motion=0.5,
    jpeg=0.5,
    erase=0.5,
)


def picture(rng, height, width, channels=3):
    return rng.uniform(0, 255, (height, width, channels)).astype(np.float32)


def smooth(rng, height, width):
    """A picture without sharp edges, for references that round coordinates."""
    return cv2.GaussianBlur(picture(rng, height, width), (0, 0), 3)


def sample(image, y, x):
    """One bilinear sample; outside the picture its border repeats."""
    height, width, _ = image.shape
    top, left = int(np.floor(y)), int(np.floor(x))
    value = np.zeros(image.shape[2])
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        share = (1 - abs(y - i)) * (1 - abs(x - j))
        value += share * image[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
    return value


def loop_warp(image, source):
    """The picture whose pixel (y, x) is the sample at source(y, x)."""
    out = np.zeros(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        out[y, x] = sample(image, *source(y, x))
    return out


# Where an output pixel's value comes from, said without matrices.


def flipped(width):
    return lambda y, x: (y, width - 1 - x)


def moved(dy, dx):
    return lambda y, x: (y - dy, x - dx)


def turned(height, width, degrees):
    """Content turns counter-clockwise as seen, so the source lies clockwise; y points down."""
    centre = complex((width - 1) / 2, -(height - 1) / 2)

    def source(y, x):
        z = centre + (complex(x, -y) - centre) * np.exp(-1j * np.deg2rad(degrees))
        return -z.imag, z.real

    return source


def cropped(height, width, top, left, crop_height, crop_width):
    """A pixel's centre, as a share of the picture, is the same share of the crop."""
    return lambda y, x: (
        top + (y + 0.5) / height * crop_height - 0.5,
        left + (x + 0.5) / width * crop_width - 0.5,
    )


def close(got, expected, atol=2e-2):
    """Within a fiftieth of a level of 255."""
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


# Normalize


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("in_channels", "spec"),
    [
        (3, ImageSpec()),
        (3, ImageSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
        (3, ImageSpec(grey=True, mean=(0.4,), std=(0.2,))),
        (3, ImageSpec(grey=True, channels=1, mean=(0.4,), std=(0.2,))),
        (1, ImageSpec(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))),
        (1, ImageSpec(grey=True, channels=1)),
        (1, ImageSpec(grey=True, channels=3)),
    ],
)
def test_normalize(dtype, in_channels, spec):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 5, 7, in_channels)).astype(dtype)
    got = preprocess.normalize(jnp.asarray(images), spec)
    assert got.dtype == jnp.float32 and got.shape == (2, 5, 7, spec.channels)
    for n, y, x in np.ndindex(2, 5, 7):
        pixel = images[n, y, x].astype(float)
        if spec.grey and in_channels == 3:
            red, green, blue = pixel
            pixel = np.array([0.299 * red + 0.587 * green + 0.114 * blue])
        for c in range(spec.channels):
            mean, std = spec.mean[c % len(spec.mean)], spec.std[c % len(spec.std)]
            expected = (pixel[c % len(pixel)] / 255 - mean) / std
            assert abs(got[n, y, x, c] - expected) < 1e-5


def test_luminance_is_opencv_s():
    image = np.random.default_rng(1).uniform(0, 255, (9, 14, 3)).astype(np.float32)
    close(preprocess.luminance(image)[..., 0], cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 1e-2)
    np.testing.assert_array_equal(preprocess.luminance(image[..., :1]), image[..., :1])
    whole = image.astype(np.uint8)
    close(preprocess.luminance(whole), preprocess.luminance(whole.astype(np.float32)), 1e-4)


# Geometry


def geometries(rng, height, width):
    """Pairs of our matrix and the loop's source, with random parameters."""
    degrees, (dy, dx) = rng.uniform(-180, 180), rng.uniform(-5, 5, 2)
    box = {
        "top": rng.uniform(0, 3),
        "left": rng.uniform(0, 3),
        "crop_height": rng.uniform(2, height - 3),
        "crop_width": rng.uniform(2, width - 3),
    }
    return {
        "identity": (geometry.identity(), lambda y, x: (y, x)),
        "flip": (geometry.flip_matrix(width), flipped(width)),
        "no flip": (geometry.flip_matrix(width, False), lambda y, x: (y, x)),
        "translate": (geometry.translate_matrix(dy, dx), moved(dy, dx)),
        "rotate": (
            geometry.rotate_matrix(height, width, degrees),
            turned(height, width, degrees),
        ),
        "crop": (geometry.crop_matrix(height, width, **box), cropped(height, width, **box)),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", geometries(np.random.default_rng(0), 9, 9))
def test_geometry(name, size):
    rng = np.random.default_rng(2)
    image = picture(rng, *size)
    for _ in range(3):
        matrix, source = geometries(rng, *size)[name]
        close(geometry.warp(image, matrix), loop_warp(image, source))


@pytest.mark.parametrize("size", SIZES)
def test_composition_is_one_resampling(size):
    """crop @ rotate @ translate @ flip takes a pixel through the flip first, the crop last."""
    rng = np.random.default_rng(3)
    image, height, width = picture(rng, *size), *size
    names = ("crop", "rotate", "translate", "flip")
    made = geometries(rng, height, width)
    matrix = np.linalg.multi_dot([made[name][0] for name in names])

    def source(y, x):
        for name in reversed(names):
            y, x = made[name][1](y, x)
        return y, x

    close(geometry.warp(image, jnp.asarray(matrix)), loop_warp(image, source))


def test_flip_and_whole_shifts_are_exact():
    image = picture(np.random.default_rng(4), 9, 14)
    np.testing.assert_array_equal(geometry.warp(image, geometry.flip_matrix(14)), image[:, ::-1])
    shifted = geometry.warp(image, geometry.translate_matrix(2, -3))
    expected = np.pad(image, ((2, 0), (0, 3), (0, 0)), mode="edge")[:9, 3:]
    np.testing.assert_array_equal(shifted, expected)
    np.testing.assert_array_equal(geometry.warp(image, geometry.identity()), image)


@pytest.mark.parametrize("degrees", [-30.0, 12.5, 90.0])
def test_rotation_is_opencv_s(degrees):
    """Which rounds coordinates to 1/32 of a pixel."""
    height, width = 40, 57
    image = smooth(np.random.default_rng(5), height, width)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    expected = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    got = geometry.warp(image, geometry.rotate_matrix(height, width, degrees))
    close(got, expected, 2)
    assert np.abs(got - image).max() > 20


def test_crop_is_opencv_s_resize():
    """But at its rim, where ours sees the pixels beyond the crop and OpenCV's does not."""
    image = picture(np.random.default_rng(6), 20, 31)
    top, left, height, width = 3, 5, 11, 17
    expected = cv2.resize(
        image[top : top + height, left : left + width], (31, 20), interpolation=cv2.INTER_LINEAR
    )
    matrix = geometry.crop_matrix(20, 31, top=top, left=left, crop_height=height, crop_width=width)
    close(geometry.warp(image, matrix)[1:-1, 1:-1], expected[1:-1, 1:-1], 0.1)


# Light, colour, rectangles


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_light(factor, channels):
    image = picture(np.random.default_rng(7), 9, 14, channels)
    bright = augmentation.adjust_brightness(image, factor)
    contrast = augmentation.adjust_contrast(image, factor)
    grey = augmentation.to_grey(image)
    assert bright.shape == contrast.shape == grey.shape == image.shape
    weights = (0.299, 0.587, 0.114) if channels == 3 else (1.0,)
    luminance = np.zeros(image.shape[:2])
    for y, x in np.ndindex(9, 14):
        luminance[y, x] = sum(w * v for w, v in zip(weights, image[y, x].tolist(), strict=True))
    mean = luminance.sum() / luminance.size
    for y, x, c in np.ndindex(image.shape):
        value = float(image[y, x, c])
        assert abs(bright[y, x, c] - min(max(value * factor, 0), 255)) < 1e-2
        stretched = mean + factor * (value - mean)
        assert abs(contrast[y, x, c] - min(max(stretched, 0), 255)) < 1e-2
        assert abs(grey[y, x, c] - luminance[y, x]) < 1e-2


@pytest.mark.parametrize(
    "box",
    [(2, 3, 4, 5), (-2, 3, 4, 5), (6, 11, 40, 40), (0, 0, 9, 14), (20, 1, 3, 3), (3, 3, 0, 2)],
)
def test_erase(box):
    image = picture(np.random.default_rng(8), 9, 14)
    value = np.array([1.0, 2.0, 3.0], np.float32)
    top, left, height, width = box
    got = augmentation.erase(image, top=top, left=left, height=height, width=width, value=value)
    expected = image.copy()
    for y in range(top, top + height):
        for x in range(left, left + width):
            if 0 <= y < 9 and 0 <= x < 14:
                expected[y, x] = value
    np.testing.assert_array_equal(got, expected)


# What is drawn


@partial(jax.jit, static_argnames="config")
def augment_by_key(image, keys, config):
    return jax.vmap(augmentation.augment_image, (None, 0, None))(image, keys, config)


def draws(image, config, count=600, seed=0):
    """Altered copies of one picture, each from its own key."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(augment_by_key(jnp.asarray(image), keys, config))


def ramps(height, width):
    """A picture that shows where its pixels came from: (y, x, 0)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([y, x, 0 * x], axis=-1)


def test_everything_together_stays_in_range_and_repeats_by_key():
    image = picture(np.random.default_rng(9), 9, 14)
    image[:4] = np.where(image[:4] > 128, 255, 0)
    a, b, c = (draws(image, EVERYTHING, 300, seed) for seed in (0, 0, 1))
    assert a.shape == (300, 9, 14, 3) and a.dtype == np.float32
    assert a.min() >= 0 and a.max() <= 255
    np.testing.assert_array_equal(a, b)
    assert len(np.unique(np.concatenate([a, c]).reshape(600, -1), axis=0)) == 600


def test_off_is_the_identity():
    image = picture(np.random.default_rng(10), 9, 14)
    np.testing.assert_array_equal(draws(image, Augmentation(), 3), [image] * 3)


def test_flip_and_grey_come_as_often_as_asked(p=0.3):
    """Over 4000 keys, within four standard deviations; and neither follows the other."""
    image = picture(np.random.default_rng(12), 2, 3)
    altered = draws(image, Augmentation(flip=p, grey=p), 4000)
    grey = np.ptp(altered, axis=-1).max(axis=(1, 2)) < 1e-3
    light = altered @ np.array([0.299, 0.587, 0.114])
    before = image @ np.array([0.299, 0.587, 0.114])
    flip = np.abs(light - before[:, ::-1]).max(axis=(1, 2)) < 0.1
    assert (flip | (np.abs(light - before).max(axis=(1, 2)) < 0.1)).all()
    slack = 4 * np.sqrt(p * (1 - p) / 4000)
    assert abs(flip.mean() - p) < slack and abs(grey.mean() - p) < slack
    assert abs((flip & grey).mean() - p**2) < slack


def slopes(altered):
    """How far the source moves with a pixel down and a pixel right, at the middle: [N, 2, 2]."""
    y, x = altered.shape[1] // 2, altered.shape[2] // 2
    centre = altered[:, y, x, :2]
    return np.stack([altered[:, y + 1, x, :2] - centre, altered[:, y, x + 1, :2] - centre], axis=1)


def assert_spans(values, low, high):
    """All between the bounds, and near each of them some."""
    margin = 0.05 * (high - low)
    assert low - 1e-3 <= values.min() < low + margin, values.min()
    assert high - margin < values.max() <= high + 1e-3, values.max()


def test_random_crops_keep_the_area_and_the_aspect_asked_for():
    height, width = 24, 32
    altered = draws(ramps(height, width), Augmentation(crop_area=0.4, crop_aspect=4 / 3))
    scale_y, scale_x = slopes(altered)[:, 0, 0], slopes(altered)[:, 1, 1]
    assert_spans(scale_y * scale_x, 0.4, 1)
    assert_spans(np.log(scale_x / scale_y), -np.log(4 / 3), np.log(4 / 3))
    # The crop's upper left corner, as a share of the room it has. The centre of an output pixel
    # lies half a source pixel inside: read at the middle, where nothing is clamped.
    y0, x0 = altered[:, height // 2, width // 2, :2].T
    top = y0 + 0.5 - (height // 2 + 0.5) * scale_y
    left = x0 + 0.5 - (width // 2 + 0.5) * scale_x
    for place, room in ((top, height * (1 - scale_y)), (left, width * (1 - scale_x))):
        assert (place > -0.01).all() and (place < room + 0.01).all()
        shares = place[room > 1] / room[room > 1]
        assert_spans(shares, 0, 1)
        assert abs(shares.mean() - 0.5) < 0.04


def test_random_turns_and_shifts_stay_within_bounds():
    height, width = 24, 32
    altered = draws(ramps(height, width), Augmentation(rotate=15))
    (down_y, down_x), (right_y, right_x) = np.moveaxis(slopes(altered), 0, -1)
    np.testing.assert_allclose(down_y, right_x, atol=1e-3)
    np.testing.assert_allclose(down_x, -right_y, atol=1e-3)
    angle = np.rad2deg(np.arctan2(down_x, down_y))
    assert_spans(angle, -15, 15)
    assert abs(angle.mean()) < 1
    altered = draws(ramps(height, width), Augmentation(translate=0.2))
    dy, dx = (altered[:, 12, 16, :2] - [12, 16]).T
    assert_spans(dy / height, -0.2, 0.2)
    assert_spans(dx / width, -0.2, 0.2)
    assert abs(np.corrcoef(dy, dx)[0, 1]) < 0.2


def test_random_light_stays_within_bounds():
    image = np.full((2, 3, 3), 100, np.float32)
    assert_spans(draws(image, Augmentation(brightness=0.3))[:, 0, 0, 0], 70, 130)
    image[:, 0], image[:, 2] = 60, 140  # about a mean of 100
    altered = draws(image, Augmentation(contrast=0.3))
    assert_spans(altered[:, 0, 2, 0], 128 - 0.01, 152 + 0.01)
    np.testing.assert_allclose(altered.mean(axis=(1, 2, 3)), 100, atol=1e-2)


@pytest.mark.parametrize("largest", [0.01, 0.25])
def test_erased_rectangles_have_the_area_asked_for(largest):
    height, width, count = 90, 60, 500
    nothing = np.full((height, width, 3), -1, np.float32)
    altered = draws(nothing, Augmentation(erase=0.5, erase_area=largest), count)
    erased = (altered >= 0).all(axis=-1)
    areas = erased.sum(axis=(1, 2))
    assert abs((areas > 0).mean() - 0.5) < 4 * np.sqrt(0.25 / count)
    middles = []
    for mask, copy in zip(erased[areas > 0], altered[areas > 0], strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask.sum() == h * w  # a whole rectangle
        assert len(np.unique(copy[mask], axis=0)) == 1  # of one colour
        # Sides are rounded to whole pixels.
        assert (h - 0.5) * (w - 0.5) <= largest * height * width
        assert (h + 0.5) * (w + 0.5) >= min(0.02, largest) * height * width
        assert (h - 0.5) / height / ((w + 0.5) / width) < 10 / 3
        assert (h + 0.5) / height / ((w - 0.5) / width) > 3 / 10
        middles.append((rows.mean() / (height - 1), columns.mean() / (width - 1)))
    np.testing.assert_allclose(np.mean(middles, axis=0), 0.5, atol=0.06)


# Batches


def make_batch(rng, size=6, height=9, width=14):
    return {
        "image": rng.uniform(0, 255, (size, height, width, 3)).astype(np.float32),
        "label": rng.dirichlet(np.ones(8), size).astype(np.float32),
        "weight": rng.uniform(0.1, 2, size).astype(np.float32),
    }


@pytest.fixture(scope="module")
def mixed():
    """Many pairs blended with alpha 0.4; one in five examples is padding."""
    rng = np.random.default_rng(13)
    batch = make_batch(rng, 4000, 2, 3)
    batch["label"] = np.tile(np.eye(2, dtype=np.float32), (2000, 1))
    batch["weight"][rng.random(4000) < 0.2] = 0
    keys = jax.random.split(jax.random.key(0), 4000)
    got = jax.tree.map(np.asarray, jax.jit(augmentation.mixup)(batch, keys, 0.4))
    assert got.keys() == batch.keys()
    np.testing.assert_array_equal(got["weight"], batch["weight"])
    return batch, got


def test_mixup_blends_neighbours_but_never_padding(mixed):
    """A pair's share is read off its labels; the images follow by a loop."""
    batch, got = mixed
    for a in range(0, 4000, 2):
        b = a + 1
        if not (batch["weight"][a] and batch["weight"][b]):
            for name in ("image", "label"):
                np.testing.assert_array_equal(got[name][a : b + 1], batch[name][a : b + 1])
            continue
        share = got["label"][a, 0]
        np.testing.assert_allclose(
            got["label"][a : b + 1], [[share, 1 - share], [1 - share, share]], atol=1e-6
        )
        for own, other in ((a, b), (b, a)):
            blend = share * batch["image"][own] + (1 - share) * batch["image"][other]
            np.testing.assert_allclose(got["image"][own], blend, atol=1e-3)


def test_mixup_s_shares_are_beta(mixed, alpha=0.4):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), a share of its own for each pair."""
    batch, got = mixed
    shares = got["label"][::2, 0][(batch["weight"].reshape(-1, 2) > 0).all(axis=1)]
    assert len(shares) > 1000 and len(np.unique(shares)) > 0.95 * len(shares)
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_refuses_an_odd_batch():
    batch = make_batch(np.random.default_rng(15), 5)
    with pytest.raises(ValueError, match="5 examples"):
        augmentation.mixup(batch, jax.random.split(jax.random.key(0), 5), 0.4)


def test_an_example_depends_on_its_key_and_its_neighbour_alone():
    rng = np.random.default_rng(16)
    batch, others = make_batch(rng, 6), make_batch(rng, 6)
    keys, other_keys = jax.random.split(jax.random.key(3), (2, 6))
    augment = jax.jit(partial(augmentation.augment, config=Augmentation(contrast=0.5, mixup=0.4)))
    whole = augment(batch, keys)
    # The last pair moves to the front, among strangers.
    mixed = {k: np.concatenate([v[4:], others[k][2:]]) for k, v in batch.items()}
    moved = augment(mixed, jnp.concatenate([keys[4:], other_keys[2:]]))
    for name in batch:
        close(moved[name][:2], whole[name][4:], 1e-3)
        assert np.abs(moved[name][2:4] - whole[name][2:4]).max() > 0.01


def test_without_mixup_a_batch_is_augmented_example_by_example():
    batch = make_batch(np.random.default_rng(17), 4)
    batch["image"] = batch["image"].astype(np.uint8)
    keys = jax.random.split(jax.random.key(4), 4)
    augment = jax.jit(partial(augmentation.augment, config=Augmentation(flip=0.5, contrast=0.5)))
    whole = augment(batch, keys)
    assert whole["image"].dtype == jnp.float32
    for i in range(4):
        one = augment({k: v[i : i + 1] for k, v in batch.items()}, keys[i : i + 1])
        close(one["image"][0], whole["image"][i], 1e-3)
        assert np.abs(whole["image"][i] - batch["image"][i]).max() > 1
    for name in ("label", "weight"):
        np.testing.assert_array_equal(whole[name], batch[name])
