"""dlib's models: its two face detectors and its 68 points, found, checked and loaded.

The only file that knows dlib. Detectors are made a thread each, because they work inside themselves
and let go of Python's own lock: two threads then search two pictures at once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from emotion_jax.errors import EmotionError

CNN_FILE = "mmod_human_face_detector.dat"
LANDMARKS_FILE = "shape_predictor_68_face_landmarks.dat"
POINTS = 68

# The files as dlib published them. Its format has no checksum, and a damaged count can make it ask
# for all of the memory, or read past its end.
_KNOWN = (
    "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
)
# Any other file is tried first where it can break nothing: in a process of 8 GB and 60 s.
_TRIAL = """
import resource, sys
import numpy
limit = 8 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
import dlib
kind, path = sys.argv[1:]
model = getattr(dlib, kind)(path)
picture = numpy.arange(120 * 120 * 3).reshape(120, 120, 3).astype(numpy.uint8)
model(picture, *([dlib.rectangle(20, 20, 100, 100)] if kind == "shape_predictor" else []))
"""

Box = tuple[float, float, float, float, float]  # left, top, width, height, score

_loaded = threading.local()


@dataclasses.dataclass(frozen=True)
class PointModel:
    """dlib's shape predictor, and the face that it starts from.

    Attributes:
      predict: dlib's own.
      mean: float64 `[68, 2]`, the mean face in a box that reaches from 0 to 1 in x and in y.
    """

    predict: Any
    mean: np.ndarray

    def __call__(self, image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
        """Find the 68 points of the face in a box (left, top, width, height).

        Args:
          image: uint8 `[H, W, 3]`, RGB, contiguous.
          box: in pixels, as the detector gave it.

        Returns:
          float64 `[68, 2]`: x and y in pixels, in the order of 300-W.
        """
        import dlib

        left, top, width, height = box
        corners = (left, top, left + width - 1, top + height - 1)
        shape = self.predict(image, dlib.rectangle(*(round(value) for value in corners)))
        return np.array([(part.x, part.y) for part in shape.parts()], np.float64)


def detect_hog(image: np.ndarray, min_score: float) -> list[Box]:
    """Find frontal faces of 80 pixels and more with dlib's HOG detector.

    Args:
      image: uint8 `[H, W, 3]`, RGB, contiguous.
      min_score: the lowest to return; 0 is the detector's own threshold.
    """
    boxes, scores, _ = _keep("hog", _make_hog).run(image, 0, min_score)
    return [_box(box, score) for box, score in zip(boxes, scores, strict=True)]


def detect_cnn(image: np.ndarray, min_score: float, path: str | None = None) -> list[Box]:
    """Find faces of 80 pixels and more, turned ones too, with dlib's network.

    Args:
      image: uint8 `[H, W, 3]`, RGB, contiguous.
      min_score: the lowest to return; near 1 is certain, and nothing lies below 0.
      path: of the network; by default the one of the `landmarks` extra.

    Raises:
      EmotionError: there is no such file, or it is no such network.
    """
    found = _keep(("cnn", path), lambda: _load_cnn(path))(image, 0)
    boxes = [_box(one.rect, one.confidence) for one in found]
    return [box for box in boxes if box[4] >= min_score]


@functools.cache
def load_points(path: str | None = None) -> PointModel:
    """Load dlib's 68-point model, once; threads share it, for it only reads itself.

    Args:
      path: of the model; by default the one of the `landmarks` extra.

    Raises:
      EmotionError: there is no such file, or it is no such model.
    """
    name, data = _read(path, LANDMARKS_FILE, "--landmarks_model")
    mean = _parse_mean(data)
    if mean is None:
        what = f"'{name}' is no {POINTS}-point model of dlib's"
        raise EmotionError(f"{what}; give its {LANDMARKS_FILE}")
    return PointModel(_load("shape_predictor", name, data), mean)


def _keep(key: Any, make: Any) -> Any:
    """What `make` returns, made once in each thread."""
    models = _loaded.__dict__
    if key not in models:
        models[key] = make()
    return models[key]


def _make_hog() -> Any:
    import dlib  # 0.2 s with its model; only who looks for faces pays

    return dlib.get_frontal_face_detector()


def _load_cnn(path: str | None) -> Any:
    name, data = _read(path, CNN_FILE, "--cnn_model")
    if b"loss_mmod_" not in data[:16]:
        raise EmotionError(f"'{name}' is no face detector of dlib's; give its {CNN_FILE}")
    return _load("cnn_face_detection_model_v1", name, data)


def _read(path: str | None, file: str, flag: str) -> tuple[str, bytes]:
    """The name and the bytes of a model: at `path`, or in the extra's folder."""
    if path is None:
        # Beside the package and not through it: importing it needs the retired pkg_resources.
        spec = importlib.util.find_spec("face_recognition_models")
        folders = spec.submodule_search_locations if spec else None
        if not folders:
            raise EmotionError(
                f'{file} is not installed; pip install -e ".[landmarks]" (its 68-point model is '
                f"not for commercial use), or give your own with {flag}=PATH"
            )
        path = os.path.join(folders[0], "models", file)
    name = os.path.expanduser(path)
    if not os.path.isfile(name):
        raise EmotionError(f"'{name}' is no file; give the path of {file}")
    try:
        return name, Path(name).read_bytes()
    except OSError as error:
        raise EmotionError(f"'{name}' cannot be read ({error.strerror or error})") from error


def _load(kind: str, name: str, data: bytes) -> Any:
    """A model of dlib's by the name of its class, from a file that has been looked at."""
    import dlib

    problem = f"'{name}' is damaged or no model of dlib's; download it again"
    if hashlib.sha256(data).hexdigest() not in _KNOWN:
        command = [sys.executable, "-c", _TRIAL, kind, name]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except subprocess.SubprocessError as error:
            raise EmotionError(problem) from error
    try:
        return getattr(dlib, kind)(name)
    except (RuntimeError, MemoryError) as error:
        raise EmotionError(problem) from error


def _parse_mean(data: bytes) -> np.ndarray | None:
    """The mean face with which a shape predictor's file begins: float64 `[68, 2]`; None if not.

    dlib writes an integer as a byte (its sign in bit 7, its length below) and as many bytes, the
    lowest first; a float as two integers, mantissa and exponent of 2; a matrix's sizes negated.
    """
    at = 0

    def integer() -> int:
        nonlocal at
        control, at = data[at], at + 1
        size = control & 0x0F
        value = int.from_bytes(data[at : at + size], "little")
        at += size
        return -value if control & 0x80 else value

    try:
        if (integer(), integer(), integer()) != (1, -2 * POINTS, -1):
            return None
        values = [integer() * 2.0 ** integer() for _ in range(2 * POINTS)]
    except (IndexError, OverflowError):
        return None
    mean = np.array(values).reshape(POINTS, 2)
    return mean if (np.abs(mean) < 3).all() else None  # in a box from 0 to 1


def _box(rectangle: Any, score: float) -> Box:
    size = rectangle.width(), rectangle.height()
    return rectangle.left(), rectangle.top(), *size, float(score)
