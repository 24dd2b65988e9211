"""Reading emotions from faces, in JAX.

Names load what they need when they are first used: `import emotion_jax` touches no device, no
file, and no library but NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS

if TYPE_CHECKING:
    from emotion_jax.analysis import analyze
    from emotion_jax.augmentation import Augmentation, augment
    from emotion_jax.classifying import Mirrored
    from emotion_jax.faces import Face, Finder, crop, detect
    from emotion_jax.image_spec import ImageSpec
    from emotion_jax.inference import Predictor, load_predictor
    from emotion_jax.models import VGG16, SimpleNetV2, make_model
    from emotion_jax.preprocess import normalize
    from emotion_jax.steps import TrainState, eval_step, init_state, predict_probs, train_step

__version__ = "0.1.0"

_HOMES = {
    "analysis": ("analyze",),
    "classifying": ("Mirrored",),
    "faces": ("Face", "Finder", "crop", "detect"),
    "inference": ("Predictor", "load_predictor"),
    "models": ("SimpleNetV2", "VGG16", "make_model"),
    "augmentation": ("Augmentation", "augment"),
    "image_spec": ("ImageSpec",),
    "preprocess": ("normalize",),
    "steps": ("TrainState", "eval_step", "init_state", "predict_probs", "train_step"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "EMOTIONS",
    "VGG16",
    "Augmentation",
    "EmotionError",
    "Face",
    "Finder",
    "ImageSpec",
    "Mirrored",
    "Predictor",
    "SimpleNetV2",
    "TrainState",
    "analyze",
    "augment",
    "crop",
    "detect",
    "eval_step",
    "init_state",
    "load_predictor",
    "make_model",
    "normalize",
    "predict_probs",
    "train_step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'emotion_jax' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"emotion_jax.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
