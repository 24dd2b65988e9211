"""What a process holds, threads, handles and children, it lets go of when a call is over."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from false_films import draw_people, write_film
from false_network import FalsePredictor
from tiny_runs import Tiny, make_config, write_faces

from emotion_jax import load_predictor, models, train
from emotion_jax.prediction.film import analyze_film
from emotion_jax.prediction.live import watch

PROCESS = Path("/proc/self")
# Of a pool that is shut down the last thread may be on its way out still.
PATIENCE_S = 10.0

pytestmark = pytest.mark.skipif(
    not (PROCESS / "task").exists(), reason="what a process holds is read from Linux's /proc"
)


def held():
    """Threads of Python by name and all by number, open files by path, children by command."""
    gc.collect()
    found = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    for entry in (PROCESS / "fd").iterdir():
        try:
            found[f"handle {os.readlink(entry)}"] += 1
        except FileNotFoundError:  # that of this very listing
            continue
    for task in (PROCESS / "task").iterdir():
        found["threads"] += 1
        for child in (task / "children").read_text().split():
            found[f"child {Path('/proc', child, 'cmdline').read_text()}"] += 1
    return found


def left(before):
    """What is held beyond what was, after a moment's patience."""
    end = time.monotonic() + PATIENCE_S
    while (more := held() - before) and time.monotonic() < end:
        time.sleep(0.05)
    return more


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two persons who move to the right for a second, with sound."""
    images = [draw_people([(0, 40 + 2 * i, 60), (1, 280 + 2 * i, 70)]) for i in range(30)]
    return write_film(tmp_path_factory.mktemp("films") / "clip.mp4", images, sound="aac")


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """One person for half a minute: an end that no test waits for."""
    images = [draw_people([(0, 40, 60)])] * 60
    return write_film(tmp_path_factory.mktemp("films") / "slow.mp4", images, rate=2)


class Leaving(FalsePredictor):
    """At its third call somebody presses Ctrl-C."""

    def __call__(self, crops, /):
        if len(self.shapes) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(crops)


def watch_and_leave(film, folder):
    with pytest.raises(KeyboardInterrupt):
        watch(str(film), Leaving, output=folder, show=False)


@pytest.fixture
def act(request, clip, slow, tmp_path, monkeypatch):
    """A call that does one of the things people do, into a folder of its own."""
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)
    faces = write_faces(tmp_path / "faces.npz")
    acts = {
        "film": lambda folder: analyze_film(clip, load_predictor(), output=folder, blur=True),
        "camera": lambda folder: watch(str(clip), load_predictor, output=folder, show=False),
        "a camera left": lambda folder: watch_and_leave(slow, folder),
        "training": lambda folder: train.train_and_evaluate(
            make_config(faces, num_epochs=2, checkpoint_every=4, data__feed="stream"), folder
        ),
    }
    return acts[request.param]


@pytest.mark.parametrize("act", ["film", "camera", "a camera left", "training"], indirect=True)
def test_nothing_is_left_behind(act, tmp_path):
    act(tmp_path / "warm")  # loads libraries, which start threads that stay
    # A library's pool may still grow by a thread now and then; what leaks does so each time.
    for attempt in range(3):
        before = held()
        for name in ("once", "twice"):
            folder = tmp_path / f"{name}-{attempt}"
            act(folder)
            assert any(folder.iterdir())
        more = left(before)
        if not more:
            break
    assert not more


def test_what_is_left_behind_is_seen(tmp_path):
    before = held()
    path, done = tmp_path / "open", threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten")
    thread.start()
    reads = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with path.open("w"), subprocess.Popen(reads, stdin=subprocess.PIPE) as child:
        more = held() - before
        child.stdin.close()
    done.set()
    thread.join()
    names = sorted(more)
    assert f"handle {path}" in names and "thread forgotten" in names and more["threads"] == 1
    assert any(name.startswith("child ") for name in names)
    assert not left(before)
