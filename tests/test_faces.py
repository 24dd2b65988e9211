"""Faces: found in real photos, cut out exactly."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from emotion_jax import faces, images
from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.image_spec import ImageSpec

# Faces that look at the camera: a man in sunglasses (multi_face) turns away and is not found.
COUNTS = {
    "photos/single_face.jpg": 1,
    "photos/astronaut.png": 1,
    "photos/Image_with_alpha.png": 1,
    "photos/multi_face.jpg": 4,
    "photos/group_3.jpg": 5,
    "photos/group_16.jpg": 9,
    "dlib_faces/2008_004176.jpg": 7,
    "dlib_faces/2008_002470.jpg": 6,
    "dlib_faces/2008_002506.jpg": 3,
    "dlib_faces/dogs.jpg": 0,
}


@pytest.mark.parametrize("name", COUNTS)
def test_faces_of_real_photos_are_found(scenes, name):
    found = faces.detect(images.read_image(os.path.join(scenes, name)))
    assert len(found) == COUNTS[name]
    assert [face.x for face in found] == sorted(face.x for face in found)
    assert all(face.score > 0 for face in found)


def test_boxes_are_where_the_faces_are(scenes):
    found = faces.detect(images.read_image(os.path.join(scenes, "dlib_faces/2008_002506.jpg")))
    drawn = ((125, 65, 90, 91), (224, 95, 91, 91), (329, 78, 109, 109))  # testing.xml
    for face, (x, y, width, height) in zip(found, drawn, strict=True):
        middle = face.x + face.width / 2, face.y + face.height / 2
        assert np.hypot(middle[0] - x - width / 2, middle[1] - y - height / 2) < 0.15 * width
        assert 0.75 < face.width / width < 1.33


def test_scaling_follows_the_smallest_face(scenes):
    photo = images.read_image(os.path.join(scenes, "photos/single_face.jpg"))
    (large,) = faces.detect(photo)
    (coarse,) = faces.detect(photo, min_face=160)
    assert abs(large.x - coarse.x) < 0.2 * large.width
    # The same photo, eight times as large: the search is bounded, the box in its pixels.
    (huge,) = faces.detect(images.resize(photo, 8 * photo.shape[0], 8 * photo.shape[1]))
    assert abs(huge.x / 8 - large.x) < 0.2 * large.width
    assert faces.detect(photo, min_face=400) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (48, 48), (300, 200)])
def test_pictures_without_a_face(shape):
    assert faces.detect(np.full((*shape, 3), 127, np.uint8)) == []


def test_threads_find_the_same_faces_at_once(scenes):
    photo = images.read_image(os.path.join(scenes, "dlib_faces/2008_002506.jpg"))
    alone = faces.detect(photo)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(faces.detect, [photo] * 6)) == [alone] * 6


@pytest.mark.parametrize("options", [{"min_face": 0}, {"min_face": np.nan}, {"detector": "haar"}])
def test_a_finder_that_cannot_be_meant_is_refused(options):
    with pytest.raises(EmotionError, match=rf"^{next(iter(options))}: .*; use"):
        faces.Finder(**options)


def pad_crop(image, face, spec):
    """The crop with np.pad and a plain slice."""
    side = round(spec.crop_scale * face.width)
    margin = 4 * max(image.shape)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    x = round(face.x + face.width / 2 - side / 2) + margin
    y = round(face.y + face.height / 2 + spec.crop_shift * face.height - side / 2) + margin
    return padded[y : y + side, x : x + side]


@pytest.mark.parametrize(
    "face",
    [
        Face(20, 12, 30, 30, 1.0),
        Face(20.4, 11.7, 24.3, 31.2, 1.0),
        Face(-15, -20, 40, 40, 1.0),
        Face(50, 40, 40, 44, 1.0),
        Face(-30, -10, 140, 120, 1.0),
    ],
)
def test_crop_is_a_slice_of_the_padded_picture(face):
    image = np.random.default_rng(2).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    for scale, shift in ((1.12, -0.08), (1.5, 0.2), (1.0, 0.0)):
        side = round(scale * face.width)
        spec = ImageSpec(size=side, crop_scale=scale, crop_shift=shift)  # so nothing is resized
        (square,) = faces.crop(image, [face], spec)
        np.testing.assert_array_equal(square, pad_crop(image, face, spec))


def test_crops_are_resized_to_the_network():
    image = np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    spec = ImageSpec(size=20, crop_scale=1.0, crop_shift=0.0)
    found = [Face(10, 10, 40, 40, 1.0), Face(70, 30, 10, 10, 1.0)]
    squares = faces.crop(image, found, spec)
    assert squares.shape == (2, 20, 20, 3) and squares.dtype == np.uint8
    means = image[10:50, 10:50].reshape(20, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(squares[0] - means).max() <= 0.51
    assert faces.crop(image, [], spec).shape == (0, 20, 20, 3)
