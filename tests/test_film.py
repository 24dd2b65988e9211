"""From a film to rows, an annotated film and a timeline: drawn people, on paths that are known."""

import csv
import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from false_films import draw_people, shades, sound_packets, write_film

from emotion_jax import faces, images
from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.image_spec import ImageSpec
from emotion_jax.labels import EMOTIONS
from emotion_jax.prediction import film
from emotion_jax.prediction.film import analyze_film, choose_min_face
from emotion_jax.rows import COLUMNS
from emotion_jax.video import FilmReader

ROOT = Path(__file__).parents[1]
# What dlib's detector makes of a drawn face of 120 pixels: a box of 104, 9 right and 17 below.
BOX, SHIFT = 104, (9, 17)


class Glad:
    """A network that answers from the frame alone: ever gladder, the rest neutral."""

    spec = ImageSpec(size=40)

    def __init__(self):
        self.calls = 0

    def __call__(self, crops, /):
        self.calls += 1
        rows = np.zeros((len(crops), 8), np.float32)
        rows[:, 1] = min(1.0, self.calls / 50)
        rows[:, 0] = 1 - rows[:, 1]
        return rows


def read_rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def read(path):
    return list(FilmReader(path).frames())


def walk(count, *, step=4):
    return [draw_people([(1, 20 + step * i, 60)]) for i in range(count)]


def test_a_walker_to_a_folder(tmp_path, capsys):
    times = np.cumsum([0, *np.random.default_rng(0).uniform(0.02, 0.08, 39)])
    source = write_film(tmp_path / "walk.mp4", walk(40), times=times, sound="aac")
    summary = analyze_film(source, Glad(), output=tmp_path / "out", smoothing=0)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["frame"]) for row in rows] == list(range(40))
    assert {row["face"] for row in rows} == {"1"} and {row["source"] for row in rows} == {
        str(source)
    }
    np.testing.assert_allclose([float(row["time_s"]) for row in rows], times, atol=1e-3)
    for i, row in enumerate(rows):
        x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
        assert abs(x + width / 2 - (20 + 4 * i + SHIFT[0] + BOX / 2)) < 16
        assert abs(y + height / 2 - (60 + SHIFT[1] + BOX / 2)) < 16
        assert 0 <= x and x + width <= 480 and 0 <= y and y + height <= 240
        assert sum(round(1e6 * float(row[name])) for name in EMOTIONS) == 1_000_000
        assert float(row["happiness"]) == pytest.approx((i + 1) / 50, abs=2e-6)
    annotated = tmp_path / "out" / "walk.mp4"
    frames = read(annotated)
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=1e-3)
    for frame, before in zip(frames, read(source), strict=True):
        changed = np.abs(frame.image.astype(int) - before.image).max(axis=2) > 60
        assert 300 < changed.sum() < 40_000  # something is drawn, and not everywhere
    assert sound_packets(annotated) == sound_packets(source)
    assert images.read_image(tmp_path / "out" / "timeline.png").shape[2] == 3
    assert sorted(os.listdir(tmp_path / "out")) == ["predictions.csv", "timeline.png", "walk.mp4"]
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("40 frames, 40 faces of 1 person\n")
    assert err.splitlines()[1:] == [f"written: {path}" for path in summary.written]


def test_one_leaves_and_returns_the_other_stays(tmp_path):
    def spots(i):
        others = [] if 15 <= i < 30 else [(1, 20, 60)]
        return [*others, (3, 300, 60)]

    source = write_film(tmp_path / "a.mp4", [draw_people(spots(i)) for i in range(40)])
    summary = analyze_film(source, Glad(), output=tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    for row in rows:
        assert row["face"] == ("1" if int(row["x"]) < 200 else "2")
    assert (summary.people, summary.faces) == (2, 40 + 25)


def test_many_faces(tmp_path):
    spots = [(2 * i + 1, 10 + 125 * (i % 5), 5 + 125 * (i // 5)) for i in range(10)]
    picture = draw_people(spots, height=256, width=640)
    source = write_film(tmp_path / "a.mp4", [picture] * 6)
    summary = analyze_film(source, Glad(), output=tmp_path / "out")
    assert summary.people >= 8 and summary.faces == 6 * summary.people


def test_no_face(tmp_path, capsys):
    source = write_film(tmp_path / "a.mp4", shades(20, 96, 128))
    summary = analyze_film(source, Glad(), output=tmp_path / "out", format="jsonl")
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == ""
    assert len(read(tmp_path / "out" / "a.mp4")) == 20
    assert len(summary.written) == 2 and not (tmp_path / "out" / "timeline.png").exists()
    assert capsys.readouterr().err.startswith("20 frames, 0 faces\n")


def test_rows_alone_go_to_standard_output(tmp_path, capsys):
    source = write_film(tmp_path / "a.mp4", walk(9))
    analyze_film(source, Glad(), format="jsonl", every=4)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["frame"], row["time_s"]) for row in rows] == [(0, 0.0), (4, 0.133), (8, 0.267)]
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_part_keeps_its_times_and_its_sound(tmp_path):
    source = write_film(tmp_path / "a.mp4", walk(75, step=2), sound="aac")
    analyze_film(source, Glad(), output=tmp_path / "out", start=1.0, end=2.0, every=3)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [int(row["frame"]) for row in rows] == list(range(30, 60, 3))
    assert float(rows[0]["time_s"]) == 1.0
    annotated = read(tmp_path / "out" / "a.mp4")
    np.testing.assert_allclose([f.time_s for f in annotated], np.arange(10) / 10, atol=1e-3)
    heard = sound_packets(tmp_path / "out" / "a.mp4")
    assert heard[0][1] in dict((data, 0) for _, data in sound_packets(source))
    assert heard[-1][0] < 1.0


def test_smoothing_calms(tmp_path):
    class Wavering(Glad):
        def __call__(self, crops, /):
            super().__call__(crops)
            return np.eye(8, dtype=np.float32)[[self.calls % 2] * len(crops)]

    source = write_film(tmp_path / "a.mp4", walk(20, step=1))
    changes = []
    for smoothing in (0, 0.5):
        analyze_film(source, Wavering(), output=tmp_path / "out", smoothing=smoothing)
        rows = read_rows(tmp_path / "out" / "predictions.csv")
        changes.append(np.abs(np.diff([float(row["happiness"]) for row in rows])).mean())
    assert changes[0] == 1 and changes[1] < 0.1


def test_hidden_faces_cannot_be_found_nor_read(tmp_path, monkeypatch):
    """Not even where the detector misses them for some frames, before, between and after."""
    source = write_film(tmp_path / "a.mp4", walk(30, step=1))
    detect, seen = faces.detect, iter(range(99))
    blind = {*range(6), 12, 13, 14, 25, 26, 27, 28, 29}
    monkeypatch.setattr(
        faces, "detect", lambda *a, **k: [] if next(seen) in blind else detect(*a, **k)
    )
    analyze_film(source, Glad(), output=tmp_path / "out", blur=True)
    monkeypatch.undo()
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [int(row["frame"]) for row in rows] == [i for i in range(30) if i not in blind]
    frames = read(tmp_path / "out" / "a.mp4")
    assert len(frames) == 30
    for i, (frame, before) in enumerate(zip(frames, read(source), strict=True)):
        assert faces.detect(frame.image, min_face=80, min_score=-0.2) == []
        left, top = 20 + i + 25, 60 + 25
        inside = frame.image[top : top + 70, left : left + 70].astype(int)
        assert np.abs(inside - before.image[top : top + 70, left : left + 70]).mean() > 12
        far = (slice(None), slice(350, None))
        if i in blind:  # without a panel
            assert np.abs(frame.image[far].astype(int) - before.image[far]).mean() < 3


def test_a_size_that_changes(tmp_path):
    small = write_film(tmp_path / "a.ts", walk(10))
    large = write_film(tmp_path / "b.ts", [draw_people([(1, 40, 60)], height=300)] * 10)
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    summary = analyze_film(tmp_path / "c.ts", Glad(), output=tmp_path / "out")
    assert summary.frames == 20
    assert {frame.image.shape for frame in read(tmp_path / "out" / "c.mp4")} == {(240, 480, 3)}


def test_a_person_stays_the_same_when_the_size_changes(tmp_path):
    scenes = walk(20)
    large = [images.resize(scene, 480, 960) for scene in scenes[:10]]
    parts = [write_film(tmp_path / f"{i}.ts", part) for i, part in enumerate((large, scenes[10:]))]
    (tmp_path / "all.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    summary = analyze_film(tmp_path / "all.ts", Glad(), output=tmp_path / "out")
    assert (summary.frames, summary.faces, summary.people) == (20, 20, 1)


def test_a_truncated_film_is_read_and_said(tmp_path, capsys):
    source = write_film(tmp_path / "a.mkv", walk(60))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    summary = analyze_film(source, Glad(), output=tmp_path / "out")
    assert 10 < summary.frames < 50 and "incomplete" in summary.damage
    assert summary.damage in capsys.readouterr().err
    assert len(read(tmp_path / "out" / "a.mp4")) == summary.frames


def test_the_source_is_never_overwritten(tmp_path):
    source = write_film(tmp_path / "a.mp4", walk(5))
    before = source.read_bytes()
    analyze_film(source, Glad(), output=tmp_path)
    assert source.read_bytes() == before and len(read(tmp_path / "a-emotions.mp4")) == 5
    other = write_film(tmp_path / "a.mkv", walk(4))  # nor is the one that is named alike
    analyze_film(other, Glad(), output=tmp_path)
    assert source.read_bytes() == before and len(read(tmp_path / "a-emotions.mp4")) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every"),
        ({"start": -1}, "start"),
        ({"start": float("nan")}, "start"),
        ({"start": 3.0, "end": 2.0}, "end"),
        ({"smoothing": -0.1}, "smoothing"),
        ({"start": 30.0}, "no frame from 30 s.*the film has 0.2 s"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_touched(tmp_path, options, words):
    source = write_film(tmp_path / "a.mp4", shades(5))
    (tmp_path / "predictions.csv").write_text("yesterday's")
    with pytest.raises(EmotionError, match=words):
        analyze_film(source, Glad(), output=tmp_path, **options)
    assert (tmp_path / "predictions.csv").read_text() == "yesterday's"


def test_the_window_shows_what_is_written_until_q(tmp_path, monkeypatch):
    shown, closed = [], []

    class FakeWindow:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            closed.append(True)

        def show(self, image):
            shown.append(image)

        def key(self):
            return "q" if len(shown) == 7 else None

    monkeypatch.setattr(film, "Window", FakeWindow)
    source = write_film(tmp_path / "a.mp4", walk(20))
    summary = analyze_film(source, Glad(), output=tmp_path / "out", show=True)
    assert (len(shown), closed, summary.frames, summary.complete) == (7, [True], 7, False)
    for frame, image in zip(read(tmp_path / "out" / "a.mp4"), shown, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 4


def test_what_was_written_before_a_failure_stays(tmp_path):
    class Failing(Glad):
        def __call__(self, crops, /):
            if self.calls == 12:
                raise EmotionError("no more")
            return super().__call__(crops)

    source = write_film(tmp_path / "a.mp4", walk(40))
    with pytest.raises(EmotionError, match="no more"):
        analyze_film(source, Failing(), output=tmp_path / "out")
    assert len(read_rows(tmp_path / "out" / "predictions.csv")) == 12
    assert len(read(tmp_path / "out" / "a.mp4")) == 12


@pytest.mark.parametrize("count", [30, 70])
def test_few_frames_are_held_at_once(tmp_path, monkeypatch, count):
    source = write_film(tmp_path / "a.mp4", shades(count))
    made = []

    def detect(image, **_):
        made.append(weakref.ref(image))
        return [Face(5, 5, 30, 30, 1.0)]

    most = 0

    class Counting(Glad):
        def __call__(self, crops, /):
            nonlocal most
            most = max(most, sum(reference() is not None for reference in made))
            return super().__call__(crops)

    monkeypatch.setattr(faces, "detect", detect)
    analyze_film(source, Counting(), output=tmp_path / "out")
    assert len(made) == count and most <= 8
    gc.collect()
    assert not any(reference() is not None for reference in made)


# predict.py with a network in place of the real one, slowed down for signals to arrive in time.
PROGRAM = """
import runpy, sys, time
import numpy as np
import emotion_jax
from emotion_jax.image_spec import ImageSpec

class Fake:
    spec = ImageSpec()
    def __call__(self, crops, /):
        time.sleep({pause})
        return np.full((len(crops), 8), 1 / 8, np.float32)

emotion_jax.load_predictor = lambda path=None: Fake()
{before}
runpy.run_path("predict.py", run_name="__main__")
"""


def start(*arguments, pause=0.0, before=""):
    code = PROGRAM.format(pause=pause, before=before)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_whole_film_and_a_timeline(tmp_path, number, status):
    source = write_film(tmp_path / "a.mp4", walk(75, step=2), sound="aac")
    table = tmp_path / "out" / "predictions.csv"
    process = start(f"--video={source}", f"--output={tmp_path}/out", pause=0.1)
    while process.poll() is None and not (table.exists() and len(read_rows(table)) > 5):
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    rows = read_rows(table)
    assert 5 < len(rows) < 75
    assert err.startswith(f"stopped: {len(rows)} frames, ") and "Traceback" not in err
    assert len(read(tmp_path / "out" / "a.mp4")) == len(rows)
    heard = sound_packets(tmp_path / "out" / "a.mp4")
    assert 0 <= len(rows) / 30 - heard[-1][0] < 0.1
    assert (tmp_path / "out" / "timeline.png").stat().st_size > 5000


def test_a_full_disk_keeps_rows_and_film(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 240, 480, 3), dtype=np.uint8)
    for image, picture in zip(noise, walk(60), strict=True):
        image[:, :200] = picture[:, :200]
    source = write_film(tmp_path / "a.mp4", noise, rate=10)
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))"
    )
    process = start(f"--video={source}", f"--output={tmp_path}/out", before=limit)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and out == "", err
    assert len(err.splitlines()) == 1 and "a.mp4' cannot be written" in err
    assert len(read_rows(tmp_path / "out" / "predictions.csv")) > 10
    assert len(read(tmp_path / "out" / "a.mp4")) > 10


def test_a_reader_that_leaves_ends_it_quietly(tmp_path):
    source = write_film(tmp_path / "a.mp4", walk(75, step=2))
    process = start(f"--video={source}", "--min_face=80", pause=0.05)
    assert process.stdout.readline() == ",".join(COLUMNS) + "\n"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0 and "Error" not in err, err


def test_the_real_clips(scenes, tmp_path):
    from emotion_jax import load_predictor

    clips = Path(scenes) / "clips"
    summary = analyze_film(clips / "single_face.mp4", load_predictor(), output=tmp_path)
    assert (summary.frames, summary.faces, summary.people) == (72, 72, 1)
    rows = read_rows(tmp_path / "predictions.csv")
    emotions = [row["emotion"] for row in rows]
    assert emotions[0] == "neutral" and emotions[40] == "happiness"
    assert sound_packets(tmp_path / "single_face.mp4") == sound_packets(clips / "single_face.mp4")
    summary = analyze_film(clips / "no_face.mp4", Glad(), output=tmp_path, every=10)
    assert (summary.frames, summary.faces) == (10, 0)


def test_the_finder_searches_as_many_pixels_in_large_films():
    assert choose_min_face((360, 640)) == choose_min_face((720, 1280)) == 80
    assert choose_min_face((2160, 3840)) == choose_min_face((3840, 2160)) == 240
