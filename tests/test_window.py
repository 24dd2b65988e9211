"""The window on a virtual display: what is shown, and keys that a person would press."""

import ctypes
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from false_films import draw_people, write_film
from PIL import ImageGrab
from test_live import WITH_FAKE, film_frames, read_rows, start, wait_for

from emotion_jax import images
from emotion_jax.errors import EmotionError
from emotion_jax.prediction import window

MISSING = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
needs_display = pytest.mark.skipif(
    bool(MISSING), reason=f"no window is tested: {' and '.join(MISSING)} not installed"
)
HEIGHT, WIDTH = 240, 480
SEARCH = ("search", "--name", "emotion_jax")


@pytest.fixture(scope="module")
def display():
    """The name of a virtual display."""
    reader, writer = os.pipe()
    command = [
        "Xvfb",
        "-displayfd",
        str(writer),
        "-screen",
        "0",
        "800x600x24",
        "-nolisten",
        "tcp",
        "-noreset",
    ]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as said:
        name = f":{said.readline().strip()}"
    yield name
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A person in the left half, for twenty seconds: an end that no test waits for."""
    images = [draw_people([(0, 40, 60)], height=HEIGHT, width=WIDTH)] * 600
    return write_film(tmp_path_factory.mktemp("films") / "person.mp4", images)


def xdotool(display, *words):
    """Do as a person would, and return the words of its answer."""
    env = os.environ | {"DISPLAY": display}
    command = ["xdotool", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.stdout.split()


class Program:
    """predict.py --camera with a window, and a person before it."""

    def __init__(self, display, *arguments, **options):
        self.display = display
        self.process = start(*arguments, env=os.environ | {"DISPLAY": display}, **options)
        self.window = None

    def press(self, key):
        def found():
            self.window = next(iter(xdotool(self.display, *SEARCH)), None)
            return self.window is not None

        wait_for(found)
        xdotool(self.display, "key", "--window", self.window, key)

    def press_until(self, condition, key):
        keep_pressing(lambda: self.press(key), condition)

    def end(self):
        self.out, self.errors = self.process.communicate(timeout=60)
        assert "Traceback" not in self.errors
        return self.process.returncode


def keep_pressing(press, condition):
    """Press a key until it is heard: one sent to the window of a busy machine may get lost."""
    for _ in range(6):
        press()
        try:
            return wait_for(condition, seconds=5)
        except AssertionError:
            continue
    raise AssertionError("nothing came")


def screen(display):
    return np.asarray(ImageGrab.grab(xdisplay=display))


def wait_for_picture(display):
    """Wait for anything that is not black.

    Where no window manager runs, as here, Qt may miss that its window was mapped, and then paints
    nothing in it until it is mapped again.
    """
    keep_pressing(
        lambda: xdotool(display, *SEARCH, "windowunmap", "%1", "windowmap", "%1"),
        lambda: screen(display).any(),
    )


@needs_display
def test_a_session_with_all_keys(display, film, tmp_path):
    program = Program(display, f"--device={film}", f"--output={tmp_path}")
    names = "predictions.csv", "camera.png", "camera.mp4"
    table, saved, filmed = (tmp_path / name for name in names)
    wait_for(table.exists)
    wait_for_picture(display)
    for arrow in ("Left", "Up", "Right"):  # in their codes' lower bytes q, r and s
        program.press(arrow)
    program.press_until(saved.exists, "s")
    assert not filmed.exists()
    program.press_until(lambda: red_dot(screen(display)), "r")
    # The film itself reaches the disk in fragments: wait for rows, that is, for frames.
    rows = table.read_text().count("\n")
    wait_for(lambda: table.read_text().count("\n") > rows + 20)
    program.press_until(lambda: not red_dot(screen(display)), "r")
    program.press("q")
    assert program.end() == 0
    picture = images.read_image(saved)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    # Mirrored: the face at the left is at the right. The rows say where it is in the source.
    row = read_rows(table)[0]
    assert int(row["x"]) + int(row["width"]) < WIDTH / 2
    assert np.abs(picture.astype(int)[60:180, WIDTH - 160 : WIDTH - 40] - 120).mean() > 20
    frames = film_frames(filmed)
    assert len(frames) >= 20 and frames[0][1].shape == (HEIGHT, WIDTH, 3)
    assert not red_dot(frames[-1][1])  # recorded without what the program says of itself
    times = [when for when, _ in frames]
    assert times[0] == 0 and times == sorted(set(times))
    assert [f"written: {path}" in program.errors for path in (table, saved, filmed)] == [True] * 3
    assert "Qt" not in program.errors and "QFont" not in program.errors  # nor do the libraries talk


def red_dot(picture):
    corner = picture[: HEIGHT // 4, :WIDTH].astype(int)
    red = (corner[..., 0] > 220) & (corner[..., 1] < 80) & (corner[..., 2] < 80)
    return int(red.sum()) > 10


@needs_display
def test_escape_ends_it(display, film, tmp_path):
    program = Program(display, f"--device={film}")
    assert program.process.stdout.readline().startswith("source,frame")  # rows, into a pipe
    program.press("Escape")
    assert program.end() == 0 and "happiness" in program.out


@needs_display
def test_escape_is_heard_while_the_network_loads(display, film, tmp_path):
    # Longer than anybody waits for the end: only who does not wait gets there.
    code = WITH_FAKE.replace("None: Fake()", "None: __import__('time').sleep(3600)")
    assert code != WITH_FAKE
    program = Program(display, f"--device={film}", f"--output={tmp_path}", code=code)
    program.press("Escape")
    assert program.end() == 0 and "0 persons" in program.errors
    assert os.listdir(tmp_path) == []


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent, filled up to the size of any event."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 12),
    ]


def close_window(display, number):
    """Ask as a window manager does when its cross is clicked."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    server = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols, delete = (
        x11.XInternAtom(server, name, False) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
    )
    event = ClientMessage(33, 0, True, server.value, number, protocols, 32, (delete, 0))
    x11.XSendEvent(server, ctypes.c_ulong(number), False, ctypes.c_long(0), ctypes.byref(event))
    x11.XCloseDisplay(server)


@needs_display
def test_closing_the_window_ends_it(display, film, tmp_path):
    program = Program(display, f"--device={film}", f"--output={tmp_path}")
    wait_for((tmp_path / "predictions.csv").exists)
    program.press("x")  # no key of ours
    close_window(display, int(program.window))
    assert program.end() == 0
    assert len(read_rows(tmp_path / "predictions.csv")) < 400  # long before the film's end


@needs_display
def test_pictures_one_by_one(display):
    """`window.show` goes on after a key and stops after q."""
    code = (
        "import numpy as np\nfrom emotion_jax.prediction import window\n"
        "for shade in (80, 160, 240):\n"
        "    if not window.show(np.full((100, 200, 3), (shade, 0, 0), np.uint8)): break\n"
        "print('ended at', shade)"
    )
    env = os.environ | {"DISPLAY": display}
    program = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True
    )

    def shows(shade):
        return tuple(screen(display)[50, 100]) == (shade, 0, 0)

    def press(key):
        xdotool(display, *SEARCH, "key", "--window", "%1", key)

    wait_for_picture(display)
    wait_for(lambda: shows(80))
    keep_pressing(lambda: press("space"), lambda: shows(160))
    keep_pressing(lambda: press("q"), lambda: program.poll() is not None)
    out, _ = program.communicate(timeout=30)
    assert out == "ended at 160\n"


def test_a_display_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":9876")
    try:
        window.ctypes.CDLL("libX11.so.6")
    except OSError:
        pytest.skip("no libX11 to ask")
    with pytest.raises(EmotionError, match="':9876' does not answer; use --noshow"):
        window.check_display()


def test_a_window_without_a_display_is_one_sentence(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(EmotionError, match="no display .*--noshow"):
        window.show(np.zeros((9, 9, 3), np.uint8))


def test_a_build_without_windows_is_one_sentence(monkeypatch):
    def fail(*_):
        raise cv2.error("not implemented")

    monkeypatch.setattr("emotion_jax.prediction.window.check_display", lambda: None)
    monkeypatch.setattr("cv2.namedWindow", fail)
    with pytest.raises(EmotionError, match="headless"):
        window.show(np.zeros((9, 9, 3), np.uint8))
