"""A camera's frames to rows, pictures and films, without a window."""

import csv
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from false_films import draw_people, write_film

from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face, Finder
from emotion_jax.prediction import live
from emotion_jax.prediction.camera import Camera
from emotion_jax.prediction.recorder import free_path
from emotion_jax.rows import COLUMNS

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = 240, 480

# predict.py with a network that needs no JAX.
WITH_FAKE = """
import runpy, sys, types
import numpy as np
import emotion_jax

class Fake:
    spec = types.SimpleNamespace(size=48, crop_scale=1.1, crop_shift=0.08, align=False)
    def __call__(self, crops, /):
        return np.tile(np.float32([0, 1, 0, 0, 0, 0, 0, 0]), (len(crops), 1))

emotion_jax.load_predictor = lambda path=None: Fake()
runpy.run_path("predict.py", run_name="__main__")
"""


class Fake:
    """A network that answers "surprise"."""

    spec = SimpleNamespace(size=48, crop_scale=1.1, crop_shift=0.08, align=False)

    def __call__(self, crops, /):
        assert crops.shape[1:] == (48, 48, 3) and crops.dtype == np.uint8
        return np.tile(np.float32([0, 0, 0.4, 0.6, 0, 0, 0, 0]), (len(crops), 1))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two persons side by side, who move to the right, for half a second."""
    images = [draw_people([(0, 40 + 4 * i, 60), (1, 280 + 4 * i, 70)]) for i in range(15)]
    return write_film(tmp_path_factory.mktemp("films") / "two.mp4", images)


@pytest.fixture(scope="module")
def long_film(tmp_path_factory):
    """One person for twenty seconds: an end that no test waits for."""
    images = [draw_people([(0, 40, 60)])] * 600
    return write_film(tmp_path_factory.mktemp("films") / "long.mp4", images)


def film_frames(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(0)]


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_to_standard_output(film, capsys):
    live.watch(str(film), Fake, show=False)
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0] == ",".join(COLUMNS)
    rows = list(csv.DictReader(lines))
    assert len(rows) >= 6 and {row["face"] for row in rows} == {"1", "2"}
    for row in rows:
        assert row["source"] == str(film) and row["emotion"] == "surprise"
        x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x and x + width <= WIDTH and 0 <= y and y + height <= HEIGHT
        # The face drawn at the left is number 1, and not mirrored.
        left = (40, 280)[int(row["face"]) - 1] + 4 * int(row["frame"])
        assert left <= x + width / 2 <= left + 120
        assert float(row["time_s"]) == pytest.approx(int(row["frame"]) / 30, abs=1e-3)
    frames = [int(row["frame"]) for row in rows]
    assert frames == sorted(frames)
    labelled = len(set(frames))
    assert f"15 frames, {15 - labelled} of them dropped; 2 persons" in told.err


def test_an_output_receives_rows_and_a_film_that_fit(film, tmp_path, capsys):
    for _ in range(2):  # the second session replaces nothing of the first
        live.watch(str(film), Fake, show=False, output=tmp_path / "out")
    names = ["camera-2.mp4", "camera.mp4", "predictions-2.csv", "predictions.csv"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    told = capsys.readouterr()
    assert told.out == "" and all(str(tmp_path / "out" / name) in told.err for name in names)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    frames = film_frames(tmp_path / "out" / "camera.mp4")
    times = sorted({float(row["time_s"]) for row in rows})
    assert [time for time, _ in frames] == pytest.approx([t - times[0] for t in times], abs=2e-3)
    # The film is annotated where the rows say: the box's edge is far from the grey background.
    first = [row for row in rows if float(row["time_s"]) == times[0]]
    for row in first:
        x, y = int(row["x"]), int(row["y"]) + int(row["height"]) // 2
        assert np.abs(frames[0][1][y - 3 : y + 3, x - 2 : x + 3].astype(int) - 120).max() > 40


def test_a_camera_that_is_unplugged_leaves_all_up_to_there(tmp_path, monkeypatch, capsys):
    picture = draw_people([(0, 40, 60)])[:, :, ::-1]

    class Unplugged:
        left = 40

        def read(self):
            time.sleep(0.02)
            self.left -= 1
            return self.left >= 0, picture

        def get(self, prop):
            return 0.0

        def release(self):
            pass

    opened = functools.partial(Camera, open_capture=lambda device: Unplugged())
    monkeypatch.setattr(live, "Camera", opened)
    with pytest.raises(EmotionError, match="camera 0 gives no more pictures"):
        live.watch("0", Fake, show=False, output=tmp_path)
    rows = read_rows(tmp_path / "predictions.csv")
    assert rows[0]["source"] == "camera 0"
    assert len(film_frames(tmp_path / "camera.mp4")) == len({row["frame"] for row in rows}) > 1
    assert "written" in capsys.readouterr().err


def test_a_network_that_cannot_be_loaded_is_told(film, tmp_path):
    def load():
        raise EmotionError("no such weights")

    with pytest.raises(EmotionError, match="no such weights"):
        live.watch(str(film), load, show=False, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_display_nothing_is_begun(film, monkeypatch, tmp_path):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(EmotionError, match="no display .*--noshow"):
        live.watch(str(film), Fake, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_window_is_mirrored_but_its_text_is_not():
    probabilities = np.float32([[0, 0.9, 0.1, 0, 0, 0, 0, 0]])

    def drawn(image, x, **how):
        points = np.stack([x + np.linspace(10, 60, 68), np.linspace(70, 150, 68)], 1)
        points[:, 0] = points[:, 0] if x == 40 else 399 - (points[:, 0] - x + 40)
        face = Face(x, 60, 100, 100, 1.0, points)
        frame = live.Frame(image, 0, 0.0)
        return live._draw(frame, live.Labelled(frame, [face], [7], probabilities), **how)

    noise = np.random.default_rng(0).integers(0, 255, (240, 400, 3), np.uint8)
    there = drawn(noise, 40, mirrored=False)
    here = drawn(noise[:, ::-1], 260, mirrored=True)  # the same, seen in a mirror
    np.testing.assert_array_equal(here, there)
    blank = live.Frame(noise, 0, 0.0)
    np.testing.assert_array_equal(live._draw(blank, None, mirrored=True), noise[:, ::-1])


@pytest.mark.parametrize(("height", "given", "expected"), [(480, None, 80), (1080, None, 180)])
def test_what_is_searched_grows_not_with_the_camera(height, given, expected):
    frame = live.Frame(np.zeros((height, 8, 3), np.uint8), 0, 0.0)
    assert live._fit_finder(Finder(min_score=0.3), given, frame) == Finder(expected, 0.3)
    assert live._fit_finder(Finder(), 55.0, frame) == Finder(55.0)


def test_no_name_is_taken_twice(tmp_path):
    assert free_path(tmp_path, "camera", ".png") == str(tmp_path / "camera.png")
    (tmp_path / "camera.png").touch()
    (tmp_path / "camera-2.png").symlink_to(tmp_path / "nowhere")
    assert free_path(tmp_path, "camera", ".png") == str(tmp_path / "camera-3.png")


def start(*arguments, code=WITH_FAKE, **options):
    command = [sys.executable, "-c", code, "--camera", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes, **options)


def wait_for(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_the_film_and_the_rows_can_be_read(number, long_film, tmp_path):
    table = tmp_path / "predictions.csv"
    program = start(f"--device={long_film}", "--noshow", f"--output={tmp_path}")
    rows = 100 if number == signal.SIGKILL else 10  # a fragment of the film has two seconds
    wait_for(lambda: table.exists() and table.read_text().count("\n") > rows)
    program.send_signal(number)
    out, errors = program.communicate(timeout=30)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert program.returncode == expected and out == "" and "Traceback" not in errors
    frames = len(film_frames(tmp_path / "camera.mp4"))
    if number == signal.SIGKILL:
        assert frames > 1
    else:
        assert frames == len(read_rows(table))
        assert "frames" in errors and "error" not in errors


def test_a_reader_that_goes_ends_it(long_film):
    program = start(f"--device={long_film}", "--noshow", "--format=jsonl")
    assert program.stdout.readline().startswith("{")
    program.stdout.close()
    assert program.wait(30) == 0
    assert "Traceback" not in program.stderr.read()


def test_a_full_disk_is_one_sentence(film):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", WITH_FAKE, "--camera", "--noshow", f"--device={film}"]
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: standard output cannot be written")
