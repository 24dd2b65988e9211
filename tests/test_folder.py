"""Folders of faces: spellings, splits, what is skipped; and the seeded draws over any source."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from emotion_jax.config import default_config
from emotion_jax.config_check import check_config
from emotion_jax.data import open_data, selection
from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.data.builds import build
from emotion_jax.data.folder import Folder
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS

SIZE = 20


def write_faces(place, count=2, seed=0, suffix=".png"):
    """Writes pictures of noise; returns them uint8 [count, SIZE, SIZE, 3]."""
    place.mkdir(parents=True, exist_ok=True)
    faces = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    for i, face in enumerate(faces):
        Image.fromarray(face).save(place / f"{i}{suffix}")
    return faces


def read(root, split):
    examples = list(Folder(str(root), SIZE).examples(split))
    return [e["image"] for e in examples], [e["label"] for e in examples]


SPELLINGS = {
    "names": EMOTIONS,
    "common": ("Neutral", "happy", "SAD", "Surprised", "fearful", "Disgusted", "angry", "contempt"),
    "numbers": tuple("01234567"),
    "seven": tuple("0123456"),
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_the_emotions(tmp_path, names):
    expected = [write_faces(tmp_path / "train" / name, 2, i) for i, name in enumerate(names)]
    for i, name in enumerate(names):
        write_faces(tmp_path / "val" / name, 1, 100 + i)
    images, labels = read(tmp_path, "train")
    np.testing.assert_array_equal(images, np.concatenate(expected))
    assert labels == [i for i in range(len(names)) for _ in range(2)]
    assert read(tmp_path, "validation")[1] == list(range(len(names)))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Val", "TEST"])
def test_every_spelling_of_validation(tmp_path, name):
    write_faces(tmp_path / "Train" / "joy")
    faces = write_faces(tmp_path / name / "fear", seed=1)
    assert Folder(str(tmp_path)).splits() == ("train", "validation")
    images, labels = read(tmp_path, "validation")
    np.testing.assert_array_equal(images, faces)
    assert labels == [4, 4]


def test_a_test_folder_beside_validation_is_the_test_split(tmp_path):
    for name in ("train", "valid", "test"):
        write_faces(tmp_path / name / "fear")
    assert Folder(str(tmp_path)).splits() == ("train", "validation", "test")


def test_a_split_in_two_spellings_is_told(tmp_path):
    """Else one of them would be left out in silence."""
    for name in ("train", "training", "val"):
        write_faces(tmp_path / name / "fear")
    with pytest.raises(EmotionError, match="train' and '.*training' are both the train split"):
        Folder(str(tmp_path)).splits()


def test_what_cannot_be_read_is_skipped_and_counted(tmp_path, capsys):
    faces = write_faces(tmp_path / "train" / "happy", 3)
    write_faces(tmp_path / "train" / "sad" / "more" / "deep", 1, 5, ".BMP")
    write_faces(tmp_path / "val" / "2", 1)
    happy = tmp_path / "train" / "happy"
    (happy / "1.png").write_bytes((happy / "1.png").read_bytes()[:-50])
    (happy / "empty.jpg").write_bytes(b"")
    (happy / "notes.txt").write_text("")
    (happy / ".DS_Store").write_text("")
    (happy / "nothing.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(happy / "pipe.png")  # reading it would never end
    (tmp_path / "val" / "readme.txt").write_text("")  # beside the emotions: no row
    built = build(Folder(str(tmp_path), SIZE), tmp_path / "cache")
    report = json.loads((built.folder / "build_report.json").read_text())
    assert report == {
        "rows": 9,
        "kept": {"train": 3, "validation": 1},
        "dropped": {
            "unreadable picture": ["train/happy/1.png", "train/happy/empty.jpg"],
            "missing file": ["train/happy/nothing.png", "train/happy/pipe.png"],
            "no picture": ["train/happy/notes.txt"],
        },
    }
    assert "9 rows read, kept 3 train, 1 validation, dropped 5 (2 unr" in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path, "train")[0][:2], faces[[0, 2]])


@pytest.mark.parametrize("source", ["folder", "ferplus", "affectnet", "arrays"])
def test_an_empty_place_is_not_the_folder_one_stands_in(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "train" / "happiness")
    config = default_config()
    config.data.source = source
    with pytest.raises(EmotionError, match="data.dir is empty.*--config.data.dir=PATH"):
        open_data(config)


def test_a_wrong_folder_is_one_sentence(tmp_path):
    def said(name):
        with pytest.raises(EmotionError) as error:
            list(Folder(str(tmp_path / name)).examples("train"))
        with pytest.raises(EmotionError):
            Folder(str(tmp_path / name)).options()
        assert "\n" not in str(error.value)
        return str(error.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "bare" / "train").mkdir(parents=True)
    write_faces(tmp_path / "odd" / "train" / "grumpy")
    write_faces(tmp_path / "nine" / "train" / "8")
    assert said("gone").startswith(f"data.dir: '{tmp_path}/gone' is no folder")
    assert said("empty").startswith(f"data.dir: '{tmp_path}/empty' has no folder 'train'")
    assert "has no folder of an emotion" in said("bare")
    assert said("odd").startswith(f"data.dir: '{tmp_path}/odd/train/grumpy' is called by no em")
    assert "nine/train/8' is called by no emotion; name it 0..7 or one" in said("nine")


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    write_faces(tmp_path / "train" / "anger" / "mine")
    write_faces(tmp_path / "train" / "sadness")
    scandir = os.scandir

    def forbid(path):
        if os.path.basename(path) == "mine":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    # The tests may run as root, whom no folder's permissions hold back.
    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(EmotionError, match=r"anger/mine' cannot be read \(Permission denied\)"):
        Folder(str(tmp_path), SIZE).options()
    with pytest.raises(EmotionError, match="anger/mine' cannot be read"):
        read(tmp_path, "train")


def test_options_see_every_change(tmp_path):
    for name in "ab":
        write_faces(tmp_path / name / "train" / "fear")
    seen = [Folder(str(tmp_path / name), size).options() for name in "ab" for size in (20, 30)]
    os.utime(tmp_path / "a/train/fear/0.png", (1, 1))
    seen.append(Folder(str(tmp_path / "a"), 20).options())
    (tmp_path / "a/train/fear").rename(tmp_path / "a/train/anger")
    seen.append(Folder(str(tmp_path / "a"), 20).options())
    write_faces(tmp_path / "a/train/angry")  # of the same emotion
    seen.append(Folder(str(tmp_path / "a"), 20).options())
    for name in ("anger", "angry"):
        (tmp_path / "a/train" / name / "0.png").unlink()
        seen.append(Folder(str(tmp_path / "a"), 20).options())
    assert seen[-1] == Folder(str(tmp_path / "a"), 20).options()
    assert len({json.dumps(options) for options in seen}) == len(seen)


# A skewed set like AffectNet's: 36 to 1.
LABELS = np.random.default_rng(0).permutation(
    np.repeat(np.arange(8), [72, 144, 36, 18, 9, 4, 36, 4])
)


@pytest.mark.parametrize("count", [0, 1, 40, 100, 322, 323])
def test_subsets_keep_the_shares(count):
    rows = selection.stratify(LABELS, count, 3)
    assert len(rows) == len(set(rows.tolist())) == count and (np.diff(rows) > 0).all()
    exact = np.bincount(LABELS) * count / len(LABELS)
    assert (np.abs(np.bincount(LABELS[rows], minlength=8) - exact) < 1).all()
    np.testing.assert_array_equal(rows, selection.stratify(LABELS, count, 3))
    if 0 < count < len(LABELS) - 1:
        assert rows.tolist() != selection.stratify(LABELS, count, 4).tolist()


def test_caps():
    rows = selection.cap(LABELS, 18, 0)
    assert np.bincount(LABELS[rows]).tolist() == [18, 18, 18, 18, 9, 4, 18, 4]
    assert rows.tolist() != selection.cap(LABELS, 18, 1).tolist()


def test_equal_pictures_stay_together():
    # Groups of one to nine, some labelled unlike; the marks' values are of no matter.
    rng = np.random.default_rng(1)
    group = rng.integers(0, 90, len(LABELS))
    marks = rng.integers(0, 2**60, 90)
    for share in (0.1, 0.5):
        held = selection.hold_out(LABELS, marks[group], share, 0)
        for i in range(90):
            assert len(set(held[group == i].tolist())) <= 1
        assert abs(held.mean() - share) < 0.1
        np.testing.assert_array_equal(held, selection.hold_out(LABELS, marks[group], share, 0))
        assert (held != selection.hold_out(LABELS, marks[group], share, 1)).any()
    alone = selection.hold_out(LABELS, np.arange(len(LABELS)), 0.25, 0)
    assert np.bincount(LABELS[alone]).tolist() == [18, 36, 9, 4, 2, 1, 9, 1]


def test_marks_are_of_the_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    images[2] = images[0]
    a, b, c = selection.digests(images)
    assert a == c != b
    assert selection.digests(images[:, :, ::-1])[0] == selection.digests(images[:1, :, ::-1])[0]


def test_an_array_file_is_held_out_from_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, SIZE, SIZE, 3), np.uint8)
    images[40:] = images[:40]
    split = np.repeat([0, 1], [72, 8])
    labels = np.tile(np.arange(8), 10)
    save_arrays(tmp_path / "a.npz", Arrays(images, split, labels=labels))
    config = default_config()
    config.data.update(source="arrays", dir=str(tmp_path / "a.npz"), holdout=0.5)
    config.image_size = SIZE
    splits = open_data(config)
    assert splits["test"].rows.tolist() == list(range(72, 80))
    sides = [set((splits[name].rows % 40).tolist()) for name in ("train", "validation")]
    assert sides[0] | sides[1] == set(range(40)) and not sides[0] & sides[1]
    save_arrays(tmp_path / "a.npz", Arrays(images, split % 2 * 2, labels=labels))
    # Beside a test split, and with nothing to select on.
    splits = open_data(config)
    assert splits["test"].rows.tolist() == list(range(72, 80))
    sides = [set((splits[name].rows % 40).tolist()) for name in ("train", "validation")]
    assert sides[0] | sides[1] == set(range(40)) and not sides[0] & sides[1]
    assert len(splits["train"]) + len(splits["validation"]) == 72
    three = np.maximum(split, 2 * split[::-1])
    save_arrays(tmp_path / "a.npz", Arrays(images, three, labels=labels))
    with pytest.raises(EmotionError, match="data.holdout: 0.5; .* a validation and a test split"):
        open_data(config)
    save_arrays(tmp_path / "a.npz", Arrays(images, split % 2 * 2, labels=labels))
    config.data.train_votes, config.data.holdout = "distribution", 0.0
    with pytest.raises(EmotionError, match="no faces in the validation split"):
        open_data(config)


def test_a_folder_without_validation_is_held_out_from(tmp_path):
    for i, name in enumerate(EMOTIONS):
        write_faces(tmp_path / "train" / name, 4, i)
    config = default_config()
    config.data.update(source="folder", dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    config.image_size = SIZE
    with pytest.raises(EmotionError, match="no faces in the validation split"):
        open_data(config)
    config.data.holdout = 0.25
    splits = open_data(config)
    assert splits["validation"].counts().tolist() == [1] * 8 and "test" not in splits


def test_faces_that_would_be_left_out_in_silence_are_named(tmp_path):
    faces = tmp_path / "faces"
    write_faces(faces / "train" / "anger", 2)
    write_faces(tmp_path / "more", 2)
    (faces / "train" / "joy").symlink_to(tmp_path / "more")  # a whole class may lie elsewhere
    assert read(faces, "train")[1] == [1] * 2 + [6] * 2
    (faces / "train" / "anger" / "more").symlink_to(tmp_path / "more")
    for ask in (lambda: read(faces, "train"), Folder(str(faces)).options):
        with pytest.raises(EmotionError, match="anger/more' is a link to a folder"):
            ask()
    (faces / "train" / "anger" / "more").unlink()
    write_faces(faces / "fear", 1)
    with pytest.raises(EmotionError, match="fear' lies beside 'train'"):
        read(faces, "train")


def test_another_data_sets_numbers_are_not_taken_for_affectnets(tmp_path):
    for code in range(1, 8):
        write_faces(tmp_path / "train" / str(code), 1)
    with pytest.raises(EmotionError, match="1 to 7, as RAF-DB counts"):
        read(tmp_path, "train")
    write_faces(tmp_path / "val" / "0", 1)  # somebody counts from 0
    assert read(tmp_path, "train")[1] == list(range(1, 8))


def test_emotions_without_a_split_around_them_all_train(tmp_path):
    faces = write_faces(tmp_path / "Anger", 3)
    write_faces(tmp_path / "contempt", 3)
    (tmp_path / "labels.csv").write_text("no face")
    assert Folder(str(tmp_path)).splits() == ("train",)
    images, labels = read(tmp_path, "train")
    assert labels == [6] * 3 + [7] * 3
    np.testing.assert_array_equal(images[:3], faces)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("holdout", 1.0),
        ("holdout", -0.1),
        ("class_cap", -1),
        ("train_images", -1),
        ("val_images", -5),
        ("seed", -1),
        ("crop_scale", 0.0),
        ("crop_scale", 1e9),
        ("crop_shift", 2.0),
    ],
)
def test_values_that_cannot_be_meant(key, value):
    config = default_config()
    config.data[key] = value
    with pytest.raises(EmotionError, match=f"data.{key}: "):
        check_config(config)
