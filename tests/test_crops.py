"""Faces that are pictures already: a row each, whatever their size, many in a call."""

import csv
import json
import os

import numpy as np
import pytest
from false_network import FalsePredictor

from emotion_jax import images
from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.prediction import crops
from emotion_jax.rows import COLUMNS


class Brightness:
    """Says how bright each face is, as its share of "happiness"; remembers what it was given."""

    spec = ImageSpec(size=16)

    def __init__(self):
        self.counts = []

    def __call__(self, faces, /):
        assert faces.dtype == np.uint8 and faces.shape[1:] == (16, 16, 3)
        self.counts.append(len(faces))
        rows = np.zeros((len(faces), 8), np.float32)
        rows[:, 1] = faces.mean((1, 2, 3)) / 255
        rows[:, 0] = 1 - rows[:, 1]
        return rows


def write_crops(folder, count):
    for i in range(count):
        shape = 10 + i, 30 - i, 3
        images.write_image(folder / f"{i:02}.png", np.full(shape, 20 * i, np.uint8))


def test_a_row_each_in_order_and_many_in_a_call(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(crops, "BATCH", 3)
    write_crops(tmp_path / "in", 8)
    (tmp_path / "in" / "03.png").write_bytes(b"no picture")
    network = Brightness()
    paths = [str(tmp_path / "in"), str(tmp_path / "absent")]
    summary = crops.analyze_crops(paths, network, output=tmp_path / "out")
    assert network.counts == [3, 3, 1]
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert os.listdir(tmp_path / "out") == ["predictions.csv"]
    numbers = [0, 1, 2, 4, 5, 6, 7]
    for i, row in zip(numbers, rows, strict=True):
        assert row["source"] == str(tmp_path / "in" / f"{i:02}.png")
        box = [row[name] for name in ("face", "x", "y", "width", "height", "detection_score")]
        assert box == ["0", "0", "0", str(30 - i), str(10 + i), ""]
        assert abs(float(row["happiness"]) - 20 * i / 255) < 1e-5
        assert row["emotion"] == ("happiness" if i > 6 else "neutral")
    assert (summary.pictures, summary.faces, summary.faceless, len(summary.skipped)) == (7, 7, 0, 2)
    error = capsys.readouterr().err
    assert "7 pictures, 7 faces; 2 skipped:" in error
    assert "03.png" in error and "absent" in error


def test_the_answers_are_those_of_the_predictor_for_the_resized_pictures(tmp_path, capsys):
    rng, network = np.random.default_rng(0), Brightness()
    large = rng.integers(0, 256, (64, 48, 3), np.uint8)
    images.write_image(tmp_path / "a.png", large)
    crops.analyze_crops([str(tmp_path / "a.png")], network, format="jsonl")
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["detection_score"] is None
    expected = network(images.resize(large, 16, 16)[None])[0, 1]
    assert abs(row["happiness"] - expected) < 1e-6


def test_where_nothing_can_be_read_what_was_written_before_stays(tmp_path):
    (tmp_path / "predictions.csv").write_text("of before")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(EmotionError, match=r"a\.png' is no picture"):
        crops.analyze_crops([str(tmp_path / "a.png")], FalsePredictor(), output=tmp_path)
    assert (tmp_path / "predictions.csv").read_text() == "of before"


def test_no_more_is_read_than_is_wanted(tmp_path, monkeypatch):
    """`... | head`: the rows' reader has gone."""
    monkeypatch.setattr(crops, "BATCH", 2)
    write_crops(tmp_path, 10)

    class Gone(crops.RowWriter):
        def write(self, rows):
            super().write(rows)
            self.wanted = False

    monkeypatch.setattr(crops, "RowWriter", Gone)
    network = Brightness()
    assert crops.analyze_crops([str(tmp_path)], network).faces == 2
    assert network.counts == [2]
