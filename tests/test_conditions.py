"""What happens to faces before a camera's network sees them."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emotion_jax.augmentation import Augmentation, augment, conditions

GREY = jnp.full((48, 48, 1), 120.0)
EYES = 48 * jnp.array(conditions.EYES)
CLEAR = {"size": 0.4, "frame": 0.08, "frame_value": 20.0, "tint": 0.0, "glare": 0.0}


def near(image, centre, radius=3):
    y, x = (round(float(n)) for n in centre)
    return np.asarray(image)[y - radius : y + radius + 1, x - radius : x + radius + 1]


def test_clear_glasses_leave_the_eyes_and_frame_them():
    worn = conditions.wear_glasses(GREY, EYES, **CLEAR)
    for eye in EYES:
        np.testing.assert_allclose(near(worn, eye), 120, atol=1e-3)
    # Along a line through both eyes: an arm, a rim, a lens, the bridge, a lens, a rim, an arm.
    line = np.asarray(worn)[round(float(EYES[0, 0])), :, 0] < 70
    runs = np.flatnonzero(np.diff(line.astype(int)))
    assert len(runs) in (5, 6, 7), line  # the arms may end within the picture or not
    assert line[24], "no bridge"
    np.testing.assert_allclose(np.asarray(worn)[30:], 120, atol=1e-3)


def test_glasses_follow_tilted_eyes():
    eyes = jnp.array([[14.0, 16.0], [24.0, 32.0]])
    worn = np.asarray(conditions.wear_glasses(GREY, eyes, **CLEAR))
    dark = np.argwhere(worn[..., 0] < 70)
    slope = np.polyfit(dark[:, 1], dark[:, 0], 1)[0]
    assert slope == pytest.approx(10 / 16, abs=0.15)


def test_dark_lenses_take_light_and_mirrors_give_it():
    dark = conditions.wear_glasses(GREY, EYES, **{**CLEAR, "tint": 0.8})
    np.testing.assert_allclose(near(dark, EYES[0]), 24, atol=1e-3)
    mirror = np.asarray(conditions.wear_glasses(GREY, EYES, **{**CLEAR, "glare": 0.5}))
    y, x = (round(float(n)) for n in EYES[0])
    assert mirror[y - 3, x] > 200 and mirror[y + 3, x] == pytest.approx(120, abs=1e-3)


def test_darkness_is_in_whole_intensities():
    faces = jnp.linspace(0, 255, 48 * 48).reshape(48, 48, 1)
    dark = np.asarray(conditions.darken(faces, 0.25, jnp.zeros((48, 48, 1))))
    np.testing.assert_array_equal(dark, np.round(dark))
    assert dark.max() == 64 and len(np.unique(dark)) == 65
    assert conditions.darken(faces, 1.0, jnp.full((48, 48, 1), -300.0)).max() == 0


def test_light_from_behind_whitens_the_corners_and_flattens_the_face():
    stripes = jnp.tile(jnp.array([60.0, 180.0]), 24)[None, :, None] * jnp.ones((48, 1, 1))
    lit = np.asarray(conditions.light_from_behind(stripes, 1.0))
    np.testing.assert_allclose(lit[[0, 0, -1, -1], [0, -1, 0, -1]], 250, atol=1)
    assert np.ptp(lit[22:26, 22:26]) == pytest.approx(120 * 0.34, abs=2)
    np.testing.assert_array_equal(conditions.light_from_behind(stripes, 0.0), stripes)


@pytest.mark.parametrize(("across", "down"), [(2.0, 2.0), (3.0, 0.5), (0.0, 1.5)])
def test_blur_is_gaussian(across, down):
    image = np.random.default_rng(0).uniform(0, 255, (30, 40, 3)).astype(np.float32)
    ours = conditions.blur(jnp.asarray(image), across, down)
    theirs = cv2.GaussianBlur(image, (0, 0), max(across, 1e-2), sigmaY=down)
    inside = np.s_[10:-10, 10:-10]  # OpenCV mirrors borders and cuts its kernels off
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=0.5)
    np.testing.assert_allclose(conditions.blur(jnp.asarray(image), 0.0, 0.0), image, atol=1e-3)
    np.testing.assert_allclose(conditions.blur(GREY, 3.0, 1.0), GREY, atol=1e-3)


@pytest.mark.parametrize(("right", "down"), [(9.0, 0.0), (0.0, -7.0), (6.0, 6.0), (-8.0, 3.0)])
def test_motion_is_the_mean_along_its_path(right, down):
    image = np.random.default_rng(0).uniform(0, 255, (40, 50, 3)).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 1)
    ours = np.asarray(conditions.smear(jnp.asarray(image), right, down))
    # Many more points, shifted by OpenCV, whose coordinates are rounded to 1/32 of a pixel.
    points = np.linspace(-0.5, 0.5, 101)
    shifts = [np.float32([[1, 0, right * at], [0, 1, down * at]]) for at in points]
    theirs = np.mean([cv2.warpAffine(image, shift, (50, 40)) for shift in shifts], axis=0)
    inside = np.s_[10:-10, 10:-10]
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=3)
    assert np.abs(ours - image)[inside].max() > 30
    # The opposite way is the same path; no way at all, and a wall, are as they were.
    np.testing.assert_allclose(conditions.smear(jnp.asarray(image), -right, -down), ours, atol=1e-3)
    np.testing.assert_allclose(conditions.smear(jnp.asarray(image), 0.0, 0.0), image, atol=1e-3)
    np.testing.assert_allclose(conditions.smear(GREY, right, down), GREY, atol=1e-3)


def test_motion_keeps_a_border_where_it_is():
    edge = jnp.zeros((20, 20, 1)).at[:, 10:].set(200.0)
    moved = np.asarray(conditions.smear(edge, 4.0, 0.0))[10, :, 0]
    assert (np.diff(moved) >= 0).all() and moved[0] == 0 and moved[-1] == 200
    assert moved[9] == pytest.approx(200 - moved[10], abs=1e-3), moved
    # Nothing comes in from the other side, and nothing black from outside.
    np.testing.assert_allclose(conditions.smear(edge, 0.0, 4.0), edge, atol=1e-3)


@pytest.mark.parametrize("quality", [5, 10, 25, 50, 75, 95])
@pytest.mark.parametrize("shape", [(48, 48), (30, 41)])
def test_compression_is_jpeg(shape, quality):
    chance = np.random.default_rng(0)
    image = cv2.GaussianBlur(chance.uniform(-300, 500, shape), (0, 0), 2)  # some of it overflows
    image = np.clip(image + chance.normal(0, 8, shape), 0, 255).astype(np.uint8)
    ours = conditions.compress(jnp.asarray(image, jnp.float32)[..., None], quality)[..., 0]
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(float)
    away = np.abs(ours - theirs)
    # libjpeg's cosines are whole numbers: here and there a frequency takes another step.
    assert away.mean() < 0.4
    assert np.abs(theirs - image).mean() > 2 * away.mean()
    assert (
        conditions.compress(jnp.full((9, 9, 3), 128.0), quality).tolist() == [[[128.0] * 3] * 9] * 9
    )


def test_compression_goes_on_when_the_precision_changes():
    """In one program, with float64 and without, in either order, compiled or not."""
    compiled = jax.jit(conditions.compress)
    for wide in (True, False, True):
        with jax.enable_x64(wide):
            image = jnp.full((16, 16, 1), 100.0)
            for compress in (compiled, conditions.compress):
                assert compress(image, 20).tolist() == [[[98.0]] * 16] * 16


@pytest.mark.parametrize("name", ["glasses", "darkness", "backlight", "blur", "motion", "jpeg"])
def test_each_is_drawn_with_its_probability(name):
    count = 400
    faces = jax.random.uniform(jax.random.key(0), (48, 48, 1), maxval=255.0)
    batch = {
        "image": jnp.broadcast_to(faces, (count, 48, 48, 1)),
        "label": jnp.zeros((count, 8)),
        "weight": jnp.ones(count),
    }
    config = Augmentation(**{name: 0.25})
    drawn = jax.jit(partial(augment, config=config))(
        batch, jax.random.split(jax.random.key(1), count)
    )["image"]
    assert drawn.min() > -1e-3 and drawn.max() < 255.001
    changed = (jnp.abs(drawn - faces).max(axis=(1, 2, 3)) > 1).mean()
    # Four deviations of 400 draws.
    assert changed == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / count))


def test_they_leave_what_was_drawn_before_them():
    batch = {
        "image": jnp.broadcast_to(jnp.arange(48.0 * 48).reshape(48, 48, 1) % 255, (16, 48, 48, 1)),
        "label": jnp.zeros((16, 8)),
        "weight": jnp.ones(16),
    }
    keys = jax.random.split(jax.random.key(0), 16)
    before = augment(batch, keys, Augmentation(erase=0.5))["image"]
    later = Augmentation(erase=0.5, blur=1e-9, motion=1e-9, jpeg=1e-9)
    after = augment(batch, keys, later)["image"]
    np.testing.assert_array_equal(before, after)
