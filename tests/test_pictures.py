"""Many pictures to a table: what is written where, what is skipped, what survives."""

import csv
import json
import os

import numpy as np
import pytest
from false_network import FalsePredictor, write_picture

from emotion_jax import images
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS
from emotion_jax.prediction import pictures, window


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_folder_to_a_folder(found, predictor, tmp_path, capsys):
    for name, number in (("b.png", 2), ("a.PNG", 1), ("none.png", 0)):
        write_picture(tmp_path / "in" / name, number)
    summary = pictures.analyze_pictures([str(tmp_path / "in")], predictor, output=tmp_path / "out")
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
    pictures.analyze_pictures([path], predictor, format="jsonl")
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
    summary = pictures.analyze_pictures(paths, predictor, output=tmp_path / "out")
    assert (summary.pictures, summary.faces, len(summary.skipped)) == (2, 3, 3)
    assert len(read_table(tmp_path / "out" / "predictions.csv")) == 3
    err = capsys.readouterr().err
    assert "2 pictures, 3 faces; 3 skipped:" in err
    assert all(name in err for name in ("b.png", "c.png", "absent.png"))


def test_all_bad_is_an_error_and_keeps_what_was_there(predictor, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(EmotionError, match=r"^'[^']*a.png' is empty"):
        pictures.analyze_pictures([str(tmp_path / "a.png")], predictor)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("yesterday's")
    with pytest.raises(EmotionError, match="none of 2 .*x.png.*y.png"):
        paths = [str(tmp_path / "x.png"), str(tmp_path / "y.png")]
        pictures.analyze_pictures(paths, predictor, output=tmp_path / "out")
    with pytest.raises(EmotionError, match="empty"):
        pictures.analyze_pictures([str(tmp_path / "a.png")], predictor, output=tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_text() == "yesterday's"


def test_rows_written_before_a_crash_stay(found, tmp_path):
    for name in "abcdefghijklmnop":
        write_picture(tmp_path / f"{name}.png", 1)

    class Failing(FalsePredictor):
        def __call__(self, crops, /):
            if len(self.shapes) == 5:
                raise KeyboardInterrupt
            return super().__call__(crops)

    with pytest.raises(KeyboardInterrupt):
        pictures.analyze_pictures([str(tmp_path)], Failing(), output=tmp_path / "out")
    assert len(read_table(tmp_path / "out" / "predictions.csv")) == 5


def test_the_same_picture_twice_is_read_once(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    (tmp_path / "link.png").symlink_to(path)
    summary = pictures.analyze_pictures(
        [path, str(tmp_path), path], predictor, output=tmp_path / "o"
    )
    assert summary.pictures == 1


def test_nothing_overwrites_anything(found, predictor, tmp_path):
    for folder in ("one", "two", "out"):
        write_picture(tmp_path / folder / "a.png", 1)
    write_picture(tmp_path / "two" / "a-2.png", 1)
    sources = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    paths = [str(tmp_path / folder) for folder in ("one", "two", "out")]
    summary = pictures.analyze_pictures(paths, predictor, output=tmp_path / "out")
    assert summary.pictures == 4
    assert all(path.read_bytes() == data for path, data in sources.items())
    written = {path for path in tmp_path.rglob("*.*")} - set(sources)
    assert len(written) == 4 + 1  # the pictures and the table


def test_what_is_no_file_is_skipped_and_named(found, predictor, tmp_path, capsys):
    write_picture(tmp_path / "a.png", 1)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "absent.jpg")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path, tmp_path / "*"):
        summary = pictures.analyze_pictures([str(path)], predictor)
        assert (summary.pictures, len(summary.skipped)) == (1, 2)
        assert "pipe.png" in summary.skipped[1] and "nowhere.jpg" in summary.skipped[0]


def test_an_output_that_is_no_folder_is_refused(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    with pytest.raises(EmotionError, match="cannot be written"):
        pictures.analyze_pictures([path], predictor, output=path)


def test_blurred_faces_are_hidden_in_what_is_written(found, predictor, tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    image[0, 0] = 1
    images.write_image(path, image)
    rows = []
    for blur in (False, True):
        pictures.analyze_pictures([path], predictor, output=tmp_path / "out", blur=blur)
        rows.append((tmp_path / "out" / "predictions.csv").read_text())
        inside = images.read_image(tmp_path / "out" / "a.png")[25:45, 15:35].reshape(-1, 3)
        assert (len(np.unique(inside, axis=0)) <= 36) is blur
    assert rows[0] == rows[1]


def test_quitting_the_window_stops(found, predictor, tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        write_picture(tmp_path / name, 1)
    shown = []
    monkeypatch.setattr(window, "show", lambda image: shown.append(image.shape) or len(shown) < 2)
    summary = pictures.analyze_pictures([str(tmp_path)], predictor, show=True)
    assert summary.pictures == 2 and shown == [(120, 160, 3)] * 2
