"""What `--device` may name: found, opened and called by a name. A camera, a stream or a film."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

# FFmpeg's own words on what it cannot read; ours are one sentence.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from emotion_jax.errors import EmotionError  # noqa: E402

# After this FFmpeg gives a dead stream up, so that the thread that reads it ends.
_TIMEOUT_MS = 15_000
_TIMEOUTS = [
    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
    _TIMEOUT_MS,
    cv2.CAP_PROP_READ_TIMEOUT_MSEC,
    _TIMEOUT_MS,
]

_INDEX = re.compile("[0-9]+")


class Capture(Protocol):
    """What is read: the part of `cv2.VideoCapture` that is used here."""

    def read(self) -> tuple[bool, np.ndarray | None]:
        """Wait for the next frame: whether there is one, and uint8 `[H, W, 3]`, BGR."""

    def get(self, prop: int, /) -> float:
        """A property of the source, 0 where it is unknown."""

    def release(self) -> None:
        """Let go of the device."""


def check(device: str) -> None:
    """Refuse at once what cannot be there.

    Raises:
      EmotionError: there is no such camera or file, or it may not be read.
    """
    if _INDEX.fullmatch(device):
        _check_index(int(device))
    elif "://" not in device:
        _check_path(device)


def open_capture(device: str) -> Capture:
    """Open what the word means: an index or a path of a camera, an address, or a film.

    Raises:
      EmotionError: it cannot be opened.
    """
    # OpenCV, too, prints lines of its own about every way that it tries.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    source: int | str = device
    if _INDEX.fullmatch(device):
        source, api = int(device), cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        advice = "another program may be using it"
    elif "://" in device:
        api, advice = cv2.CAP_FFMPEG, "check the address, and that the stream is on"
    elif stat.S_ISCHR(os.stat(device).st_mode):
        api, advice = cv2.CAP_V4L2, "it is no camera, or another program is using it"
    else:
        api, advice = cv2.CAP_FFMPEG, "it is no film that can be read"
    capture = cv2.VideoCapture(source, api, _TIMEOUTS if api == cv2.CAP_FFMPEG else [])
    if not capture.isOpened():
        raise EmotionError(f"{quote_source(device)} cannot be opened; {advice}")
    return capture


def _check_index(index: int) -> None:
    """On Linux cameras are files: say which there are, rather than that one does not open."""
    if sys.platform != "linux":
        return
    if Path(f"/dev/video{index}").exists():
        _check_path(f"/dev/video{index}")
        return
    names = (path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    there = sorted(int(name) for name in names if name.isdecimal())
    found = f"there are {', '.join(map(str, there))}" if there else "this computer has none"
    raise EmotionError(
        f"there is no camera {index} ({found}); --device takes an index, a path, an address or, "
        "to stand in for a camera, a film"
    )


def _check_path(path: str) -> None:
    """Refuse what is not there, is a folder or may not be read."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise EmotionError(
            f"--device: '{path}' is not there ({error.strerror}); give a camera's index or path, "
            "an address or a film"
        ) from error
    if stat.S_ISDIR(mode):
        raise EmotionError(f"--device: '{path}' is a folder; give a camera or a film")
    if not os.access(path, os.R_OK):
        group = "; cameras belong to the group video" if stat.S_ISCHR(mode) else ""
        raise EmotionError(f"--device: '{path}' may not be read by you{group}")


def name_source(device: str) -> str:
    """Name a source: an address without what may be a password.

    Raises:
      EmotionError: the address cannot be taken apart.
    """
    if _INDEX.fullmatch(device):
        return f"camera {device}"
    if "://" not in device:
        return device
    try:
        parts = urlsplit(device)
    except ValueError as error:
        raise EmotionError(f"--device: the address is malformed ({error}); correct it") from error
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def quote_source(device: str) -> str:
    """Name a source in the middle of a sentence."""
    name = name_source(device)
    return name if _INDEX.fullmatch(device) else f"'{name}'"
