"""Rows: the contract's columns, probabilities that sum to 1, and nothing lost on the way out."""

import contextlib
import csv
import json
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.labels import EMOTIONS
from emotion_jax.rows import COLUMNS, RowWriter, make_row

CONTRACT = (
    "source,frame,time_s,face,x,y,width,height,detection_score,emotion,confidence,"
    "neutral,happiness,sadness,surprise,fear,disgust,anger,contempt"
)


def make_rows(number=3):
    rng = np.random.default_rng(number)
    face = Face(10.4, 20.6, 30.2, 40.0, 1.23456)
    rows = rng.dirichlet(np.ones(8), number).astype(np.float32)
    return [
        make_row(face, row, source='a "b", c.png', size=(100, 200), index=i)
        for i, row in enumerate(rows)
    ]


def test_columns_are_the_contract():
    assert ",".join(COLUMNS) == CONTRACT
    assert all(tuple(row) == COLUMNS for row in make_rows())


def test_probabilities_sum_to_one_exactly():
    rng = np.random.default_rng(0)
    face = Face(0, 0, 10, 10, 1.0)
    tables = [rng.dirichlet(np.full(8, a), 200) for a in (0.01, 0.3, 1, 100)]
    tables += [np.eye(8), np.full((1, 8), 1 / 8), np.full((1, 8), 0.125004)]
    for exact in np.concatenate(tables).astype(np.float32):
        row = make_row(face, exact, source="a", size=(20, 20), index=0)
        values = [row[name] for name in EMOTIONS]
        assert sum(round(value * 10**6) for value in values) == 10**6
        assert abs(sum(values) - 1) < 1e-12
        assert np.abs(np.array(values) - exact / exact.sum(dtype=np.float64)).max() < 1e-6
        assert row["confidence"] == max(values) == row[row["emotion"]]
        if np.ptp(np.sort(exact)[-2:]) > 2e-6:
            assert row["emotion"] == EMOTIONS[exact.argmax()]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_network_that_answers_no_numbers_is_named(bad):
    with pytest.raises(EmotionError, match="'a.png' is no number"):
        make_row(Face(0, 0, 1, 1, 1.0), np.full(8, bad), source="a.png", size=(9, 9), index=0)


@pytest.mark.parametrize(
    ("face", "box"),
    [
        (Face(10.4, 20.6, 30.2, 40.0, 1.0), (10, 21, 31, 40)),
        (Face(-5, -7, 20, 20, 1.0), (0, 0, 15, 13)),
        (Face(190, 90, 20, 20, 1.0), (190, 90, 10, 10)),
        (Face(-50, -50, 500, 500, 1.0), (0, 0, 200, 100)),
    ],
)
def test_boxes_are_whole_pixels_in_the_picture(face, box):
    row = make_row(face, np.full(8, 1 / 8), source="a", size=(100, 200), index=0)
    assert (row["x"], row["y"], row["width"], row["height"]) == box


def test_both_formats_hold_the_same(tmp_path):
    rows = make_rows()
    for format in ("csv", "jsonl"):
        with RowWriter(tmp_path / "new" / f"rows.{format}", format=format) as writer:
            writer.write(rows[:1])
            writer.write(rows[1:])
            writer.write([])
    text = (tmp_path / "new" / "rows.csv").read_text()
    assert text.splitlines()[0] == CONTRACT and "e-" not in text
    read = list(csv.DictReader(text.splitlines()))
    lines = (tmp_path / "new" / "rows.jsonl").read_text().splitlines()
    for row, record, line in zip(rows, read, lines, strict=True):
        assert json.loads(line) == row
        assert tuple(json.loads(line)) == COLUMNS
        assert {name: type(row[name])(record[name]) for name in COLUMNS} == row
        assert abs(sum(float(record[name]) for name in EMOTIONS) - 1) < 1e-12


def test_rows_are_on_disk_before_the_writer_closes(tmp_path):
    writer = RowWriter(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == CONTRACT + "\n"
    writer.write(make_rows(2))
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3
    writer.close()


def test_standard_output_stays_open(capsys):
    with RowWriter() as writer:
        writer.write(make_rows(1))
    print("after")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == CONTRACT and lines[2] == "after"


def test_names_that_are_no_utf8_pass_through(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    row = make_rows(1)[0] | {"source": name}
    with RowWriter(tmp_path / "rows.csv") as writer:
        writer.write([row])
    assert b"caf\xe9.jpg," in (tmp_path / "rows.csv").read_bytes()
    with RowWriter(tmp_path / "rows.jsonl", format="jsonl") as writer:
        writer.write([row])
    assert json.loads((tmp_path / "rows.jsonl").read_text())["source"] == name


def test_a_reader_that_leaves_is_no_error():
    code = """if True:
        import sys
        from emotion_jax.faces import Face
        from emotion_jax.rows import RowWriter, make_row
        row = make_row(Face(0, 0, 9, 9, 1.0), [1 / 8] * 8, source="a", size=(9, 9), index=0)
        with RowWriter() as writer:
            calls = 0
            while writer.wanted and calls < 100_000:
                writer.write([row])
                calls += 1
        sys.exit(0 if calls < 100_000 else 3)
    """
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        assert process.stdout.readline() == CONTRACT + "\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_what_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmotionError, match=r"rows.csv' cannot be written \(its path .* a file\)"):
        RowWriter(tmp_path / "file" / "rows.csv")
    with pytest.raises(EmotionError, match="'xml'.* csv or jsonl"):
        RowWriter(format="xml")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    ("path", "advice"), [("/dev/full", "another folder"), (None, "with --output")]
)
def test_a_full_disk_says_what_helps(path, advice, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(EmotionError, match=rf"\(No space .*\); make room, or .* {advice}$"):
            RowWriter(path)
        monkeypatch.undo()
        with contextlib.suppress(OSError):  # what is left in the buffer
            full.close()


def test_a_disk_that_fills_up_is_told_once_in_words(tmp_path):
    """A limit on the size of files stands in for the disk; what is left is refused again later."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = re.escape(f"'{tmp_path / 'rows.csv'}' cannot be written (File too large)")
    try:
        with pytest.raises(EmotionError, match=full), RowWriter(tmp_path / "rows.csv") as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            for row in make_rows(8) * 10:
                writer.write([row])
        writer = RowWriter(tmp_path / "rows.csv")
        for act in (lambda: writer.write(make_rows(8)), writer.close):
            with pytest.raises(EmotionError, match=full):
                act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_closed_standard_output_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(EmotionError, match="standard output is closed"):
        RowWriter()
