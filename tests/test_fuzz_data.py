"""Damaged data sets: every row is kept or dropped for a reason, or the file is refused."""

import io
import json
import lzma
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from false_affectnet import COLUMNS
from false_pictures import make_face
from fuzzing import damaged, table
from hypothesis import given

from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.image_spec import CROP_SCALES, CROP_SHIFTS
from emotion_jax.labels import FERPLUS_COLUMNS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# Of any csv: what spreadsheets, cut downloads and other people leave behind.
CELLS = (
    st.sampled_from(
        ["", " ", "NULL", '"', '"a', "\0", "1e999", "nan", "-1", "9" * 5000, "a\r", "٣", "²"]
    )
    | st.integers().map(str)
    | st.text(max_size=20)
)


AFFECTNET_ROW = ["1/a.png", "1", "2", "30", "30", ";".join(["1"] * 136), "3", "0.5", "0.5"]


@given(data=st.data())
def test_affectnet_csv(child, folder, data):
    rows = [COLUMNS.split(",")] + [AFFECTNET_ROW] * 3
    content = data.draw(spoilt_tables(rows))
    (folder / "training.csv").write_bytes(content)
    child("read_affectnet_csv", folder / "training.csv")


# Of boxes in pictures of up to 90 pixels, and of what tables hold instead.
NEAR = st.floats(-20, 110) | st.integers(-20, 110).map(float)
ANY = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 5e-324, 2.0**63])


@given(
    box=st.lists(NEAR, min_size=4, max_size=4) | st.lists(NEAR | ANY, min_size=4, max_size=4),
    scale=st.floats(*CROP_SCALES),
    shift=st.floats(*CROP_SHIFTS),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_boxes(child, folder, box, scale, shift, shape):
    place = folder / "box.json"
    place.write_text(json.dumps({"box": box, "scale": scale, "shift": shift, "shape": shape}))
    child("crop_box", place)


@st.composite
def spoilt_tables(draw, rows):
    """A csv file of which cells are changed, and then perhaps bytes."""
    rows = [list(row) for row in rows]
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        row[draw(st.integers(0, len(row) - 1))] = draw(CELLS)
    content = table(rows)
    return draw(damaged(content, head=600)) if draw(st.booleans()) else content


PIXELS = " ".join(["7"] * 48 * 48)
FACES = [["emotion", "pixels", "Usage"]] + [["0", PIXELS, "Training"]] * 2
VOTES = [["Usage", "Image name", *FERPLUS_COLUMNS[:-1], "NF"]] + [
    ["Training", "a.png", *["1"] * 10]
] * 2


@given(
    faces=spoilt_tables(FACES) | st.just(table(FACES)),
    votes=spoilt_tables(VOTES) | st.just(table(VOTES)),
    packed=st.sampled_from([None, lzma.FORMAT_XZ, lzma.FORMAT_ALONE]),
    data=st.data(),
)
def test_ferplus(child, folder, faces, votes, packed, data):
    place = folder / "ferplus"
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    if packed is None:
        (place / "fer2013.csv").write_bytes(faces)
    else:
        content = lzma.compress(faces, packed)
        content = data.draw(damaged(content, head=40)) if data.draw(st.booleans()) else content
        (place / "fer2013.csv.xz").write_bytes(content)
    (place / "fer2013new.csv").write_bytes(votes)
    child("read_ferplus", place)


def npy(array):
    data = io.BytesIO()
    np.lib.format.write_array(data, np.asarray(array))
    return data.getvalue()


def header(descr, shape, order=False):
    """An npy file that claims what it likes."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


CLAIMS = st.builds(
    header,
    st.sampled_from(
        ["'<f8'", "'|u1'", "'<U3'", "'<U99999999'", "'|O'", "'|V0'", "'<U0'", "'<M8[ns]'", "'|S1'"]
        + [
            "[('a', '<f8')]",
            "[('a', '|O')]",
            "('<f8', (3,))",
            "('<f8', (99999, 99999))",
            "'|b1'",
            "'<c16'",
            "'x'",
            "(" * 300,
            "-1",
            "'<i8'",
        ]
    ),
    st.sampled_from(
        [
            "()",
            "(1,)",
            "(0,)",
            "(2, 0, 3)",
            "(-1,)",
            "(-1, -1)",
            "(99999999999,)",
            "(2**62,)",
            "(4611686018427387904, 4)",
            "(1, 2, 3, 3)",
            "None",
            "(1.5,)",
            "(10**9,)",
            "(True,)",
        ]
    ),
    st.booleans(),
)
NPY = st.sampled_from([npy("3"), npy(["3"]), npy(0.5), npy(3)])


@given(content=NPY.flatmap(damaged) | st.builds(bytes.__add__, CLAIMS, st.binary(max_size=64)))
def test_npy(child, folder, content):
    (folder / "1_exp.npy").write_bytes(content)
    child("read_npy", folder / "1_exp.npy")


IMAGES = np.stack([make_face(i) for i in range(3)])
ANY_ARRAYS = st.sampled_from(
    [
        np.zeros((3, 8), np.float32),
        np.full((3, 8), np.nan),
        np.arange(3),
        np.arange(3) > 0,
        np.array(3.0),
        np.array(1.0),
        np.array(True),
        np.array(1 + 0j),
        np.array("3"),
        np.array(["a", "b", "c"]),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros((3, 4, 4, 2), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros(0),
        np.array([0, 5, 10], np.uint64),
        np.array([0, -5, 10]),
        np.zeros(3, "M8[s]"),
        np.zeros(3, [("a", "f4")]),
    ]
).map(npy)
NAMES = ("images", "pictures", "offsets", "channels", "labels", "votes", "split")


@pytest.fixture(scope="module")
def good(folder):
    """The members of array files of both kinds."""
    members = []
    for compress in (False, True):
        save_arrays(
            folder / "good.npz",
            Arrays(IMAGES, np.arange(3), labels=np.arange(3)),
            compress=compress,
        )
        with zipfile.ZipFile(folder / "good.npz") as file:
            members.append({name: file.read(name) for name in file.namelist()})
    return lambda packed: members[packed]


@given(data=st.data())
def test_array_files(child, folder, good, data):
    members = dict(good(data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(0, 3))):
        name = data.draw(st.sampled_from(NAMES)) + data.draw(
            st.sampled_from([".npy", ".npy", ".npy", ""])
        )
        what = [ANY_ARRAYS, CLAIMS, st.binary(max_size=20), st.none()]
        if members.get(name) is not None:  # it may have been taken away
            what.append(damaged(members[name]))
        members[name] = data.draw(st.one_of(what))
    packed = io.BytesIO()
    kind = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(packed, "w", kind) as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(name, content)
    content = packed.getvalue()
    if data.draw(st.booleans()):
        content = data.draw(damaged(content))
    (folder / "faces.npz").write_bytes(content)
    child("read_arrays", folder / "faces.npz")
