"""The robustness benchmark's corruptions: of the picture's kind, repeatable, worse and worse."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion_jax.config import default_config
from emotion_jax.data import open_data
from emotion_jax.data.drawing.faces import draw_face

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import robustness  # noqa: E402
from corruptions import CORRUPTIONS, LEFT_EYE, RIGHT_EYE, SEVERITIES, glasses  # noqa: E402

FACE = draw_face(1, 1, 8, size=48)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_worse_with_severity_and_repeats(name, channels):
    image = FACE[..., :channels].copy()
    before, distances = image.copy(), []
    for severity in SEVERITIES:
        first, again = (
            CORRUPTIONS[name](image, severity, np.random.default_rng(3)) for _ in range(2)
        )
        assert first.dtype == np.uint8 and first.shape == image.shape
        np.testing.assert_array_equal(first, again)
        distances.append(np.abs(first.astype(float) - image).mean())
    np.testing.assert_array_equal(image, before)  # the face given stays
    assert 0.5 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", ["glasses", "reflections"])
def test_glasses_are_where_eyes_are_and_nowhere_else(name):
    image = np.full((200, 200, 1), 128, np.uint8)
    changed = CORRUPTIONS[name](image, 3, np.random.default_rng(0))[..., 0] != 128
    for x, y in (LEFT_EYE, RIGHT_EYE):
        assert changed[round(y * 200), round(x * 200)]
    assert not changed[: 200 // 5].any() and not changed[200 * 3 // 5 :].any()
    assert not glasses(image, 1, np.random.default_rng(0))[round(0.385 * 200), 64] != 128


def test_darkness_divides_light():
    image = np.full((100, 100, 3), 200, np.uint8)
    for severity, expected in ((1, 100), (2, 50), (3, 25)):
        dark = CORRUPTIONS["darkness"](image, severity, np.random.default_rng(0))
        assert abs(dark.mean() - expected) < 0.5


def test_tilt_turns_about_the_centre():
    image = np.zeros((101, 101, 1), np.uint8)
    image[48:53, 88:93] = 255  # 40 pixels to the right of the centre
    turned = CORRUPTIONS["tilt"](image, 3, np.random.default_rng(0))[..., 0]
    y, x = (np.average(axis, weights=turned) for axis in np.mgrid[:101, :101])
    assert abs(x - 50 - 40 * np.cos(np.pi / 6)) < 0.5 and abs(abs(y - 50) - 20) < 0.5


def test_the_benchmark_prints_a_table_and_leaves_json_and_a_picture(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "robustness.py"), "--faces=8"]
    done = subprocess.run([*command, f"--output={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "robustness.json").read_text())
    assert set(CORRUPTIONS) < set(results) and results["faces"] == 8
    for name in CORRUPTIONS:
        assert f"| {name} |" in done.stdout and len(results[name]) == 3
        for found in results[name]:
            lost = results["clean"]["accuracy"] - found["accuracy"]
            assert found["lost"] == pytest.approx(lost, abs=1e-6)
    assert (tmp_path / "robustness.png").read_bytes()[:4] == b"\x89PNG"
    done = subprocess.run([*command, "--only=glasses,blur"], capture_output=True, text=True)
    assert [line.split()[1] for line in done.stdout.splitlines()[4:]] == ["glasses", "blur"]
    done = subprocess.run([*command, "--only=fog"], capture_output=True, text=True)
    assert done.returncode == 2 and "no kind 'fog'; use some of glasses" in done.stderr
    done = subprocess.run([*command, "--data=none"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


@pytest.mark.parametrize("split", [{}, {"split": np.arange(200) % 2}], ids=["all train", "split"])
@pytest.mark.parametrize("what", ["labels", "votes"])
def test_the_faces_of_an_array_file_are_those_that_a_run_does_not_train_on(tmp_path, what, split):
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (200, 30, 30, 1), np.uint8)
    images[150:] = images[:50]
    known = chance.integers(0, 8, 200)
    if what == "votes":  # of some, no emotion has the majority
        known = 8 * np.eye(10, dtype=int)[chance.integers(0, 10, 200)]
        known += chance.integers(0, 3, (200, 10))
    np.savez(tmp_path / "a.npz", images=images, **{what: known}, **split)
    config = default_config()
    config.data.update(source="arrays", dir=str(tmp_path / "a.npz"))
    config.image_size = 30
    held = open_data(config)["validation"]
    found, labels = robustness.load_faces(tmp_path / "a.npz", 30, 0)
    np.testing.assert_array_equal(found, images[held.rows])
    np.testing.assert_array_equal(labels, held.labels.argmax(1))
    assert 0 < len(labels) < 200
