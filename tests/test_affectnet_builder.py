"""AffectNet as an ordinary TFDS data set."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from false_affectnet import write_flawed_csv, write_plain_csv
from tensorflow_datasets.core import shuffle

from emotion_jax.data import affectnet_builder  # registers "affectnet"
from emotion_jax.data.affectnet import AffectNet
from emotion_jax.errors import EmotionError


def make_builder(name, folder, data_dir):
    builder = tfds.builder(name, data_dir=str(data_dir))
    config = tfds.download.DownloadConfig(manual_dir=str(folder))
    builder.download_and_prepare(download_config=config)
    return builder


@pytest.mark.parametrize("size", [64, 224])
def test_it_builds_and_loads_by_name(tmp_path, size):
    known = write_flawed_csv(tmp_path / "a")
    builder = make_builder(f"affectnet/{size}", tmp_path / "a", tmp_path / "built")
    assert json.loads((builder.data_path / "build_report.json").read_text()) == known.report()
    faces = tfds.load(f"affectnet/{size}", split="train", data_dir=str(tmp_path / "built"))
    source = AffectNet(str(tmp_path / "a"), size)
    for face, expected in zip(faces.as_numpy_iterator(), source.examples("train"), strict=True):
        np.testing.assert_array_equal(face["image"], expected["image"])
        for name in ("label", "valence", "arousal"):
            assert face[name] == expected[name]
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == known.report()["kept"]


def test_more_than_fits_into_memory_is_sorted_through_many_files(tmp_path, monkeypatch):
    write_flawed_csv(tmp_path / "a")
    files, number = set(), shuffle.get_bucket_number

    def spy(**words):
        files.add(number(**words))
        return number(**words)

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    monkeypatch.setattr(shuffle, "get_bucket_number", spy)
    # As if each face were 16,384.
    monkeypatch.setattr(affectnet_builder, "_KEY_SHIFT", affectnet_builder._KEY_SHIFT + 14)
    builder = make_builder("affectnet/64", tmp_path / "a", tmp_path / "built")
    faces = builder.as_dataset(split="train").as_numpy_iterator()
    expected = AffectNet(str(tmp_path / "a"), 64).examples("train")
    for face, one in zip(faces, expected, strict=True):
        np.testing.assert_array_equal(face["image"], one["image"])
    assert len(files) > 10


def test_another_folder_is_not_served_the_first_one_s_faces(tmp_path):
    for name in ("a", "b"):
        write_plain_csv(tmp_path / name, train=3, validation=1)
    builder = make_builder("affectnet/64", tmp_path / "a", tmp_path / "built")
    again = make_builder("affectnet/64", tmp_path / "a", tmp_path / "built")
    assert again.info.splits["train"].num_examples == 3
    with pytest.raises(EmotionError, match="was built of another folder.*--overwrite"):
        make_builder("affectnet/64", tmp_path / "b", tmp_path / "built")
    write_plain_csv(tmp_path / "a", train=5, validation=1)
    with pytest.raises(EmotionError, match=rf"before the lists of '{tmp_path}/a' changed"):
        make_builder("affectnet/64", tmp_path / "a", tmp_path / "built")
    builder.data_path.rmtree()  # as --overwrite does
    anew = make_builder("affectnet/64", tmp_path / "a", tmp_path / "built")
    assert anew.info.splits["train"].num_examples == 5


def test_the_command_line_builds_it(tmp_path):
    """As README has it, in a process of its own."""
    pytest.importorskip("apache_beam", reason="the tfds extra is not installed: no tfds build")
    known = write_plain_csv(tmp_path / "a", train=3, validation=1)
    command = [Path(sys.executable).with_name("tfds"), "build", "affectnet"]
    command += ["--imports=emotion_jax.data.affectnet_builder", f"--manual_dir={tmp_path}/a"]
    command += [f"--data_dir={tmp_path}/built", "--config=64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = next((tmp_path / "built" / "affectnet" / "64").glob("*/build_report.json"))
    assert json.loads(report.read_text()) == known.report()


def test_a_missing_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(AssertionError, match="AffectNet is licensed: ask its authors"):
        make_builder("affectnet/64", tmp_path / "gone", tmp_path / "built")
