"""Properties of AffectNet's rows: the answer is drawn first, then a row that spells it."""

import csv
import io
import math
import re
from functools import partial

import hypothesis.strategies as st
import pytest
from false_affectnet import write_flawed_csv, write_npy
from hypothesis import HealthCheck, example, given, settings

from emotion_jax.data.affectnet import AffectNet
from emotion_jax.data.affectnet_rows import BOX, COLUMNS, csv_rows, parse_expression, parse_number
from emotion_jax.data.builds import build
from emotion_jax.data.tally import DroppedError

# A file is written for each example: the folder is shared, the time is the disk's.
FILES = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NAMES = st.text("abcXYZ019_-é ", min_size=1, max_size=8).filter(lambda name: name.strip() == name)
PATHS = st.builds("{}/{}.{}".format, NAMES, NAMES, st.sampled_from(["jpg", "JPG", "png", "Tiff"]))
SIDES = st.floats(0.001, 1e6)
PLACES = st.floats(-1e6, 1e6)
# What people's lists hold in place of numbers.
NOTHING = st.sampled_from(
    ["", "NULL", "nan", "inf", "-Infinity", "None", "x", "1,5", "--", "1e999"]
)
OUT = st.sampled_from(
    ["../{}", "/{}", "a/../../{}", "C:/{}", "..\\{}", "\\\\host\\{}", "a/b/../../../{}"]
)


def spellings(number):
    """Ways to write a number down."""
    return st.sampled_from([f"{number!r}", f" {number!r}", f"{number!r}\t", f"{number:+.17g}"])


@st.composite
def answers(draw):
    """What must become of a row (a code, or a reason to drop it), and its cells."""
    path = draw(PATHS)
    box = [draw(PLACES), draw(PLACES), draw(SIDES), draw(SIDES)]
    kinds = ["kept"] * 6 + ["none", "uncertain", "no face", "bad expression", "no box", "empty box"]
    kind = draw(st.sampled_from([*kinds, "path out of the folder", "damaged row"]))
    code = draw(st.integers(0, 7))
    if kind in ("none", "uncertain", "no face"):
        code = {"none": 8, "uncertain": 9, "no face": 10}[kind]
    expression = draw(spellings(code) | spellings(float(code)))
    if kind == "bad expression":
        odd = st.integers(11, 10**9) | st.integers(-(10**9), -1) | st.just(2.5)
        expression = draw(NOTHING | odd.map(str))
    cells = [draw(spellings(x)) for x in box]
    if kind == "no box":
        cells[draw(st.integers(0, 3))] = draw(NOTHING)
    if kind == "empty box":
        cells[draw(st.integers(2, 3))] = draw(st.just("0") | st.floats(-1e6, 0).map(str))
    if kind == "path out of the folder":
        path = draw(OUT).format(path)
    row = [path, *cells, "1.5;2.5", expression, draw(NOTHING | spellings(0.5)), "0.5"]
    if kind == "damaged row":
        row = row[: draw(st.integers(2, len(row) - 1))]
    return kind, code, path, box, row


def written(rows, header, end, quoting, mark):
    text = io.StringIO()
    table = csv.writer(text, lineterminator=end, quoting=quoting)
    table.writerows(([COLUMNS] if header else []) + rows)
    return ("\ufeff" * mark + text.getvalue()).encode()


@FILES
@given(
    st.lists(answers(), max_size=12),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
def test_every_row_meets_its_known_fate(tmp_path, drawn, header, end, quoting, mark):
    path, seen = tmp_path / "training.csv", set()
    path.write_bytes(written([row for *_, row in drawn], header, end, quoting, mark))
    for row, (kind, code, listed, box, _) in zip(csv_rows(path), drawn, strict=True):
        if kind == "kept" and listed in seen:
            kind = "duplicate"
        assert row.flaw == ("" if kind == "kept" else kind), row
        assert row.name == listed
        if kind == "kept":
            seen.add(listed)
            assert row.path == listed and parse_expression(row.fields["expression"]) == code
            assert [float(row.fields[name]) for name in BOX] == pytest.approx(box, rel=1e-15)


@FILES
@given(st.text(max_size=400))
@example('"')
@example("a,b\n\x00\n\r\r\n")
@example(",".join(COLUMNS) + "\n\ufeff" + ",".join(COLUMNS))
def test_every_line_that_holds_anything_is_one_row(tmp_path, text):
    path = tmp_path / "training.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    lines = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    count = sum(bool(line.strip()) for line in lines) - (COLUMNS[0] in lines[0])
    rows = list(csv_rows(path))
    assert len(rows) == count
    # Nothing of this is a face, save by the wildest chance.
    assert all(row.name and (row.flaw or row.path) for row in rows)


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_a_number_is_finite_or_none_at_all(text):
    value = parse_number(text)
    assert math.isnan(value) or math.isfinite(value)
    try:
        assert parse_expression(text) in range(8)
    except DroppedError as reason:
        assert str(reason) in {"none", "uncertain", "no face", "bad expression"}


@pytest.mark.parametrize("write", [write_flawed_csv, partial(write_npy, flaws=True)])
def test_progress_is_of_the_rows_that_are_read(write, tmp_path, monkeypatch, capfd):
    """Not of those kept, which are fewer: the bar would never be full."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    known = write(tmp_path / "a")
    source = AffectNet(str(tmp_path / "a"), 64)
    for split in source.splits():
        rows = sum(answer.split == split for answer in known.answers)
        assert abs(source.rows(split) - rows) <= 3  # a header, empty lines, no annotation
    build(source, tmp_path / "built")
    rows = sum(answer.split == "train" for answer in known.answers)
    assert rows > len(known.kept("train"))
    assert f"{rows} of {rows} rows" in capfd.readouterr().out
