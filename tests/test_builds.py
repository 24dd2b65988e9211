"""Builds of tiny sources: whole, once, and never one for another. The one test with TensorFlow."""

import io
import json
import lzma
import mmap
import runpy
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from emotion_jax.config import default_config
from emotion_jax.data import open_data, records
from emotion_jax.data.builds import build
from emotion_jax.data.drawn_faces import DrawnFaces
from emotion_jax.data.ferplus import FerPlus
from emotion_jax.data.threads import THREADS
from emotion_jax.errors import EmotionError

DRAWN = DrawnFaces(size=16, train_faces=24, validation_faces=8)


class Spy:
    """A source that counts how often it is asked for its faces, and may be slow or fail."""

    def __init__(self, source=DRAWN, *, pause=0.0, fail_at=None, error=None):
        self.source, self.pause, self.fail_at, self.error = source, pause, fail_at, error
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self.source, name)

    def examples(self, split):
        self.asked += 1
        for i, example in enumerate(self.source.examples(split)):
            if i == self.fail_at:
                raise self.error
            time.sleep(self.pause)
            yield example


def write_ferplus(
    folder, seed=0, usages=("Training",) * 5 + ("PublicTest",) * 3, *, break_line=None
):
    """Writes a tiny false FER+; returns pixels uint8 [N, 2304] and the votes as lists."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (len(usages), 48 * 48), np.uint8)
    votes = np.eye(10, dtype=int)[rng.integers(0, 2, len(usages))] * 10  # neutral or happiness
    faces = [f"0,{' '.join(map(str, p))},{u}" for p, u in zip(pixels, usages, strict=True)]
    if break_line:
        faces[break_line - 2] = faces[break_line - 2].replace(" ", " x", 1)
    text = "\n".join(["emotion,pixels,Usage", *faces])
    (folder / "fer2013.csv.xz").write_bytes(lzma.compress(text.encode()))
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    rows = [f"{u},,{','.join(map(str, v))}" for u, v in zip(usages, votes, strict=True)]
    (folder / "fer2013new.csv").write_text("\n".join([f"{header},unknown,NF", *rows]))
    return pixels, votes.tolist()


def face(number):
    """One of DRAWN's training faces."""
    return list(DRAWN.examples("train"))[number]["image"]


def empty_npz():
    file = io.BytesIO()
    np.savez(file)
    return file.getvalue()


def pictures(built, split, numbers=None):
    pixels = built.pixels(split)
    numbers = np.arange(len(pixels)) if numbers is None else np.asarray(numbers)
    return next(iter(pixels.stream(numbers[None])))


def test_drawn_faces_come_back_bit_by_bit_in_any_order(tmp_path):
    built = build(DRAWN, tmp_path)
    assert built.folder.parent == tmp_path and set(built.targets) == {"train", "validation"}
    for split in DRAWN.splits():
        examples = list(DRAWN.examples(split))
        images = np.array([e["image"] for e in examples])
        assert built.targets[split].tolist() == [e["label"] for e in examples]
        pixels = built.pixels(split)
        assert len(pixels) == len(images) and pixels.shape == (16, 16, 3)
        # At random, some twice, in several batches.
        rows = np.random.default_rng(1).integers(0, len(images), (7, 6))
        batches = list(pixels.stream(rows))
        assert len(batches) == 7 and all(b.dtype == np.uint8 for b in batches)
        np.testing.assert_array_equal(batches, images[rows])
        np.testing.assert_array_equal(pictures(built, split), images)


def test_a_build_is_a_data_set_of_tfds(tmp_path):
    # Read by TFDS's own reader, in order.
    built = build(DRAWN, tmp_path)
    for split in DRAWN.splits():
        read = tfds.builder_from_directory(built.folder).as_dataset(split=split)
        for got, made in zip(read.as_numpy_iterator(), DRAWN.examples(split), strict=True):
            np.testing.assert_array_equal(got["image"], made["image"])
            assert got["label"] == made["label"]


def test_a_build_of_several_files_is_read_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SHARD_BYTES", 5 * 16 * 16 * 3)
    built = build(DRAWN, tmp_path)
    assert len(list(built.folder.glob("faces-train.tfrecord-*"))) == 5
    images = np.array([example["image"] for example in DRAWN.examples("train")])
    rows = np.random.default_rng(0).integers(0, 24, (4, 10))
    np.testing.assert_array_equal(list(built.pixels("train").stream(rows)), images[rows])


@pytest.mark.parametrize("lines", [1, 3, 100])
def test_memory_is_used_again_but_never_while_it_is_held(tmp_path, monkeypatch, lines):
    """Batches travel several at a time; whoever holds one, in NumPy or JAX, keeps its pixels."""
    monkeypatch.setattr(records, "ELEMENT_BYTES", lines * 6 * 16 * 16 * 3)
    images = np.array([example["image"] for example in DRAWN.examples("train")])
    rows = np.random.default_rng(0).integers(0, 24, (40, 6))
    pixels = build(DRAWN, tmp_path).pixels("train")
    held = [(batch, jax.device_put(batch)) for batch in pixels.stream(rows)]
    np.testing.assert_array_equal([batch for batch, _ in held], images[rows])
    np.testing.assert_array_equal([on_device for _, on_device in held], images[rows])


def test_an_epoch_takes_as_much_memory_as_is_under_way(tmp_path, monkeypatch):
    pixels, made, real = build(DRAWN, tmp_path).pixels("train"), [], mmap.mmap
    monkeypatch.setattr(records, "ELEMENT_BYTES", 1)
    monkeypatch.setattr(mmap, "mmap", lambda *given: made.append(given) or real(*given))
    assert sum(1 for _ in pixels.stream(np.zeros((500, 6), int))) == 500
    # Those being read, two ahead, one in the loop, and a few on their way between them.
    assert 0 < len(made) <= THREADS + 8


def test_ferplus_comes_back_bit_by_bit(tmp_path):
    pixels, votes = write_ferplus(tmp_path / "fer")
    built = build(FerPlus(str(tmp_path / "fer")), tmp_path / "cache")
    assert {split: len(rows) for split, rows in built.targets.items()} == {
        "train": 5,
        "validation": 3,
    }
    np.testing.assert_array_equal(pictures(built, "train").reshape(5, -1), pixels[:5])
    np.testing.assert_array_equal(pictures(built, "validation").reshape(3, -1), pixels[5:])
    assert [*built.targets["train"].tolist(), *built.targets["validation"].tolist()] == votes
    assert built.targets["train"].dtype == np.uint8


def test_open_data_reads_through_the_build(tmp_path):
    pixels, votes = write_ferplus(tmp_path / "fer")
    config = default_config()
    config.data.update(source="ferplus", dir=str(tmp_path / "fer"), cache_dir=str(tmp_path / "c"))
    config.image_size = 48
    train = open_data(config)["train"]
    assert train.labels.argmax(1).tolist() == np.argmax(votes[:5], 1).tolist()
    np.testing.assert_array_equal(train.read(np.array([4, 0])).reshape(2, -1), pixels[[4, 0]])


def test_a_second_open_does_not_build_and_says_nothing(tmp_path, capfd):
    spy = Spy()
    first = build(spy, tmp_path)
    said = capfd.readouterr()
    assert said.out.splitlines() == [
        f"building drawn_faces in {first.folder} (once)",
        "built: 24 train, 8 validation",
    ]
    assert said.err == ""
    assert spy.asked == 2
    again = build(spy, tmp_path)
    assert spy.asked == 2 and again.folder == first.folder
    np.testing.assert_array_equal(again.targets["train"], first.targets["train"])
    assert capfd.readouterr() == ("", "")
    assert json.loads((first.folder / "options.json").read_text())["size"] == 16


def test_a_build_never_serves_another_source(tmp_path):
    cache = tmp_path / "cache"
    expected = {}
    for name, seed in (("a", 0), ("b", 1)):
        pixels = write_ferplus(tmp_path / name, seed)[0]
        built = build(FerPlus(str(tmp_path / name)), cache)
        expected[built.folder] = pixels[0]
        np.testing.assert_array_equal(pictures(built, "train")[0].ravel(), pixels[0])
    larger = build(FerPlus(str(tmp_path / "a"), 64), cache)
    assert larger.pixels("train").shape == (64, 64, 1)
    assert len({*expected, larger.folder}) == 3
    # The same content in another place is the same data.
    (tmp_path / "b").rename(tmp_path / "moved")
    assert build(FerPlus(str(tmp_path / "moved")), cache).folder in expected


def test_what_a_killed_build_left_is_cleaned_and_built_anew(tmp_path):
    spy = Spy(fail_at=3, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        build(spy, tmp_path)
    (folder,) = tmp_path.iterdir()
    # What else a killed process leaves: TFDS's own folder, and a file half written.
    (folder / "faces" / "incomplete.ABC_1.0.0").mkdir(parents=True)
    (folder / "faces" / "incomplete.ABC_1.0.0" / "part").write_bytes(b"half")
    (folder / "targets.tmp").write_bytes(b"half")
    built = build(Spy(), tmp_path)
    assert built.folder == folder and len(pictures(built, "train")) == 24
    assert not list(folder.rglob("*incomplete*")) and not (folder / "targets.tmp").exists()


def test_a_finished_dataset_without_targets_is_built_anew(tmp_path):
    built = build(DRAWN, tmp_path)
    (built.folder / "targets.npz").unlink()
    spy = Spy()
    assert len(build(spy, tmp_path).targets["train"]) == 24 and spy.asked == 2


def test_an_error_in_the_files_comes_out_as_it_was_said(tmp_path):
    folder, cache = tmp_path / "fer", tmp_path / "cache"
    write_ferplus(folder, break_line=4)
    with pytest.raises(EmotionError) as error:
        build(FerPlus(str(folder)), cache)
    assert str(error.value) == (
        f"{folder}/fer2013.csv.xz, line 4: 'pixels' must be 2304 numbers from 0 to 255; "
        "fetch the file anew"
    )
    assert not list(cache.rglob("targets.npz"))
    write_ferplus(folder)  # mended, it is another file and another build
    assert len(build(FerPlus(str(folder)), cache).targets["train"]) == 5


def test_an_error_before_the_first_face_comes_out_too(tmp_path):
    write_ferplus(tmp_path / "fer")
    with (tmp_path / "fer" / "fer2013new.csv").open("a") as file:
        file.write("\nTraining,,-1,0,0,0,0,0,0,0,0,0")
    with pytest.raises(EmotionError, match="fer2013new.csv, line 10: 'neutral' is '-1'; votes are"):
        build(FerPlus(str(tmp_path / "fer")), tmp_path / "cache")


@pytest.mark.parametrize("face", [0, 8])
def test_an_error_of_the_source_is_not_wrapped(tmp_path, face):
    error = EmotionError("a face is missing; draw it")
    with pytest.raises(EmotionError) as raised:
        build(Spy(fail_at=face, error=error), tmp_path)
    assert raised.value is error and str(error) == "a face is missing; draw it"
    assert not list(tmp_path.rglob("targets.npz"))
    assert len(build(DRAWN, tmp_path).targets["train"]) == 24


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmotionError) as error:
        build(DRAWN, tmp_path / "file" / "cache")
    said = str(error.value)
    assert said.startswith(f"data.cache_dir: '{tmp_path}/file/cache/drawn_faces-")
    assert said.endswith("cannot be written (Not a directory); name another folder")


def test_a_full_disk_is_told_in_one_sentence_and_built_anew(tmp_path):
    """TensorFlow has errors of its own, which are no OSError."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
from emotion_jax.data.builds import build
from emotion_jax.data.drawn_faces import DrawnFaces
from emotion_jax.errors import run
source = DrawnFaces(size=16, train_faces=24, validation_faces=8, seed=0)
raise SystemExit(run(lambda: build(source, {str(tmp_path)!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 1 and "data.cache_dir" in said[0] and "File too large" in said[0]
    assert len(build(DRAWN, tmp_path).targets["train"]) == 24


def test_what_tensorflow_says_of_a_full_disk():
    with pytest.raises(OSError, match="No space left on device"), records._system_errors():
        raise tf.errors.ResourceExhaustedError(None, None, "faces-train; no room")


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_cache(tmp_path):
    error = PermissionError(13, "Permission denied", "faces/1.png")
    with pytest.raises(EmotionError, match="^data.dir: 'faces/1.png' .*Permission denied"):
        build(Spy(fail_at=3, error=error), tmp_path)


def test_a_damaged_build_is_named(tmp_path):
    built = build(DRAWN, tmp_path)
    said = f"^the build '{built.folder}' is damaged; delete it, and it is built anew$"
    pixels, (file,) = built.pixels("train"), built.folder.glob("faces-train.tfrecord*")
    with file.open("r+b") as content:  # the last record loses its end, and the pixels' own
        content.truncate(file.stat().st_size - 100)
    np.testing.assert_array_equal(next(pixels.stream(np.array([[22]])))[0], face(22))
    for opened in (pixels, built.pixels("train")):
        with pytest.raises(EmotionError, match=said):
            list(opened.stream(np.array([[0, 22], [23, 1]])))
    file.unlink()
    with pytest.raises(EmotionError, match=said):
        built.pixels("train")
    targets = built.folder / "targets.npz"
    for content in (targets.read_bytes()[:-40], b"", empty_npz()):
        targets.write_bytes(content)
        with pytest.raises(EmotionError, match=f"^the build '{built.folder}' is damaged"):
            build(DRAWN, tmp_path)


def test_a_finished_build_opens_without_the_lock(tmp_path):
    # As in a shared cache that nobody may write.
    built = build(DRAWN, tmp_path)
    (built.folder / "lock").unlink()
    assert build(DRAWN, tmp_path).folder == built.folder
    assert not (built.folder / "lock").exists()


def test_of_several_at_once_one_builds_and_the_others_say_that_they_wait(tmp_path, capfd):
    # flock locks each open file by itself: threads stand for processes.
    spies = [Spy(pause=0.03) for _ in range(3)]
    done = []
    threads = [threading.Thread(target=lambda s=s: done.append(build(s, tmp_path))) for s in spies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(spy.asked for spy in spies) == [0, 0, 2]
    assert len({built.folder for built in done}) == 1 and len(done) == 3
    assert all(len(pictures(built, "train")) == 24 for built in done)
    said = capfd.readouterr().out
    assert said.count("building drawn_faces") == 1
    assert said.count(f"another process builds {done[0].folder}; waiting for it") == 2


def test_progress_is_shown_on_a_terminal_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for "this is a terminal"
    built = build(DRAWN, tmp_path)
    said = capfd.readouterr()
    assert "24 of 24 rows" in said.out and "8 of 8 rows" in said.out
    assert f"building drawn_faces in {built.folder} (once)" in said.out and said.err == ""
    assert "Unknown size" not in said.out and "examples" not in said.out


def test_without_tensorflow_another_way_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(EmotionError, match="needs TensorFlow Datasets .* array file"):
        runpy.run_path(records.__file__)
