"""Array files: there and back, and every way in which one can be wrong."""

import dataclasses
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from absl.flags import FlagValues

from emotion_jax import command_line
from emotion_jax.config import default_config
from emotion_jax.data import arrays, open_data
from emotion_jax.data.arrays import Arrays, collect, load_arrays, save_arrays
from emotion_jax.data.drawn_faces import DrawnFaces
from emotion_jax.errors import EmotionError, run

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


def make(count=12, channels=3, classes=None):
    """Arrays of noise, not square, with votes where `classes` says how many."""
    return Arrays(
        images=RNG.integers(0, 256, (count, 10, 14, channels), np.uint8),
        split=RNG.integers(0, 3, count).astype(np.uint8),
        labels=None if classes else RNG.integers(0, 8, count),
        votes=RNG.integers(0, 11, (count, classes), np.uint8) if classes else None,
    )


def assert_equal(a: Arrays, b: Arrays):
    for x, y in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [None, 8, 10])
def test_there_and_back(tmp_path, classes, channels, compress):
    mine = make(channels=channels, classes=classes)
    path = tmp_path / "new folder" / "faces.npz"
    save_arrays(path, mine, compress=compress)
    assert_equal(load_arrays(path), mine)
    assert [p.name for p in path.parent.iterdir()] == ["faces.npz"]
    with np.load(path) as file:
        assert ("pictures" in file) == compress != ("images" in file)


def test_fractions_of_votes_are_kept(tmp_path):
    votes = RNG.random((12, 8), np.float32)
    save_arrays(tmp_path / "a.npz", dataclasses.replace(make(classes=8), votes=votes))
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.npz").votes, votes)


def test_without_a_split_a_tenth_of_each_class_validates(tmp_path):
    images = RNG.integers(0, 256, (80, 6, 6, 1), np.uint8)
    labels = np.repeat(np.arange(8), 10)
    # Every picture twice: neither of a pair may judge what was learnt from the other.
    np.savez(tmp_path / "a.npz", images=np.tile(images, (2, 1, 1, 1)), labels=np.tile(labels, 2))
    assert not load_arrays(tmp_path / "a.npz").split.any()
    config = default_config()
    config.data.update(source="arrays", dir=str(tmp_path / "a.npz"))
    config.image_size = 6
    splits, again = open_data(config), open_data(config)
    assert splits.keys() == {"train", "validation"}
    assert splits["validation"].counts().tolist() == [2] * 8
    assert splits["train"].counts().tolist() == [18] * 8
    assert not set(splits["train"].rows % 80) & set(splits["validation"].rows % 80)
    np.testing.assert_array_equal(splits["validation"].rows, again["validation"].rows)
    config.data.holdout = 0.5  # in its place, not beside it
    splits = open_data(config)
    assert {name: len(split) for name, split in splits.items()} == {"train": 80, "validation": 80}
    for share, words in ((0.01, "none for the validation split; use more"), (0.999, "use less")):
        config.data.holdout = share
        with pytest.raises(EmotionError, match=f"^data.holdout: {share} of 160 .*{words}"):
            open_data(config)


N = 4
GOOD = {
    "images": np.zeros((N, 6, 6, 1), np.uint8),
    "labels": np.arange(N),
    "split": np.array([0, 0, 1, 2]),
}
PACKED = {"pictures": np.zeros(9, np.uint8), "offsets": np.array([0, 2, 4, 6, 9])}
VOTES = np.ones((N, 8), np.float32)


def nan(votes):
    return np.where(np.eye(N, votes.shape[1]), np.nan, votes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": None}, ["no array 'images'", "labels, split"]),
        ({"images": None, "pictures": PACKED["pictures"]}, ["'offsets'"]),
        ({"labels": None}, ["either 'labels' or 'votes'", "images, split"]),
        ({"votes": VOTES}, ["either 'labels' or 'votes'", "votes"]),
        ({"images": GOOD["images"].astype(np.float32)}, ["images must be uint8", "float32"]),
        ({"images": GOOD["images"][..., 0]}, ["images must be", "[4, 6, 6]"]),
        ({"images": np.zeros((N, 6, 6, 4), np.uint8)}, ["images must be", "[4, 6, 6, 4]"]),
        ({"images": np.zeros((N, 0, 6, 1), np.uint8)}, ["images must be", "[4, 0, 6, 1]"]),
        ({"images": np.zeros((0, 6, 6, 1), np.uint8)}, ["images must be", "[0, 6, 6, 1]"]),
        ({"images": np.uint8(3), "split": None}, ["images must be", "uint8 []"]),
        ({"images": np.array([{}] * N)}, ["plain arrays", "allow_pickle"]),
        ({"labels": np.arange(N + 1)}, ["labels must be [4]", "[5]"]),
        ({"labels": np.arange(N) + 5}, ["labels must be", "0 (neutral) to 7 (contempt)", "to 8"]),
        ({"labels": np.arange(N) - 1}, ["labels must be", "from -1"]),
        ({"labels": np.arange(N) * 1.0}, ["labels must be", "whole", "float64"]),
        ({"labels": np.array(["joy"] * N)}, ["labels must be", "whole"]),
        ({"labels": np.eye(N, dtype=int)}, ["labels must be [4]", "[4, 4]"]),
        ({"split": np.array([0, 0, 1, 3])}, ["split must be", "2 (test)", "to 3"]),
        ({"split": np.array([0, 0, 1, -1])}, ["split must be", "from -1"]),
        ({"split": np.array([0, 0, 1])}, ["split must be [4]", "[3]"]),
        ({"split": np.array(["train"] * N)}, ["split must be"]),
        ({"split": np.array([0, 0, 1, np.nan])}, ["split must be", "float64"]),
        ({"labels": None, "votes": nan(VOTES)}, ["votes must be", "finite", "nan"]),
        ({"labels": None, "votes": VOTES * np.inf}, ["votes must be", "finite", "inf"]),
        ({"labels": None, "votes": -VOTES}, ["votes must be", "0 and above", "-1"]),
        ({"labels": None, "votes": VOTES[:, :7]}, ["[4, 8] or [4, 10]", "[4, 7]"]),
        ({"labels": None, "votes": VOTES[:3]}, ["[4, 8] or [4, 10]", "[3, 8]"]),
        ({"labels": None, "votes": np.full((N, 10), 0.1)}, ["counts", "[4, 10] from 0.1 to 0.1"]),
        ({"labels": None, "votes": VOTES[0]}, ["[4, 8] or [4, 10]", "[8]"]),
        ({"labels": None, "votes": VOTES.astype(str)}, ["votes must be", "<U"]),
        ({"labels": None, "votes": VOTES.astype(complex)}, ["votes must be", "complex"]),
        ({"images": None, **PACKED}, ["picture 0", "no picture"]),
        ({"images": None, **PACKED, "offsets": np.array([0, 2, 4, 6, 8])}, ["do not fit"]),
        ({"images": None, **PACKED, "offsets": np.array([1, 2, 4, 6, 9])}, ["do not fit"]),
        ({"images": None, **PACKED, "offsets": np.array([0, 4, 2, 6, 9])}, ["do not fit"]),
        ({"images": None, **PACKED, "offsets": np.array([0, 4, 4, 6, 9])}, ["do not fit"]),
        ({"images": None, **PACKED, "offsets": np.array([0, 2, 4, 6, 9.0])}, ["do not fit"]),
        ({"images": None, **PACKED, "offsets": np.array([0])}, ["do not fit"]),
        ({"images": None, **PACKED, "pictures": np.zeros(9)}, ["do not fit"]),
        ({"images": None, **PACKED, "channels": np.array(2)}, ["do not fit"]),
    ],
)
def test_arrays_that_cannot_be_meant(tmp_path, change, words):
    path = tmp_path / "faces.npz"
    np.savez(path, **GOOD)
    assert len(load_arrays(path).images) == N  # what is right passes
    content = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    np.savez(path, **content)
    assert_refused(path, words)


def assert_refused(path, words):
    with pytest.raises(EmotionError) as error:
        load_arrays(path)
    said = str(error.value)
    assert str(path) in said and "\n" not in said
    assert all(word in said for word in words), said


def test_files_that_are_no_array_files(tmp_path):
    path = tmp_path / "faces.npz"
    assert_refused(path, ["no array file", "python -m emotion_jax.data.arrays"])
    assert_refused(tmp_path, ["no array file"])
    save_arrays(path, make(), compress=True)
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:-10], whole[100:]):
        path.write_bytes(content)
        assert_refused(path, ["not a whole .npz file", "make it anew"])
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])  # one bit
    assert_refused(path, [])
    with path.open("wb") as file:
        np.save(file, GOOD["images"])
    assert_refused(path, ["not a whole .npz file"])
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"no array")
    assert_refused(path, [])


def test_packed_pictures_of_two_sizes(tmp_path):
    images = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 7, 3), np.uint8)]
    parts = [arrays._encode(image) for image in images]
    np.savez(
        tmp_path / "a.npz",
        pictures=np.frombuffer(b"".join(parts), np.uint8),
        offsets=np.cumsum([0, *map(len, parts)]),
        labels=np.arange(2),
    )
    assert_refused(tmp_path / "a.npz", ["picture 1 is 7 x 4, the first 6 x 4"])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, error):
    path, mine = tmp_path / "faces.npz", make()
    save_arrays(path, mine)

    def half(file, **content):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(EmotionError if isinstance(error, OSError) else KeyboardInterrupt) as said:
        save_arrays(path, make())
    if isinstance(error, OSError):
        assert str(said.value) == (
            f"'{path}' cannot be written (No space left on device); name another file"
        )
    assert list(tmp_path.iterdir()) == [path]
    assert_equal(load_arrays(path), mine)


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.npz", tmp_path):
        with pytest.raises(EmotionError, match="cannot be written"):
            save_arrays(path, make())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_is_as_readable_as_others(tmp_path):
    save_arrays(tmp_path / "a.npz", make())
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_collect_reads_the_source_in_its_order():
    source = DrawnFaces(size=16, train_faces=16, validation_faces=8)
    mine = collect(source)
    examples = [*source.examples("train"), *source.examples("validation")]
    np.testing.assert_array_equal(mine.images, [e["image"] for e in examples])
    assert mine.labels.tolist() == [e["label"] for e in examples] and mine.votes is None
    assert mine.split.tolist() == [0] * 16 + [1] * 8


# The command, and a list of what it imported.
COMMAND = """
import runpy, sys
try:
    runpy.run_module("emotion_jax.data.arrays", run_name="__main__", alter_sys=True)
finally:
    print("tensorflow" in sys.modules, file=sys.stderr)
"""


def test_the_command(tmp_path):
    pixels = RNG.integers(0, 256, (3, 48 * 48))
    usages = ["Training", "Training", "PublicTest"]
    faces = [f"0,{' '.join(map(str, p))},{u}" for p, u in zip(pixels, usages, strict=True)]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *faces]))
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    votes = [f"{usage},,0,9,1,0,0,0,0,0,0,0" for usage in usages]
    (tmp_path / "fer2013new.csv").write_text("\n".join([f"{header},unknown,NF", *votes]))
    path = tmp_path / "out" / "ferplus.npz"
    given = ["--config=configs/ferplus_narrow.py", f"--config.data.dir={tmp_path}", "--compress"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *given, f"--output={path}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {path}: 2 train, 1 validation\n"
    assert done.stderr == "False\n"  # TensorFlow stayed away
    mine = load_arrays(path)
    np.testing.assert_array_equal(mine.images.reshape(3, -1), pixels)
    assert mine.votes.tolist() == [[0, 9, 0, 1, 0, 0, 0, 0, 0, 0]] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/quickstart.py"], ["--output=FILE.npz"]),
        (["--output=a.npz"], ["--config"]),
        (
            ["--config=configs/ferplus_narrow.py", "--config.data.dir=nowhere", "--output=a.npz"],
            ["data.dir", "'nowhere'", "fer2013.csv"],
        ),
        (
            ["--config=configs/quickstart.py", "--config.data.source=arrays", "--output=a.npz"],
            ["data.source", "is an array file already"],
        ),
    ],
)
def test_errors_of_the_command(monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command_line, "FLAGS", FlagValues())  # as in a process of its own
    monkeypatch.setattr(sys, "argv", ["arrays", *arguments])
    assert run(arrays.main) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert all(word in said.err for word in words), said.err
    assert not (ROOT / "a.npz").exists()
