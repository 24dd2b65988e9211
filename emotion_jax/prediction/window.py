"""The window: the only file that opens one. To be used on the main thread."""

from __future__ import annotations

import ctypes
import os
import sys

# OpenCV's wheels bring their windows for X alone: on Wayland they first complain, then use it.
os.environ.setdefault("QT_QPA_PLATFORM", "xcb")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from emotion_jax.errors import EmotionError  # noqa: E402
from emotion_jax.host.closing import Closing  # noqa: E402

_LARGEST = 1200, 800  # width and height in pixels: fits a laptop's screen
_ESCAPE = 27
# Of the codes of keys that mean no character; the lower byte of some is that of a letter.
_NO_CHARACTER = 0xFF00
# The last: without a bar of tools, whose keys would be in the way of ours.
_FLAGS = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL


class Window(Closing):
    """A window with one picture, fitted to the screen.

    Raises, when it is made:
      EmotionError: this computer, or this build of OpenCV, has no windows.
    """

    def __init__(self, title: str = "emotion_jax") -> None:
        check_display()
        self._title = title
        self._size: tuple[int, int] | None = None

    def show(self, image: np.ndarray) -> None:
        """Replace the picture by another: uint8 `[H, W, 3]`, RGB."""
        size = image.shape[1], image.shape[0]
        try:
            if self._size is None:
                cv2.namedWindow(self._title, _FLAGS)
            if size != self._size:  # else it stays as large as the user made it
                shrink = min(1.0, _LARGEST[0] / size[0], _LARGEST[1] / size[1])
                cv2.resizeWindow(self._title, round(size[0] * shrink), round(size[1] * shrink))
            self._size = size
            cv2.imshow(self._title, image[:, :, ::-1])
        except cv2.error as error:
            raise EmotionError(
                "this OpenCV cannot open windows; install opencv-python, not its headless build"
            ) from error

    def key(self, wait_s: float = 0.001) -> str | None:
        """Wait for a key.

        Args:
          wait_s: how long, in seconds; the picture is painted meanwhile.

        Returns:
          the character, nothing ("") of a key that has none, such as an arrow; "q" also for Esc and
          a closed window; None without a key.
        """
        if self._size is None:  # nothing was shown yet
            return None
        code = cv2.waitKeyEx(max(1, round(1000 * wait_s)))
        if code == -1:
            return None if self._is_open() else "q"
        if code & 0xFF00 == _NO_CHARACTER and code & 0xFF != _ESCAPE:
            return ""
        return "q" if code & 0xFF == _ESCAPE else chr(code & 0xFF).lower()

    def close(self) -> None:
        """Close it, if it is open."""
        if self._size is not None and self._is_open():
            cv2.destroyWindow(self._title)
        self._size = None

    def _is_open(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # it was the last window, and Qt has gone with it
            return False


def show(image: np.ndarray) -> bool:
    """Show a picture in a window until a key is pressed; the next one takes the same window.

    Args:
      image: uint8 `[H, W, 3]`, RGB.

    Returns:
      whether to go on: False after q, Esc or closing the window.

    Raises:
      EmotionError: see `Window`.
    """
    window = Window()
    window.show(image)
    key = None
    while key is None:
        key = window.key(0.05)  # a closed window is noticed soon
    return key != "q"


def check_display() -> None:
    """Refuse to open a window where there is no display.

    Checked first, because without one the window's library ends the whole process.

    Raises:
      EmotionError: there is none, or it does not answer.
    """
    if not sys.platform.startswith("linux"):
        return
    name = os.environ.get("DISPLAY")
    if not name:
        raise EmotionError("there is no display for a window; use --noshow with --output=FOLDER")
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:  # without X's library nobody can ask; OpenCV's wheels bring one of their own
        return
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    display = x11.XOpenDisplay(None)
    if not display:
        raise EmotionError(
            f"the display '{name}' does not answer; use --noshow with --output=FOLDER"
        )
    x11.XCloseDisplay(display)
