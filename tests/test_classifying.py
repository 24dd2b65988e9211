"""A predictor that looks at each face twice."""

import numpy as np
import pytest

import emotion_jax as ej


class Brighter:
    """Says "fear" by how bright a face's left half is, "anger" by its right half."""

    spec = ej.ImageSpec(size=8)

    def __call__(self, images, /):
        rows = np.zeros((len(images), 8), np.float32)
        middle = images.shape[2] // 2
        rows[:, 4] = images[:, :, :middle].mean((1, 2, 3)) / 255
        rows[:, 6] = images[:, :, middle:].mean((1, 2, 3)) / 255
        rows[:, 0] = 1 - rows[:, 4] - rows[:, 6]
        return rows


def test_both_sides_count_alike():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, :, :4] = 102
    assert Brighter()(image)[0, [4, 6]] == pytest.approx([0.4, 0])
    assert ej.Mirrored(Brighter())(image)[0] == pytest.approx([0.6, 0, 0, 0, 0.2, 0, 0.2, 0])


def test_a_face_and_its_mirror_image_get_one_answer():
    predictor = ej.load_predictor("simplenet-narrow-ferplus")
    faces = np.random.default_rng(0).integers(
        0, 256, (3, 61, 57, 3), np.uint8
    )  # of another size: they are resized
    plain, other = predictor(faces), predictor(np.ascontiguousarray(faces[:, :, ::-1]))
    assert np.abs(plain - other).max() > 0.01
    mirrored = ej.Mirrored(predictor)
    assert mirrored.spec == predictor.spec
    np.testing.assert_array_equal(mirrored(faces), mirrored(faces[:, :, ::-1]))
    np.testing.assert_allclose(mirrored(faces), (plain + other) / 2, atol=1e-7)
    np.testing.assert_allclose(mirrored(faces).sum(1), 1, atol=1e-6)
    assert mirrored(faces[:0]).shape == (0, 8)


def test_what_is_no_face_is_refused_as_ever():
    with pytest.raises(ej.EmotionError, match=r"uint8 \[N, H, W, 3\]"):
        ej.Mirrored(ej.load_predictor("simplenet-narrow-ferplus"))(np.zeros((8, 8, 3)))
