"""From pictures to rows, with a network that answers from the crop's mean colour."""

import csv
import json
import os

import numpy as np
import pytest

from emotion_jax import analyze, draw, faces, images
from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.labels import EMOTIONS
from emotion_jax.preprocess import ImageSpec


class FakePredictor:
    """Remembers the crops; says "fear" with 0.3 and the rest alike."""

    def __init__(self):
        self.spec = ImageSpec(size=40)
        self.shapes = []

    def __call__(self, crops, /):
        self.shapes.append(crops.shape)
        rows = np.full((len(crops), 8), 0.1, np.float32)
        rows[:, 4] = 0.3
        return rows


@pytest.fixture
def predictor():
    return FakePredictor()


@pytest.fixture
def found(monkeypatch):
    """As many faces as the picture's first pixel says."""

    def detect(image, **_):
        return [Face(10.0 * i, 20, 30, 30, 1.0) for i in range(int(image[0, 0, 0]))]

    monkeypatch.setattr(faces, "detect", detect)


def write_picture(path, number):
    image = np.full((120, 160, 3), 60, np.uint8)
    image[0, 0] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write_image(path, image)
    return str(path)


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_one_picture_one_call_all_faces(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 3)
    rows = analyze.analyze(path, predictor)
    assert predictor.shapes == [(3, 40, 40, 3)]
    assert [(row["source"], row["face"], row["x"]) for row in rows] == [
        (path, 0, 0),
        (path, 1, 10),
        (path, 2, 20),
    ]
    assert all(row["emotion"] == "fear" and row["confidence"] == 0.3 for row in rows)
    array = images.read_image(path)
    assert analyze.analyze(array, predictor, source=path) == rows
    assert analyze.analyze(array, predictor)[0]["source"] == "array"


def test_no_face_means_no_row_and_no_call(found, predictor):
    assert analyze.analyze(np.zeros((50, 50, 3), np.uint8), predictor) == []
    assert predictor.shapes == []


def test_a_folder_to_a_folder(found, predictor, tmp_path, capsys):
    for name, number in (("b.png", 2), ("a.PNG", 1), ("none.png", 0)):
        write_picture(tmp_path / "in" / name, number)
    summary = analyze.analyze_pictures([str(tmp_path / "in")], predictor, output=tmp_path / "out")
    rows = read_table(tmp_path / "out" / "predictions.csv")
    assert [(os.path.basename(row["source"]), row["face"]) for row in rows] == [
        ("a.PNG", "0"),
        ("b.png", "0"),
        ("b.png", "1"),
    ]
    assert sorted(os.listdir(tmp_path / "out")) == ["a.PNG", "b.png", "none.png", "predictions.csv"]
    source = images.read_image(tmp_path / "in" / "b.png")
    assert (images.read_image(tmp_path / "out" / "b.png") != source).any()
    out, err = capsys.readouterr()
    assert out == ""
    assert str(summary) == "3 pictures, 3 faces; no face in 1 picture"
    assert err == f"{summary}\nwritten to {tmp_path / 'out'}\n"


def test_rows_alone_go_to_standard_output(found, predictor, tmp_path, capsys):
    path = write_picture(tmp_path / "a.png", 2)
    analyze.analyze_pictures([path], predictor, format="jsonl")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["face"] for row in rows] == [0, 1]
    assert abs(sum(rows[0][name] for name in EMOTIONS) - 1) < 1e-12
    assert os.listdir(tmp_path) == ["a.png"]


def test_bad_files_among_many_are_skipped_and_named(found, predictor, tmp_path, capsys):
    write_picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    write_picture(tmp_path / "d.png", 2)
    paths = [str(tmp_path), str(tmp_path / "absent.png")]
    summary = analyze.analyze_pictures(paths, predictor, output=tmp_path / "out")
    assert (summary.pictures, summary.faces, len(summary.skipped)) == (2, 3, 3)
    assert len(read_table(tmp_path / "out" / "predictions.csv")) == 3
    err = capsys.readouterr().err
    assert "2 pictures, 3 faces; 3 skipped:" in err
    assert all(name in err for name in ("b.png", "c.png", "absent.png"))


def test_all_bad_is_an_error_and_keeps_what_was_there(predictor, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(EmotionError, match=r"^'[^']*a.png' is empty"):
        analyze.analyze_pictures([str(tmp_path / "a.png")], predictor)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("yesterday's")
    with pytest.raises(EmotionError, match="none of 2 .*x.png.*y.png"):
        paths = [str(tmp_path / "x.png"), str(tmp_path / "y.png")]
        analyze.analyze_pictures(paths, predictor, output=tmp_path / "out")
    with pytest.raises(EmotionError, match="empty"):
        analyze.analyze_pictures([str(tmp_path / "a.png")], predictor, output=tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_text() == "yesterday's"


def test_rows_written_before_a_crash_stay(found, tmp_path):
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, 1)

    class Failing(FakePredictor):
        def __call__(self, crops, /):
            if self.shapes:
                raise KeyboardInterrupt
            return super().__call__(crops)

    with pytest.raises(KeyboardInterrupt):
        analyze.analyze_pictures([str(tmp_path)], Failing(), output=tmp_path / "out")
    assert len(read_table(tmp_path / "out" / "predictions.csv")) == 1


def test_the_same_picture_twice_is_read_once(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    (tmp_path / "link.png").symlink_to(path)
    summary = analyze.analyze_pictures(
        [path, str(tmp_path), path], predictor, output=tmp_path / "o"
    )
    assert summary.pictures == 1


def test_nothing_overwrites_anything(found, predictor, tmp_path):
    for folder in ("one", "two", "out"):
        write_picture(tmp_path / folder / "a.png", 1)
    write_picture(tmp_path / "two" / "a-2.png", 1)
    sources = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    paths = [str(tmp_path / folder) for folder in ("one", "two", "out")]
    summary = analyze.analyze_pictures(paths, predictor, output=tmp_path / "out")
    assert summary.pictures == 4
    assert all(path.read_bytes() == data for path, data in sources.items())
    written = {path for path in tmp_path.rglob("*.*")} - set(sources)
    assert len(written) == 4 + 1  # the pictures and the table


def test_targets_differ_by_more_than_case(tmp_path):
    # Where the file system ignores case, out/A.png and out/a.png are one file.
    targets = analyze.choose_targets(["x/a.png", "y/A.png", "z/A.PNG"], tmp_path)
    assert len({target.casefold() for target in targets.values()}) == 3


def test_a_format_that_holds_no_photo_becomes_png(tmp_path):
    targets = analyze.choose_targets(["x/a.gif", "x/a.png", "x/b"], tmp_path)
    names = [os.path.basename(target) for target in targets.values()]
    assert names == ["a.png", "a-2.png", "b.png"]


def test_an_output_that_is_no_folder_is_refused(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    with pytest.raises(EmotionError, match="cannot be written"):
        analyze.analyze_pictures([path], predictor, output=path)


def test_blurred_faces_are_hidden_in_what_is_written(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    image[0, 0] = 1
    images.write_image(path, image)
    rows = []
    for blur in (False, True):
        analyze.analyze_pictures([path], predictor, output=tmp_path / "out", blur=blur)
        rows.append((tmp_path / "out" / "predictions.csv").read_text())
        inside = images.read_image(tmp_path / "out" / "a.png")[25:45, 15:35].reshape(-1, 3)
        assert (len(np.unique(inside, axis=0)) <= 36) is blur
    assert rows[0] == rows[1]


def test_quitting_the_window_stops(found, predictor, tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        write_picture(tmp_path / name, 1)
    shown = []
    monkeypatch.setattr(draw, "show", lambda image: shown.append(image.shape) or len(shown) < 2)
    summary = analyze.analyze_pictures([str(tmp_path)], predictor, show=True)
    assert summary.pictures == 2 and shown == [(120, 160, 3)] * 2


def test_real_photo(predictor):
    shared = os.environ.get("EMOTION_JAX_SHARED")
    if not shared:
        pytest.skip("EMOTION_JAX_SHARED is not set: no real pictures")
    photo = os.path.join(shared, "data", "scenes", "photos", "group_3.jpg")
    rows = analyze.analyze(photo, predictor)
    assert len(rows) == 5 and predictor.shapes == [(5, 40, 40, 3)]
    assert all(0 <= row["x"] and row["x"] + row["width"] <= 1024 for row in rows)
