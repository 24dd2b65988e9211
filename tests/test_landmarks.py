"""The 68 points: a model that is checked, and faces cut out level by them."""

import dataclasses
import os

import numpy as np
import pytest

from emotion_jax import faces, images
from emotion_jax.errors import EmotionError
from emotion_jax.faces import dlib_models
from emotion_jax.faces.landmarks import Square, cut_square, fit_square
from emotion_jax.image_spec import ImageSpec


@pytest.fixture(scope="module")
def photo(scenes):
    return images.read_image(os.path.join(scenes, "photos", "group_3.jpg"))


@pytest.fixture(scope="module")
def finder():
    try:
        dlib_models.load_points()
    except EmotionError:
        pytest.skip("the landmarks extra is not installed: no 68 points")
    return faces.Finder(landmarks=True)


def make_mean(seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (68, 2))


def place(mean, square):
    """The mean face's points where its box has become a turned square: by cosines."""
    c, s = np.cos(square.angle), np.sin(square.angle)
    turned = (mean - 0.5) @ np.array([[c, s], [-s, c]])
    return turned * square.side + (square.x, square.y)


SQUARES = [
    Square(100, 80, 60, 0.0),
    Square(-5, 300, 12.5, 0.4),
    Square(40, 40, 200, -2.9),
    Square(40, 40, 200, np.pi),
]


@pytest.mark.parametrize("square", SQUARES)
def test_the_square_is_where_the_points_are(square):
    mean = make_mean()
    found = fit_square(place(mean, square), mean)
    assert np.allclose([found.x, found.y, found.side], [square.x, square.y, square.side])
    assert np.isclose(np.cos(found.angle - square.angle), 1)


@pytest.mark.parametrize("square", SQUARES)
def test_a_fifth_of_the_points_may_be_anywhere(square):
    mean, chance = make_mean(), np.random.default_rng(1)
    points = place(mean, square)
    hidden = chance.choice(68, 13, replace=False)
    points[hidden] += chance.uniform(-2, 2, (13, 2)) * square.side
    points += chance.normal(0, 0.01, (68, 2)) * square.side
    found = fit_square(points, mean)
    error = np.hypot(found.x - square.x, found.y - square.y)
    assert error < 0.04 * square.side and abs(found.side / square.side - 1) < 0.06
    assert np.cos(found.angle - square.angle) > np.cos(np.radians(3))


def test_a_level_square_is_a_slice():
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_square(image, Square(30, 20, 16, 0.0)), image[12:28, 22:38])
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="edge")
    cut = cut_square(image, Square(2, 48, 20, 0.0))
    np.testing.assert_array_equal(cut, padded[58:78, 12:32])


@pytest.mark.parametrize(("angle", "quarters"), [(90, 1), (180, 2), (-90, 3)])
def test_a_square_turned_by_quarters_is_turned_back(angle, quarters):
    image = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    cut = cut_square(image, Square(30, 20, 16, np.radians(angle)))
    # A head that leans clockwise is turned counter-clockwise.
    np.testing.assert_allclose(cut, np.rot90(image[12:28, 22:38], quarters), atol=1)


def test_the_crop_moves_and_grows_along_the_square():
    grown = Square(10, 20, 30, np.pi / 2).scale(1.5, -0.1)
    # "Up" in a face that lies on its left side, turned clockwise, is to the right.
    assert np.allclose([grown.x, grown.y, grown.side, grown.angle], [13, 20, 45, np.pi / 2])


def test_points_of_a_photo_lie_in_their_boxes(photo, finder):
    found = finder.detect(photo)
    assert found == faces.detect(photo)  # the boxes are the detector's
    for face in found:
        assert face.points.shape == (68, 2)
        inside = np.abs(face.points - (face.x + face.width / 2, face.y + face.height / 2))
        assert np.median(inside) < 0.35 * face.width and inside.max() < face.width
        assert 0.8 < face.square.side / face.width < 1.25
        assert abs(np.degrees(face.square.angle)) < 25


@pytest.mark.parametrize("degrees", [-15, 15])
def test_a_turned_photo_gives_the_same_level_crops(photo, finder, degrees):
    (face,) = (face for face in finder.detect(photo) if 400 < face.x < 520)
    # Turned about the middle of the face; by our cut, which other tests hold against slices.
    middle = face.square
    side = 3 * face.width
    turned = cut_square(photo, Square(middle.x, middle.y, side, np.radians(-degrees)))
    found = min(finder.detect(turned), key=lambda one: np.hypot(*(one.points[30] - side / 2)))
    assert np.degrees(found.square.angle - middle.angle) == pytest.approx(degrees, abs=3)
    spec = ImageSpec(size=48)
    (level,), (again,) = faces.crop(photo, [face], spec), faces.crop(turned, [found], spec)
    plain = faces.crop(turned, [dataclasses.replace(found, square=None)], spec)[0]

    def differ(one):
        return np.abs(one.astype(int) - level).mean()

    assert differ(again) < 0.5 * differ(plain)


def test_a_network_of_level_faces_needs_landmarks():
    image, spec = np.zeros((50, 50, 3), np.uint8), ImageSpec(align=True)
    face = faces.Face(10, 10, 20, 20, 1.0)
    with pytest.raises(EmotionError, match="--landmarks"):
        faces.crop(image, [face], spec)
    level = dataclasses.replace(face, square=Square(20, 20, 20, 0.0))
    assert faces.crop(image, [level], spec).shape == (1, 64, 64, 3)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dlib_models.importlib.util, "find_spec", lambda name: None)
    for load in (dlib_models.load_points.__wrapped__, dlib_models._load_cnn):
        with pytest.raises(EmotionError, match=r"pip install -e .*landmarks.* --\w+_model=PATH"):
            load(None)


def integer(value):
    """As dlib writes it."""
    data = abs(value).to_bytes(8, "little").rstrip(b"\0") or b"\0"
    return bytes([len(data) | (0x80 if value < 0 else 0)]) + data


# How a 68-point model begins: version 1, a column of 136 numbers, all 1/2; then its trees.
HEAD = integer(1) + integer(-136) + integer(-1) + 136 * (integer(1) + integer(-1))


BAD = {
    "empty": b"",
    "text": b"no model at all" * 100,
    "of 5 points": integer(1) + integer(-10) + integer(-1) + 200 * integer(1),
    "far away": HEAD[:-4] + 2 * (integer(1) + integer(9)),
    "infinite": HEAD[:-4] + 2 * (integer(1) + integer(1 << 40)),
    "cut short": HEAD,
    "of a billion trees": HEAD + integer(1_000_000_000) + 100 * integer(1),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_model_is_one_sentence(kind, tmp_path):
    path = tmp_path / "model.dat"
    path.write_bytes(BAD[kind])
    image = np.zeros((90, 90, 3), np.uint8)
    face = faces.Face(10, 10, 50, 50, 1.0)
    with pytest.raises(EmotionError, match=r"^'[^']*model\.dat' is [^\n]*; (give|download)"):
        faces.add_landmarks(image, [face], model=str(path))
    with pytest.raises(EmotionError, match=r"^'[^']*model\.dat' is [^\n]*; give"):
        faces.detect(image, detector="cnn", cnn_model=str(path))


def test_a_missing_model_is_one_sentence(tmp_path):
    for load in (dlib_models.load_points, dlib_models._load_cnn):
        with pytest.raises(EmotionError, match="absent.dat' is no file"):
            load(str(tmp_path / "absent.dat"))


def test_the_network_finds_a_face_that_hog_does_not(finder, scenes):
    photo = images.read_image(os.path.join(scenes, "photos", "multi_face.jpg"))
    part = photo[60:190, 180:340]  # a man in sunglasses who turns away
    assert faces.detect(part, min_face=70) == []
    (face,) = faces.detect(part, min_face=70, detector="cnn")
    assert abs(face.x + face.width / 2 - 82) < 15 and abs(face.y + face.height / 2 - 52) < 20
    assert 60 < face.width < 110 and face.score > 0.9
