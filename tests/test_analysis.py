"""One call from pictures to rows, with a network that answers without looking."""

import functools
import os
import threading

import numpy as np
import pandas
import pytest
from false_network import write_picture

import emotion_jax as ej
from emotion_jax import analysis, faces, images
from emotion_jax.errors import EmotionError


def test_one_picture_one_call_all_faces(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 3)
    rows = ej.analyze(path, predictor)
    assert predictor.shapes == [(3, 40, 40, 3)]
    assert [(row["source"], row["face"], row["x"]) for row in rows] == [
        (path, 0, 0),
        (path, 1, 10),
        (path, 2, 20),
    ]
    assert all(row["emotion"] == "fear" and row["confidence"] == 0.3 for row in rows)
    array = images.read_image(path)
    assert ej.analyze(array, predictor, source=path) == rows
    assert ej.analyze(array, predictor)[0]["source"] == "array"


def test_weights_are_loaded_by_their_name_once(found, predictor, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr("emotion_jax.inference.load_predictor", lambda path: loaded.append(path))
    monkeypatch.setattr(analysis, "_load_once", functools.cache(analysis._load_once.__wrapped__))
    monkeypatch.setattr(analysis, "label_each", lambda pictures, predictor, finder: [])
    for each in (None, "mine", tmp_path, "mine", None):
        ej.analyze(np.zeros((50, 50, 3), np.uint8), each)
    assert loaded == [None, "mine", str(tmp_path)]


def test_no_face_means_no_row_and_no_call(found, predictor):
    assert ej.analyze(np.zeros((50, 50, 3), np.uint8), predictor) == []
    assert predictor.shapes == []


def test_several_pictures_keep_their_order(found, predictor, tmp_path):
    counts = [3, 0, 1, 2, 0, 1, 5, 1, 1, 1, 4]
    paths = [write_picture(tmp_path / f"{i}.png", count) for i, count in enumerate(counts)]
    arrays = [images.read_image(path) for path in paths]
    rows = ej.analyze([*paths, *arrays], predictor)
    expected = [(path, k) for path, count in zip(paths, counts, strict=True) for k in range(count)]
    expected += [(f"array {len(paths) + i}", k) for i, n in enumerate(counts) for k in range(n)]
    assert [(row["source"], row["face"]) for row in rows] == expected
    assert [shape[0] for shape in predictor.shapes] == 2 * [n for n in counts if n]
    assert ej.analyze([], predictor) == []


def test_few_pictures_are_held_at_a_time(monkeypatch, predictor):
    lock, alive = threading.Lock(), []

    def detect(image, **_):
        with lock:
            alive.append(1)
        return []

    monkeypatch.setattr(faces, "detect", detect)
    given = 0

    def give():
        nonlocal given
        for i in range(100):
            given += 1
            yield str(i), np.zeros((9, 9, 3), np.uint8)

    taken = 0
    for _ in analysis.label_each(give(), predictor, faces.DEFAULT):
        taken += 1
        assert given - taken < 2 * analysis._WORKERS
    assert taken == 100 == len(alive)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array, predictor):
    with pytest.raises(EmotionError, match=r"uint8 \[H, W, 3\], RGB, not .* \[\d"):
        ej.analyze(array, predictor)


@pytest.mark.parametrize("what", [None, 1, [1], ["a", None][1:]])
def test_what_is_no_picture_at_all_is_refused(what, predictor):
    with pytest.raises(EmotionError, match=r"must be uint8 \[H, W, 3\], RGB, not (int|NoneType)"):
        ej.analyze(what, predictor)


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((0, 9, 3), np.uint8), "a"]
)
def test_the_parts_refuse_what_is_no_picture_too(image):
    for act in (ej.detect, ej.Finder().detect, lambda x: ej.crop(x, [], ej.ImageSpec())):
        with pytest.raises(EmotionError, match=r"must be uint8 \[H, W, 3\]"):
            act(image)


def test_a_picture_that_cannot_be_read_is_an_error(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    with pytest.raises(EmotionError, match="absent.png"):
        ej.analyze([path, tmp_path / "absent.png", path], predictor)


def test_rows_show_as_a_table(found, predictor, tmp_path):
    rows = ej.analyze([write_picture(tmp_path / "a.png", 2)], predictor)
    first, second = repr(rows).splitlines()
    assert first.startswith(str(tmp_path / "a.png")) and "fear" in first and "30 %" in first
    assert "30x30 at 10, 20" in second
    assert repr(ej.analyze([], predictor)) == "no face"


def test_rows_become_a_data_frame(found, predictor, tmp_path):
    rows = ej.analyze([write_picture(tmp_path / "a.png", 2)], predictor)
    frame = rows.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame.to_dict("records") == rows
    assert list(frame[list(ej.EMOTIONS)].sum(axis=1).round(9)) == [1, 1]
    assert list(ej.analyze([], predictor).to_pandas().columns) == list(rows[0])


def test_without_pandas_it_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(EmotionError, match="pip install pandas"):
        analysis.Rows().to_pandas()


def test_the_shipped_network_reads_a_drawn_face(tmp_path):
    from emotion_jax.images import read_image

    sheet = os.path.join(os.path.dirname(__file__), "..", "docs", "faces.png")
    rows = ej.analyze(sheet)
    assert rows and rows == ej.analyze(read_image(sheet), source=sheet)
    assert all(row["emotion"] in ej.EMOTIONS for row in rows)


def test_real_photo(scenes, predictor):
    photo = os.path.join(scenes, "photos", "group_3.jpg")
    rows = ej.analyze(photo, predictor)
    assert len(rows) == 5 and predictor.shapes == [(5, 40, 40, 3)]
    assert all(0 <= row["x"] and row["x"] + row["width"] <= 1024 for row in rows)
