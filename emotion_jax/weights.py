"""Weights to share: a folder of `model.safetensors` and `config.json`, small, hashed, without code.

Kernels are stored in float16, biases and BatchNorm in float32: a variance of 1e5 overflows
float16. The only file that knows safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.host.atomic import replace_bytes, replace_text
from emotion_jax.host.json_files import parse_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# The weights that come with the package, each a folder of that name: one for pictures, and one that
# is fast enough for every frame of a film or a camera.
SHIPPED = Path(__file__).parent / "shipped"
DEFAULT, FAST = "simplenet-ferplus", "simplenet-narrow-ferplus"


def shipped_names() -> list[str]:
    """The names that `load_predictor` knows without a path."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS}"))


def find_weights(path: str | Path | None) -> Path:
    """The folder that a path, or a name of shipped weights, means."""
    name = str(DEFAULT if path is None else path)
    return SHIPPED / name if name in shipped_names() else Path(os.path.expanduser(name))


def save_weights(folder: str | Path, variables: Any, meta: dict[str, Any]) -> None:
    """Writes `variables` and `meta` to a folder, made if need be.

    Args:
      folder: receives `model.safetensors` and `config.json`.
      variables: {"params", "batch_stats"}, nested by layer.
      meta: what a predictor must know; see `inference.make_meta`. The weights' SHA-256 is added.
    """
    from safetensors.numpy import save

    # Contiguous: a transposed array would be written wrong, in silence.
    data = save(
        {name: np.ascontiguousarray(_small(name, x)) for name, x in flatten(variables).items()}
    )
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The weights first: a config without them, or with others, is refused by its hash.
        replace_bytes(folder / WEIGHTS, data)
        text = json.dumps({**meta, "sha256": hashlib.sha256(data).hexdigest()}, indent=2)
        replace_text(folder / CONFIG, text + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise EmotionError(f"'{folder}' cannot be written ({reason}); name another") from error


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of a folder of weights.

    Raises:
      EmotionError: it is not there, or not JSON.
    """
    path = Path(folder) / CONFIG
    try:
        meta = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EmotionError(f"'{path}' cannot be read ({error}); fetch the folder anew") from error
    if not isinstance(meta, dict):
        raise EmotionError(f"'{path}' is no JSON object; fetch the folder anew")
    return meta


def load_weights(folder: str | Path, shapes: Any, sha256: str | None) -> Any:
    """Reads the weights of a folder, float32, as the tree that `shapes` is.

    Args:
      folder: as written by `save_weights`.
      shapes: of the network's variables, as from `jax.eval_shape`.
      sha256: of the file; None leaves it unchecked.

    Raises:
      EmotionError: the file is missing, damaged, or of another network.
    """
    path, arrays = Path(folder) / WEIGHTS, read_arrays(folder, sha256)
    expected = flatten(shapes)
    if wrong := expected.keys() ^ arrays.keys():
        raise EmotionError(f"'{path}' is of another network: it differs in {min(wrong)}")
    for name, x in expected.items():
        if arrays[name].shape != x.shape:
            raise EmotionError(
                f"'{path}' is of another network: {name} is {arrays[name].shape}, not {x.shape}"
            )
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise EmotionError(
                f"'{path}' is no trained network: {name} holds what are no finite numbers; fetch "
                "it anew, or train again"
            )
    import jax  # not at the top: who looks for weights need not wait for it

    return jax.tree_util.tree_map_with_path(
        lambda place, x: arrays[name_of(place)].astype(x.dtype), shapes
    )


def read_arrays(folder: str | Path, sha256: str | None) -> dict[str, np.ndarray]:
    """Reads the weights of a folder, whatever their network, each named as by `flatten`.

    Args:
      folder: as written by `save_weights`.
      sha256: of the file; None leaves it unchecked.

    Raises:
      EmotionError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder) / WEIGHTS
    try:
        data = path.read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise EmotionError(f"'{path}' is not the file its {CONFIG} names; fetch both anew")
        return load(data)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, EmotionError):
            raise
        raise EmotionError(f"'{path}' cannot be read ({error}); fetch it anew") from error


def flatten(tree: Any) -> dict[str, Any]:
    """The arrays of a tree, each named by its place: "params/conv01/kernel"."""
    import jax  # likewise

    return {name_of(place): x for place, x in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(place: Any) -> str:
    """The name of an array, from its place in a tree as JAX tells it."""
    return "/".join(entry.key for entry in place)


def _small(name: str, x: Any) -> np.ndarray:
    return np.asarray(x, np.float16 if name.endswith("/kernel") else np.float32)
