"""predict.py as people type it, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from false_films import shades, write_film

from emotion_jax import images
from emotion_jax.rows import COLUMNS

ROOT = Path(__file__).parent.parent

# predict.py with a network in place of the real one, and a list of what it imported.
WITH_FAKE = """
import runpy, sys, types
import numpy as np
import emotion_jax
from emotion_jax.image_spec import ImageSpec

class Fake:
    spec = ImageSpec()
    def __call__(self, crops, /):
        return np.full((len(crops), 8), 1 / 8, np.float32)

emotion_jax.load_predictor = lambda path=None: Fake()
try:
    runpy.run_path("predict.py", run_name="__main__")
finally:
    print("tensorflow" in sys.modules, file=sys.stderr)
"""


def predict(*arguments, code=None):
    command = [sys.executable, *(["-c", code] if code else ["predict.py"]), *map(str, arguments)]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_alone_it_helps():
    alone = predict()
    assert alone.returncode == 0 and alone.stderr == ""
    assert alone.stdout.count("python predict.py --") == 4
    flags = "image video every start end smoothing min_face blur camera device model output format"
    for flag in (*flags.split(), "cropped", "mirrored", "show", "debug", "version"):
        assert f"--{flag} " in alone.stdout
    assert predict("--help").stdout == alone.stdout


@pytest.mark.parametrize("flag", ["video", "output"])
def test_the_home_folder_has_its_short_name(flag, tmp_path, monkeypatch):
    """Shells leave it as it is behind an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    words = {"video": ["--video=~/none.mp4"], "output": ["--image=docs", "--output=~/file"]}[flag]
    done = predict(*words)
    assert done.returncode and str(tmp_path) in done.stderr and "~" not in done.stderr


def test_help_needs_nothing_heavy():
    code = (
        "import runpy, sys; sys.argv = ['predict.py']\n"
        "try: runpy.run_path('predict.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'cv2', 'dlib', 'tensorflow', 'flax'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = predict(code=code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--imge=a.jpg"], ["imge", "--help"]),
        (["--format=xml", "--image=a.jpg"], ["format", "csv"]),
        (["--device=1"], ["--device", "add --camera"]),
        (["--camera", "--noshow", "--device=99"], ["no camera 99"]),
        (["--camera", "--noshow", "--device=setup.cfg"], ["'setup.cfg' is not there"]),
        (["--camera", "--image=a.jpg"], ["--camera", "--image", "one at a time"]),
        (["--camera", "--blur", "--output=x"], ["--blur", "--video"]),
        (["--camera", "--smoothing=much"], ["smoothing"]),
        (["photo.jpg"], ["photo.jpg", "--image=photo.jpg"]),
        (["--video=a.mp4", "--video=b.mp4"], ["--video", "one film"]),
        (["--video=a.mp4", "--image=b.jpg"], ["--image and --video"]),
        (["--every=3", "--image=b.jpg"], ["--every", "--video"]),
        (["--blur", "--image=b.jpg"], ["--blur", "--output"]),
        (["--min_face=0", "--image=b.jpg"], ["--min_face", "pixels"]),
        (["--start=early", "--video=a.mp4"], ["start", "early"]),
        (["--mirrored=yes", "--image=a.png"], ["--mirrored=yes: Non-boolean argument to boolean"]),
        (["--mirror"], ["'mirror'", "mean: mirrored; python predict.py --help"]),
        (["--cnn_model=a.dat", "--image=b.jpg"], ["--cnn_model", "--detector=cnn"]),
        (["--output=x"], ["nothing to read", "--image"]),
        (["--video="], ["--video is empty"]),
        (["--cropped", "--video=a.mp4"], ["--cropped", "add --image"]),
        (["--cropped", "--image=b.jpg", "--min_face=50"], ["--cropped", "--min_face"]),
        (["--cropped", "--image=b.jpg", "--show"], ["--cropped", "--show"]),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    done = predict(*arguments)
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize("flag", ["--image=absent.jpg", "--image=none/*.png", "--video=absent.mp4"])
def test_a_wrong_source_is_told_before_the_network_loads(flag):
    code = (
        f"import runpy, sys; sys.argv = ['predict.py', '{flag}']\n"
        "try: runpy.run_path('predict.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 2, end.code\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = predict(code=code)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_where():
    done = predict("--camera", "--device=99", "--noshow", "--debug")
    assert done.returncode != 0 and "Traceback" in done.stderr and "EmotionError" in done.stderr


def test_a_missing_picture_is_one_sentence(tmp_path):
    done = predict(f"--image={tmp_path}/absent.jpg", code=WITH_FAKE)
    assert done.returncode == 2 and done.stdout == ""
    assert "absent.jpg' is not there" in done.stderr and "Traceback" not in done.stderr


def test_pictures_to_rows(tmp_path):
    grey = np.full((60, 80, 3), 128, np.uint8)
    for name in ("a.png", "b.png", "c.png"):
        images.write_image(tmp_path / name, grey)
    arguments = ["--image", tmp_path / "a.png", tmp_path / "b.png", f"--image={tmp_path}/c.png"]
    done = predict(*arguments, code=WITH_FAKE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ",".join(COLUMNS) + "\n"
    assert "3 pictures, 0 faces; no face in 3 pictures" in done.stderr
    assert done.stderr.rstrip().endswith("False")  # TensorFlow stayed away


def test_a_real_photo_to_a_folder(scenes, tmp_path):
    photo = Path(scenes) / "photos" / "multi_face.jpg"
    done = predict(f"--image={photo}", f"--output={tmp_path}/out", code=WITH_FAKE)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 1 + 4
    assert images.read_image(tmp_path / "out" / "multi_face.jpg").shape == (667, 1000, 3)


@pytest.mark.parametrize("what", ["image", "video", "device"])
@pytest.mark.parametrize("model", [None, "mine"])
def test_films_and_cameras_get_the_fast_network(tmp_path, what, model):
    source = "docs/faces.png" if what == "image" else write_film(tmp_path / "a.mp4", shades(30))
    code = """
import runpy, emotion_jax.prediction.instant
from emotion_jax.errors import EmotionError

def load(path, folder):
    raise EmotionError(f"asked for {path}.")

emotion_jax.prediction.instant.load_instantly = load
runpy.run_path("predict.py", run_name="__main__")
"""
    flags = [f"--{what}={source}", *(["--camera", "--noshow"] if what == "device" else [])]
    done = predict(*flags, *([f"--model={model}"] if model else []), code=code)
    asked = model or (None if what == "image" else "simplenet-narrow-ferplus")
    assert done.returncode == 2 and f"asked for {asked}." in done.stderr


def test_faces_that_are_cut_out_to_rows(tmp_path):
    for name in ("a.png", "b.png"):
        images.write_image(tmp_path / name, np.full((60, 80, 3), 128, np.uint8))
    done = predict("--cropped", f"--image={tmp_path}", code=WITH_FAKE)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header == ",".join(COLUMNS)
    assert [row.partition(",")[0] for row in rows] == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    assert ",0,0.0,0,0,0,80,60,,neutral,0.125000," in rows[0]
    assert "2 pictures, 2 faces" in done.stderr


def test_mirrored_answers_are_the_mean_of_both(tmp_path):
    left = np.zeros((60, 80, 3), np.uint8)
    left[:, :40] = 255
    images.write_image(tmp_path / "a.png", left)
    lefts = "np.eye(8, dtype=np.float32)[np.where(crops[:, 0, 0, 0] > 127, 1, 2)]"
    code = WITH_FAKE.replace("np.full((len(crops), 8), 1 / 8, np.float32)", lefts)
    assert code != WITH_FAKE
    words = "--cropped", f"--image={tmp_path}/a.png", "--format=jsonl"
    once, twice = (predict(*words, *more, code=code) for more in ([], ["--mirrored"]))
    assert '"happiness": 1.0, "sadness": 0.0' in once.stdout, once.stderr
    assert '"happiness": 0.5, "sadness": 0.5' in twice.stdout, twice.stderr


def test_the_version():
    done = predict("--version")
    assert done.returncode == 0 and done.stdout.startswith("emotion_jax ")


def test_ctrl_c_while_libraries_load_is_silent_and_is_never_lost():
    # The signal comes where JAX would swallow it: in what the garbage collector calls.
    code = """
import gc, os, runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import emotion_jax

def load(path=None):
    gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))
    gc.collect()

emotion_jax.load_predictor = load
runpy.run_path("predict.py", run_name="__main__")
"""
    stopped = predict("--image=docs/faces.png", code=code)
    assert stopped.returncode == -signal.SIGINT
    assert stopped.stdout == stopped.stderr == ""
