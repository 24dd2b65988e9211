"""Teachers: finished networks whose answers another one learns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from emotion_jax.errors import EmotionError
from emotion_jax.host.manifest import file_sha256
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import model_from_meta
from emotion_jax.preprocess import fit_size, normalize
from emotion_jax.weights import WEIGHTS, find_weights, load_weights, read_meta


class Teacher(NamedTuple):
    """One finished network.

    Attributes:
      model: the Flax module.
      spec: its pixels.
      variables: its parameters and statistics, NumPy arrays.
      sha256: of the file that holds them.
    """

    model: nn.Module
    spec: ImageSpec
    variables: Any
    sha256: str


def load_teachers(paths: Sequence[str], emotions: Sequence[str]) -> tuple[Teacher, ...]:
    """Reads exported weights to learn from.

    Args:
      paths: folders that `emotion_jax.export` wrote, or names of shipped weights.
      emotions: the classes of the network that learns; the teachers' must be the same.

    Raises:
      EmotionError: there are no such weights, or they are damaged or know other classes.
    """
    return tuple(_load(path, list(emotions)) for path in paths)


def find_teacher(path: str) -> Path:
    """The folder of exported weights, or of shipped ones by their name.

    Raises:
      EmotionError: there are no such weights.
    """
    folder = find_weights(path)
    if not os.path.isfile(folder / WEIGHTS):
        raise EmotionError(
            f"distill.teachers: no {WEIGHTS} in '{path}'; python -m emotion_jax.export writes it"
        )
    return folder


def _load(path: str, emotions: list[str]) -> Teacher:
    folder = find_teacher(path)
    meta = read_meta(folder)
    model, spec, shapes = model_from_meta(meta)
    if meta["emotions"] != emotions:
        raise EmotionError(
            f"distill.teachers: '{path}' knows {len(meta['emotions'])} emotions, this network "
            f"{len(emotions)}; set data.num_classes, or name another"
        )
    variables = load_weights(folder, shapes, meta.get("sha256"))
    return Teacher(model, spec, variables, file_sha256(folder / WEIGHTS))


def answers(
    images: jax.Array,
    variables: Sequence[Any],
    *,
    teachers: Sequence[Teacher],
    temperature: float,
) -> jax.Array:
    """The mean of the teachers' softened probabilities.

    Args:
      images: uint8 or float `[B, H, W, C]` in 0..255, square; brought to each teacher's pixels.
      variables: of each teacher, wherever they lie: arguments of a compiled function, which would
        otherwise hold them as constants.
      teachers: the networks, at least one.
      temperature: divides their logits; 1 leaves the probabilities as they are.

    Returns:
      float32 `[B, K]`, rows sum to 1.
    """

    def one(teacher: Teacher, variables: Any) -> jax.Array:
        x = normalize(fit_size(images, teacher.spec.size), teacher.spec)
        logits: Any = teacher.model.apply(variables, x, train=False)
        return jax.nn.softmax(logits / temperature)

    return jnp.stack([one(*pair) for pair in zip(teachers, variables, strict=True)]).mean(0)
