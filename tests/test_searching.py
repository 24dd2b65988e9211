"""Films are searched for every size now and then, and in between for the faces that are known."""

import numpy as np
import pytest

from emotion_jax import faces
from emotion_jax.faces import Face, Finder
from emotion_jax.prediction import searching
from emotion_jax.prediction.searching import search
from emotion_jax.video import Frame


def film(count, rate):
    """Frames that carry their number in every pixel."""
    for i in range(count):
        yield Frame(i, i / rate, np.full((8, 8, 3), i, np.uint8))


def look(monkeypatch, widths, *, rate=30.0, workers=2, blur=False):
    """Searches frames in which faces have these widths; which min_face each frame was given."""
    asked = {}

    def detect(image, *, min_face, **_):
        number = int(image[0, 0, 0])
        asked[number] = min_face
        return [Face(0, 0, w, w, 1.0) for w in widths[number] if w >= min_face]

    monkeypatch.setattr(faces, "detect", detect)
    monkeypatch.setattr(searching, "_WORKERS", workers)
    found = list(search(film(len(widths), rate), Finder(min_face=80), blur=blur))
    assert [item.frame.index for item in found] == list(range(len(widths)))
    return [asked[i] for i in range(len(widths))], [[f.width for f in x.faces] for x in found]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_known_faces_are_looked_for_as_large_as_they_are(monkeypatch, workers):
    asked, found = look(monkeypatch, [[180, 400]] * 20, workers=workers)
    # A face of 180 pixels may shrink to 126: two steps of 6/5 above 80 are 115.2. What is known is
    # of the full search before the last, so that it is the same on any number of threads.
    full, narrow = 80, pytest.approx(80 * 1.2**2)
    assert asked == [full] * 7 + [narrow] * 5 + [full] + [narrow] * 5 + [full, narrow]
    assert found == [[180, 400]] * 20


def test_without_a_face_or_with_a_small_one_every_frame_is_searched_in_full(monkeypatch):
    assert look(monkeypatch, [[]] * 20)[0] == [80] * 20
    assert look(monkeypatch, [[300, 90]] * 20)[0] == [80] * 20


def test_a_small_face_is_noticed_soon(monkeypatch):
    widths = [[300]] * 14 + [[300, 85]] * 30
    found = look(monkeypatch, widths)[1]
    first = next(i for i, faces_ in enumerate(found) if len(faces_) == 2)
    # At once in the next full search; in between too from the one after it.
    assert first == 18 and all(len(faces_) == 2 for faces_ in found[30:])


def test_few_frames_a_second_are_all_searched_in_full(monkeypatch):
    assert look(monkeypatch, [[300]] * 9, rate=5.0)[0] == [80] * 9


def test_what_is_to_be_hidden_is_looked_for_in_every_frame(monkeypatch):
    assert look(monkeypatch, [[300]] * 20, blur=True)[0] == [80] * 20


@pytest.mark.parametrize("width", [10.0, 114.0, 115.0, 500.0])
def test_a_narrowed_finder_keeps_to_the_detectors_pyramid(width):
    finder = Finder(min_face=80, min_score=0.3)
    narrow = finder.narrow([Face(0, 0, width, width, 1.0), Face(0, 0, 900, 900, 1.0)])
    steps = np.log(narrow.min_face / 80) / np.log(1.2)
    assert steps == pytest.approx(round(steps)) and steps >= 0 and narrow.min_score == 0.3
    # The largest step that leaves room for a face of 0.7 of the width.
    assert narrow.min_face <= max(0.7 * width, 80) < narrow.min_face * 1.2 or width < 114.4
    assert finder.narrow([]) == finder
