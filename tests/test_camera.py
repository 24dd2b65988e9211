"""The live source: its newest frame, and one sentence for whatever can go wrong with it."""

import http.server
import itertools
import os
import threading
import time

import cv2
import numpy as np
import pytest
from false_films import shade_numbers, shades, write_film

from emotion_jax.errors import EmotionError
from emotion_jax.prediction.camera import Camera


class FalseCapture:
    """A camera whose frames tell their number; `read(number)` may wait, end or raise."""

    def __init__(self, read=lambda number: True):
        self.count, self.released, self._read = 0, 0, read

    def read(self):
        if not self._read(self.count):
            return False, None
        self.count += 1
        number = self.count - 1
        return True, np.full((4, 6, 3), (number & 255, number >> 8, 7), np.uint8)  # BGR

    def get(self, prop):
        return 0.0

    def release(self):
        self.released += 1


def tick(number):
    time.sleep(0.001)
    return True


def number_of(frame):
    red, green, blue = frame.image[0, 0].tolist()
    assert red == 7  # RGB
    return green * 256 + blue


def test_a_slow_reader_gets_the_newest_frame_and_no_queue():
    capture = FalseCapture(tick)
    with Camera("0", open_capture=lambda device: capture) as camera:
        index = -1
        for _ in range(10):
            time.sleep(0.02)
            before = capture.count  # at least all but the last of these have been handed over
            frame = camera.next(index)
            assert frame.index == number_of(frame) > index
            assert frame.index >= before - 2
            index = frame.index
        assert index > 20  # it was not one after the other
        assert camera.newest.index >= index
    assert capture.released == 1


def test_a_fast_reader_gets_each_frame_once():
    capture = FalseCapture(tick)
    with Camera("0", open_capture=lambda device: capture) as camera:
        frames = [camera.next()]
        while len(frames) < 30:
            frames.append(camera.next(frames[-1].index))
    indices, times = [f.index for f in frames], [f.time_s for f in frames]
    assert indices == sorted(set(indices)) and times == sorted(set(times))


def test_unplugged_is_told_after_its_last_frame():
    capture = FalseCapture(lambda number: number < 5)
    with Camera("3", open_capture=lambda device: capture) as camera:
        time.sleep(0.05)
        assert camera.next().index == 4
        with pytest.raises(EmotionError, match="camera 3 gives no more pictures.*unplugged"):
            camera.next(4)
    assert capture.released == 1


@pytest.mark.parametrize("at", [0, 2])
def test_a_silent_camera_is_told(at):
    go_on = threading.Event()
    capture = FalseCapture(lambda number: number < at or go_on.wait())
    patience = {"patience_s": 0.2, "first_patience_s": 0.3}
    with Camera("0", open_capture=lambda device: capture, **patience) as camera:
        with pytest.raises(EmotionError, match="camera 0 has given no picture for 0 seconds"):
            for index in itertools.count(-1):
                camera.next(index)
        go_on.set()


def test_a_camera_that_hangs_while_it_is_opened_is_told():
    go_on = threading.Event()
    slow = {"open_capture": lambda device: go_on.wait() and FalseCapture(), "first_patience_s": 0.1}
    with Camera("0", **slow) as camera:
        with pytest.raises(EmotionError, match="no picture"):
            camera.wait_open()
        go_on.set()


def test_a_camera_without_a_picture_is_told():
    busy = FalseCapture(lambda number: False)
    with Camera("0", open_capture=lambda device: busy) as camera:
        with pytest.raises(EmotionError, match="no picture; another program"):
            camera.next()


def test_whatever_a_driver_raises_is_one_sentence():
    def fail(number):
        raise cv2.error("two\nlines")

    with Camera("0", open_capture=lambda device: FalseCapture(fail)) as camera:
        with pytest.raises(EmotionError, match=r"^camera 0 cannot be read \(two lines\)$"):
            camera.next()


def test_who_waits_is_let_go_when_it_closes():
    go_on, answers = threading.Event(), []
    capture = FalseCapture(lambda number: number < 1 or go_on.wait())
    camera = Camera("0", open_capture=lambda device: capture)
    waiting = threading.Thread(target=lambda: answers.append(camera.next(0)))
    waiting.start()
    threading.Timer(0.2, go_on.set).start()
    camera.close()
    waiting.join(10)
    assert answers == [None] and camera.next() is None


def test_a_film_stands_in_at_its_own_pace(tmp_path):
    times = [0.0, 0.05, 0.10, 0.25, 0.26, 0.40]
    path = write_film(tmp_path / "film.mp4", shades(len(times)), times=times)
    with Camera(str(path)) as camera:
        camera.wait_open()
        time.sleep(0.3)
        assert camera.newest.index == 0  # it runs only once somebody looks
        start, index, seen = time.monotonic(), -1, []
        while (frame := camera.next(index)) is not None:
            index = frame.index
            seen.append(frame)
            assert time.monotonic() - start >= frame.time_s - 0.001  # never early
        assert camera.next(index) is None
    assert [frame.time_s for frame in seen] == pytest.approx(
        [times[frame.index] for frame in seen], abs=1e-3
    )
    assert shade_numbers([frame.image for frame in seen]) == [frame.index for frame in seen]
    assert seen[0].index == 0 and seen[-1].index == 5


def test_a_film_that_does_not_say_how_long_it_is_ends_as_one(tmp_path):
    """As browsers record: OpenCV counts no frames of it."""
    film = tmp_path / "recorded.webm"
    film.touch()
    capture = FalseCapture(lambda number: number < 3)
    with Camera(str(film), open_capture=lambda device: capture) as camera:
        newest, index = camera.next(), -1
        while newest is not None:
            index, newest = newest.index, camera.next(newest.index)
    assert index == 2


class Stream(http.server.BaseHTTPRequestHandler):
    """A network camera that sends twelve pictures and is switched off."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        for image in shades(12):
            _, jpeg = cv2.imencode(".jpg", image)
            head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
            time.sleep(0.01)

    def log_message(self, *_):
        """Be quiet."""


def test_a_stream_that_breaks_off():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://me:secret@127.0.0.1:{server.server_port}/live.mjpg?password=secret"
        with Camera(address) as camera:
            frame = camera.next()
            assert camera.source == f"http://127.0.0.1:{server.server_port}/live.mjpg"
            with pytest.raises(EmotionError, match="gives no more pictures") as told:
                while True:
                    assert shade_numbers([frame.image]) == [frame.index]
                    frame = camera.next(frame.index)
        server.shutdown()
    assert frame.index >= 10 and "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("99", ["no camera 99", "film"]),
        ("/dev/video99", ["/dev/video99", "not there"]),
        ("front", ["'front' is not there"]),
        (".", ["folder"]),
        (os.devnull, ["cannot be opened", "no camera"]),
        ("README.md", ["'README.md' cannot be opened", "no film"]),
        ("http://[me:secret@", ["--device", "malformed"]),
        ("http://me:secret@127.0.0.1:9/", ["'http://127.0.0.1:9/' cannot be opened", "address"]),
    ],
)
def test_what_is_no_camera_is_one_sentence(device, words, capfd):
    with pytest.raises(EmotionError) as told, Camera(device) as camera:
        camera.next()
    assert all(word in str(told.value) for word in words) and "secret" not in str(told.value)
    assert capfd.readouterr() == ("", "")  # nor do the libraries say a thing
