"""Faces to probabilities: the same pure functions as in training, ready to be called."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from emotion_jax.classifying import classify
from emotion_jax.errors import EmotionError
from emotion_jax.host.json_files import parse_json
from emotion_jax.image_spec import ImageSpec, spec_from_meta
from emotion_jax.labels import EMOTIONS
from emotion_jax.models import make_model
from emotion_jax.models.winograd import Kernels, transform_kernels, use_kernels
from emotion_jax.steps import predict_probs
from emotion_jax.weights import (
    WEIGHTS,
    find_weights,
    flatten,
    load_weights,
    read_arrays,
    read_meta,
    shipped_names,
)

# Faces in one call of the network; more are taken in turns, so that memory stays bounded.
MAX_BATCH = 256
# Of weights' meta. Past these all answers are alike, or logits leave the range of their type.
TEMPERATURES = (1e-3, 1e3)


class Predictor:
    """Maps faces to the probabilities of the emotions.

    Attributes:
      spec: how the network wants its faces cropped and coloured.
      model: the Flax module.
      variables: its parameters and statistics, on the device.
      meta: what is known of the weights; see `make_meta`. Its "temperature", where it has one,
        divides the logits.
    """

    def __init__(self, model: nn.Module, variables: Any, spec: ImageSpec, *, meta: dict[str, Any]):
        self.model, self.spec, self.meta = model, spec, meta
        self.variables = jax.device_put(variables)
        temperature = meta.get("temperature", 1.0)
        low, high = TEMPERATURES
        if not isinstance(temperature, int | float) or not low <= temperature <= high:
            value = repr(temperature)[:60]
            raise EmotionError(f"temperature: {value} in the weights' meta; use {low} to {high}")
        self._kernels: Kernels = {}
        if jax.default_backend() == "cpu" and getattr(model, "dtype", None) == jnp.float32:
            self._kernels = transform_kernels(self.variables["params"])
        # A wide network's maps leave a core's cache where several faces share a call.
        self._batch = 1 if self._kernels else MAX_BATCH
        self._unjitted = partial(_predict_probs, model=model, spec=spec, temperature=temperature)
        self._probs = jax.jit(self._unjitted)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Predicts.

        Args:
          images: faces uint8 `[N, H, W, C]`, C 3 (RGB) or 1 (grey), of any height and width.

        Returns:
          Probabilities float32 `[N, 8]` in the order of `EMOTIONS`; rows sum to 1.
        """
        return classify(images, self._predict, size=self.spec.size, batch=self._batch)

    def compile(self) -> tuple[bytes, list[np.ndarray]]:
        """Compile the network for one face.

        Returns:
          machine code of a function of these arrays and a face uint8 `[1, size, size, 3]` to the
          probabilities float32 `[1, K]`; see `executables.Executable`. The arrays.
        """

        def probs_of_a_face(variables: Any, kernels: Kernels, images: jax.Array) -> jax.Array:
            return self._unjitted(variables, kernels, images)

        arrays = self.variables, self._kernels
        face = jax.ShapeDtypeStruct((1, self.spec.size, self.spec.size, 3), jnp.uint8)
        probs = jax.jit(probs_of_a_face, keep_unused=True)  # all arrays, in their order
        with _compiled_anew():
            code: Any = probs.lower(*arrays, face).compile().runtime_executable()
        return code.serialize(), [np.asarray(leaf) for leaf in jax.tree.leaves(arrays)]

    def _predict(self, images: np.ndarray) -> np.ndarray:
        # Filled up to 1, 2, 4, 8, ... faces: each new count would compile again.
        bucket = 1 << (len(images) - 1).bit_length()
        padded = np.zeros((bucket, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        return np.asarray(self._probs(self.variables, self._kernels, padded))[: len(images)]


@contextlib.contextmanager
def _compiled_anew() -> Iterator[None]:
    """Let XLA's cache keep nothing: code that comes from there cannot be serialized once more."""
    option = "jax_persistent_cache_min_compile_time_secs"
    least = getattr(jax.config, option)
    jax.config.update(option, math.inf)
    try:
        yield
    finally:
        jax.config.update(option, least)


def _predict_probs(variables: Any, kernels: Kernels, images: jax.Array, **static: Any) -> jax.Array:
    """As `steps.predict_probs`, with the kernels that are faster on a CPU."""
    with nn.intercept_methods(use_kernels(kernels)):
        return predict_probs(variables, images, **static)


def make_meta(
    model_name: str,
    model_options: dict[str, Any],
    spec: ImageSpec,
    *,
    emotions: Sequence[str] = EMOTIONS,
) -> dict[str, Any]:
    """What a predictor must know beside the weights, fit for JSON; `emotions` are the classes."""
    return {
        "emotions": list(emotions),
        "model": {"name": model_name, **model_options},
        "spec": dataclasses.asdict(spec),
    }


def model_from_meta(meta: dict[str, Any]) -> tuple[nn.Module, ImageSpec, Any]:
    """The network, its pixels and the shapes of its variables, without drawing any parameter."""
    try:
        classes = meta["emotions"]
        if classes == []:
            raise EmotionError(
                "these weights name no emotions, they are to be trained from: set init_from"
            )
        if classes != list(EMOTIONS[: len(classes)]):
            raise EmotionError(f"its classes are {classes}, not {list(EMOTIONS)} or the first ones")
        options = {k: v for k, v in meta["model"].items() if k != "name"}
        model = make_model(meta["model"]["name"], num_classes=len(classes), **options)
        spec = spec_from_meta(meta)
    except EmotionError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EmotionError(f"the checkpoint's meta is not ours ({error})") from error
    # A shape, not a picture: a size that cannot be meant must cost nothing.
    image = jax.ShapeDtypeStruct((1, spec.size, spec.size, spec.channels), jnp.float32)
    try:
        # The key, too, is only a shape: to draw one would compile its generator, for 0.2 s.
        shapes = jax.eval_shape(
            lambda image: model.init(jax.random.key(0), image, train=False), image
        )
    except (ValueError, TypeError) as error:
        what = f"model.{meta['model']['name']} cannot be built at {spec.size} pixels"
        raise EmotionError(f"{what}: {str(error).splitlines()[0]}") from error
    # A network without BatchNorm has no statistics; the checkpoint holds the empty entry.
    return model, spec, {"batch_stats": {}, **shapes}


def load_predictor(path: str | Path | None = None) -> Predictor:
    """Loads weights to predict with.

    Args:
      path: the name of shipped weights; a folder of `config.json` and `model.safetensors`; a run's
        workdir (its best checkpoint is taken); or one checkpoint, `<workdir>/checkpoints/<step>`.
        None takes the shipped default.

    Returns:
      the predictor; on a CPU, a network trained in bfloat16 computes in float32.

    Raises:
      EmotionError: there are no such weights, or they are damaged or of another network.
    """
    folder = find_weights(path)
    if os.path.isfile(folder / WEIGHTS):
        meta = read_meta(folder)
        model, spec, shapes = model_from_meta(meta)
        variables = load_weights(folder, shapes, meta.get("sha256"))
    else:
        model, spec, variables, meta = _load_checkpoint(folder)
    if jax.default_backend() == "cpu" and getattr(model, "dtype", None) == jnp.bfloat16:
        # The parameters are float32 anyway, and a CPU computes bfloat16 by way of it, slower.
        model = model.clone(dtype=jnp.float32)
    return Predictor(model, variables, spec, meta=meta)


def check_weights(path: str | Path) -> None:
    """Finds out whether there are weights, without reading them.

    Raises:
      EmotionError: there are none.
    """
    folder = find_weights(path)
    if not os.path.isfile(folder / WEIGHTS):
        _find_checkpoints(folder)


def read_variables(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads weights to train from: arrays named as by `weights.flatten`, and their meta.

    Args:
      path: as `load_predictor` takes it; a folder may hold part of a network, or no emotions.

    Raises:
      EmotionError: there are no such weights, or they are damaged.
    """
    folder = find_weights(path)
    if os.path.isfile(folder / WEIGHTS):
        meta = read_meta(folder)
        return read_arrays(folder, meta.get("sha256")), meta
    *_, variables, meta = _load_checkpoint(folder)
    return flatten(variables), meta


def _load_checkpoint(path: Path) -> tuple[nn.Module, ImageSpec, Any, dict[str, Any]]:
    folder, step = _find_checkpoints(path)
    from emotion_jax.checkpoint import Checkpoints

    with Checkpoints(folder, monitor=_monitor(folder), read_only=True) as checkpoints:
        if checkpoints.latest_step is None:
            raise EmotionError(
                f"'{path}' holds no finished checkpoint; train longer, or name another"
            )
        meta = checkpoints.read_meta(step)
        model, spec, shapes = model_from_meta(meta)
        return model, spec, checkpoints.read_model(shapes, step), meta


def _find_checkpoints(path: Path) -> tuple[Path, int | None]:
    """The folder of checkpoints, and which of them if `path` says it."""
    if os.path.isdir(path / "checkpoints"):
        return path / "checkpoints", None
    if path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir():
        return path.parent, int(path.name)
    if path.name == "checkpoints" and path.is_dir():
        return path, None
    raise EmotionError(
        f"'{path}' is no workdir with checkpoints, no folder with {WEIGHTS}, and not among the "
        f"shipped weights ({', '.join(shipped_names())}); to train some: "
        "python launch.py --config=configs/quickstart.py"
    )


def _monitor(folder: Path) -> str:
    """The metric that chose the best of a run's checkpoints."""
    from emotion_jax.config import MONITORED

    try:
        best = parse_json((folder.parent / "config.json").read_bytes())["best"]
    except (OSError, ValueError, KeyError, TypeError):
        best = None  # a copied folder without its config: the default of every config
    return best if best in MONITORED else MONITORED[0]
