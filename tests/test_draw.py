"""Drawing: on a copy, inside the picture, visible on any background, hiding no face."""

import numpy as np
import pytest

from emotion_jax import draw
from emotion_jax.faces import Face
from emotion_jax.labels import EMOTIONS


def make_probabilities(number, best=1):
    rows = np.full((number, len(EMOTIONS)), 0.02, np.float32)
    rows[:, best] = 1 - 0.02 * 7
    return rows


def changed(image, annotated):
    return (image != annotated).any(axis=2)


def test_drawing_leaves_the_input_alone():
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    before = image.copy()
    annotated = draw.annotate(image, [Face(50, 80, 100, 100, 1.0)], make_probabilities(1))
    np.testing.assert_array_equal(image, before)
    assert annotated.shape == image.shape and annotated.dtype == np.uint8
    assert changed(image, annotated).any()
    np.testing.assert_array_equal(draw.annotate(image, [], make_probabilities(0)), image)


def test_read_only_and_flipped_views_are_welcome():
    image = np.full((200, 260, 3), 90, np.uint8)[::-1, ::-1]
    image.setflags(write=False)
    face = [Face(50, 50, 90, 90, 1.0)]
    expected = draw.annotate(np.full((200, 260, 3), 90, np.uint8), face, make_probabilities(1))
    np.testing.assert_array_equal(draw.annotate(image, face, make_probabilities(1)), expected)


@pytest.mark.parametrize("shape", [(1, 1), (8, 200), (200, 8), (48, 48), (600, 900)])
@pytest.mark.parametrize(
    "box", [(-20, -20, 60, 60), (0, 0, 40, 40), (500, 300, 900, 900), (-300, -300, 2000, 2000)]
)
def test_boxes_anywhere_on_any_picture(shape, box):
    image = np.zeros((*shape, 3), np.uint8)
    annotated = draw.annotate(image, [Face(*box, 1.0)], make_probabilities(1), numbers=[123])
    assert annotated.shape == image.shape


@pytest.mark.parametrize("grey", [0, 60, 128, 200, 255])
@pytest.mark.parametrize("code", range(len(EMOTIONS)))
def test_the_plate_stands_out_from_any_background(grey, code):
    image = np.full((300, 400, 3), grey, np.uint8)
    face = Face(150, 120, 100, 100, 1.0)
    annotated = draw.annotate(image, [face], make_probabilities(1, best=code))
    plate = annotated[100:118, 150:230].astype(int)  # above the box
    share = (np.abs(plate - draw.COLORS[code]).sum(axis=2) < 30).mean()
    assert share > 0.4
    luminance = plate @ (0.299, 0.587, 0.114)
    assert luminance.max() - luminance.min() > 90  # the letters on it
    rim = annotated[170, 140:160] @ np.array((0.299, 0.587, 0.114))
    assert rim.max() - rim.min() > 80  # the frame: light line, dark rim


def test_a_large_face_gets_eight_bars_of_the_right_length():
    image = np.zeros((500, 800, 3), np.uint8)
    probabilities = np.array([[0.05, 0.5, 0.25, 0.1, 0.04, 0.03, 0.02, 0.01]], np.float32)
    face = Face(100, 150, 200, 200, 1.0)
    annotated = draw.annotate(image, [face], probabilities)
    panel = annotated[:, 310:]
    lengths = [
        (panel == np.array(color, np.uint8)).all(axis=2).sum(axis=1).max() for color in draw.COLORS
    ]
    full = lengths[1] / 0.5
    np.testing.assert_allclose(np.array(lengths) / full, probabilities[0], atol=1.1 / full)


def test_panels_hide_no_face_and_no_plate():
    image = np.random.default_rng(1).integers(0, 256, (700, 1000, 3), dtype=np.uint8)
    grid = [Face(60 + 230 * i, 100 + 220 * j, 120, 120, 1.0) for i in range(4) for j in range(3)]
    annotated = draw.annotate(image, grid, make_probabilities(len(grid)))
    hidden = changed(image, annotated)
    for face in grid:
        x, y, side = int(face.x), int(face.y), int(face.width)
        assert not hidden[y + 6 : y + side - 6, x + 6 : x + side - 6].any()


def test_small_faces_get_no_panel():
    image = np.zeros((400, 600, 3), np.uint8)
    annotated = draw.annotate(image, [Face(280, 180, 40, 40, 1.0)], make_probabilities(1))
    assert not changed(image, annotated)[230:].any()
    assert not changed(image, annotated)[:, :270].any()


def test_letters_grow_with_the_picture():
    heights = []
    for scale in (1, 3):
        image = np.zeros((300 * scale, 400 * scale, 3), np.uint8)
        face = Face(150 * scale, 120 * scale, 100 * scale, 100 * scale, 1.0)
        annotated = draw.annotate(image, [face], make_probabilities(1))
        column = annotated[: 119 * scale, 152 * scale]
        heights.append((column == np.array(draw.COLORS[1])).all(axis=1).sum())
    assert 2.3 < heights[1] / heights[0] < 3.7


def test_a_hidden_face_keeps_no_more_than_a_few_patches():
    image = np.random.default_rng(2).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    before = image.copy()
    hidden = draw.hide(image, [Face(120, 100, 100, 100, 1.0), Face(370, 260, 90, 90, 1.0)])
    np.testing.assert_array_equal(image, before)
    inside = hidden[100:200, 120:220].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) <= 36
    np.testing.assert_array_equal(hidden[:, :90], image[:, :90])
    # Each patch is the mean of what it covers: nothing of its own is left of a pixel.
    assert abs(inside.mean() - before[55:225, 100:240].mean()) < 3
    np.testing.assert_array_equal(draw.hide(image, []), image)


@pytest.mark.parametrize("box", [(-50, -50, 60, 60), (390, 290, 3, 3), (500, 400, 50, 50)])
def test_faces_at_the_edge_can_be_hidden(box):
    image = np.full((300, 400, 3), 77, np.uint8)
    np.testing.assert_array_equal(draw.hide(image, [Face(*box, 1.0)]), image)


def test_a_hidden_face_shows_no_landmarks():
    image = np.full((200, 200, 3), 90, np.uint8)
    points = np.random.default_rng(0).uniform(60, 140, (68, 2))
    bare = Face(50, 50, 100, 100, 1.0)
    dotted = Face(50, 50, 100, 100, 1.0, points)
    row = np.eye(8)[:1]
    expected = draw.annotate(image, [bare], row)
    assert (draw.annotate(image, [dotted], row) != expected).any()
    assert (draw.annotate(image, [dotted], row, landmarks=False) == expected).all()
