"""A predictor that is there at once: what an earlier start compiled, without loading JAX."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import emotion_jax  # its names load what they need when they are asked for
from emotion_jax.classifying import Predictor, classify
from emotion_jax.image_spec import ImageSpec, spec_from_meta
from emotion_jax.weights import CONFIG, WEIGHTS, find_weights, read_meta

_PACKAGE = Path(__file__).parents[1]

# How JAX's libraries for other devices than CPUs are called; where there is one, JAX is to choose.
_OTHER_DEVICES = ("jax_plugins", "libtpu")


class InstantPredictor:
    """Maps faces to the probabilities of the emotions, as `inference.Predictor` does on a CPU.

    Attributes:
      spec: how the network wants its faces cropped and coloured.
    """

    def __init__(self, spec: ImageSpec, run: Callable[[np.ndarray], np.ndarray]) -> None:
        self.spec, self._run = spec, run

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Predict; see `inference.Predictor`."""
        return classify(images, self._predict, size=self.spec.size, batch=1)

    def _predict(self, images: np.ndarray) -> np.ndarray:
        return self._run(np.ascontiguousarray(np.broadcast_to(images, _shape(self.spec))))


def load_instantly(path: str | Path | None, folder: Path | None) -> Predictor:
    """As `load_predictor`, without waiting for JAX where this has been called before.

    A folder of weights, or shipped ones, are compiled at the first call and kept. A run's
    checkpoints are not, and nothing is where JAX may find another device than a CPU.

    Args:
      path: as `load_predictor` takes it.
      folder: where to keep what was compiled, see `enable_compilation_cache`. What lies there is
        run. None keeps nothing.

    Raises:
      EmotionError: see `load_predictor`.
    """
    weights, kept = find_weights(path), None
    # Whatever goes wrong, a file that was damaged or another jaxlib than `executables` knows, the
    # answer is to load JAX, which tells what is wrong with the weights.
    with contextlib.suppress(Exception):
        if folder is not None and _is_fit(weights):
            kept = folder / _name(weights)
            if kept.is_file():
                return _read(kept, weights)
    if kept is not None and not _unfit(kept).exists() and sys.stderr.isatty():
        print("compiling the network; later starts need not", file=sys.stderr)
    predictor = emotion_jax.load_predictor(path)
    if kept is not None and not _unfit(kept).exists():
        written = False
        with contextlib.suppress(Exception):
            _keep(predictor.compile(), kept)
            written = True
        with contextlib.suppress(Exception):
            return _read(kept, weights)  # or what another start wrote at the same time
        if written:  # and no use: it is not to be compiled for nothing again
            with contextlib.suppress(OSError):
                _unfit(kept).touch()
    return predictor


def _is_fit(weights: Path) -> bool:
    """Whether it is a folder of weights, to be read by a CPU."""
    elsewhere = any(importlib.util.find_spec(name) for name in _OTHER_DEVICES)
    return os.path.isfile(weights / WEIGHTS) and not elsewhere


def _name(weights: Path) -> str:
    """The name of a file for these weights, as this version of everything compiles them."""
    digest = hashlib.sha256()
    for path in (weights / CONFIG, weights / WEIGHTS):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    first = digest.hexdigest()[:16]
    # JAX's version and the processor are in the folder's name.
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in ("jaxlib", "flax"):
        digest.update(importlib.metadata.version(name).encode())
    for name, value in sorted(os.environ.items()):
        if name.startswith(("JAX_", "XLA_")):
            digest.update(f"{name}={value}\n".encode())
    return f"{first}-{digest.hexdigest()[:16]}.npz"


def _unfit(kept: Path) -> Path:
    """The file that says that this jaxlib cannot run what was kept."""
    return kept.with_suffix(".unfit")


def _keep(compiled: tuple[bytes, list[np.ndarray]], kept: Path) -> None:
    """Write what was compiled, in place of what an earlier version left of the same weights."""
    from emotion_jax.host.executables import write_executable

    write_executable(kept, *compiled)
    for other in kept.parent.glob(f"{kept.name.partition('-')[0]}-*"):
        if other != kept:
            other.unlink(missing_ok=True)  # another start may do the same


def _read(kept: Path, weights: Path) -> InstantPredictor:
    """The predictor of a file that was kept, called once."""
    from emotion_jax.host.executables import read_executable

    meta = read_meta(weights)
    spec = spec_from_meta(meta)
    predictor = InstantPredictor(spec, read_executable(kept, output=(1, len(meta["emotions"]))))
    predictor(np.zeros(_shape(spec), np.uint8))
    return predictor


def _shape(spec: ImageSpec) -> tuple[int, int, int, int]:
    return 1, spec.size, spec.size, 3
