"""The weights that a run begins with, where it does not draw them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.inference import check_weights, read_variables
from emotion_jax.models.widening import widen
from emotion_jax.steps import TrainState
from emotion_jax.training.teachers import find_teacher
from emotion_jax.weights import flatten, name_of

# What the weights must have been trained with for the run to begin where they ended.
PIXELS = ("grey", "channels", "mean", "std")


class Beginning(NamedTuple):
    """Where a run begins.

    Attributes:
      state: with the weights.
      drawn: the layers that were left as drawn.
      width: of the weights, where they were widened.
      mark: of the weights, 32 bits; other weights have another.
    """

    state: TrainState
    drawn: list[str]
    width: float | None
    mark: int


def check_weights_of(config: Any) -> None:
    """Finds out whether the weights are there that a run begins with and learns from.

    Raises:
      EmotionError: some are not.
    """
    if config.init_from:
        check_weights(config.init_from)
    for path in config.distill.teachers:
        find_teacher(path)


def begin_from(path: str, state: TrainState, meta: dict[str, Any]) -> Beginning:
    """Puts trained weights into a state that was just drawn, wherever its network has the layer.

    A layer that the weights lack stays as it was drawn: the top of a VGG16, or the head where they
    know another number of classes. Weights of a narrower network are widened.

    Args:
      path: as `inference.load_predictor` takes it, or weights that name no emotions.
      state: of the run; its leaves' places on devices stay as they are.
      meta: of the run, see `inference.make_meta`.

    Raises:
      EmotionError: the weights are of another network, or of other pixels.
    """
    arrays, theirs = read_variables(path)
    mark = mark_of(arrays)
    others = _must_agree(theirs)
    for key, mine in _must_agree(meta).items():
        if mine != (other := others[key]):
            raise EmotionError(f"{key}: {mine}, but '{path}' has {other}; set the same")
    new = {"params": state.params, "batch_stats": state.batch_stats}
    width, other = (m["model"].get("width", 1.0) for m in (meta, theirs))
    if width < other:
        raise EmotionError(f"model.width: {width}, but '{path}' has {other}; set as much or more")
    if width > other:
        shapes = {name: leaf.shape for name, leaf in flatten(new).items()}
        for name, array in arrays.items():  # a little more may round to less
            here, there = shapes.get(name, array.shape)[-1], array.shape[-1]
            if here < there and "/head/" not in name:
                raise EmotionError(
                    f"model.width: {width} rounds {name} to {here} features, but '{path}' has "
                    f"{there}; set {other}, or a little more than {width}"
                )
        arrays = widen(arrays, shapes, seed=0)
    drawn = set()

    def begin(place: Any, leaf: jax.Array) -> jax.Array:
        name = name_of(place)
        layer, found = name.split("/")[1], arrays.get(name)
        if found is None or (layer == "head" and found.shape != leaf.shape):
            drawn.add(layer)
            return leaf
        if found.shape != leaf.shape:
            raise EmotionError(
                f"init_from: '{path}' has {name} {found.shape}, this network {leaf.shape}; set "
                f"image_size={theirs['spec']['size']}, or use weights without a top"
            )
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: np.array(found[index], leaf.dtype)
        )

    new = jax.tree_util.tree_map_with_path(begin, new)
    if len(drawn) == len(state.params):
        raise EmotionError(f"init_from: '{path}' has no layer of this network; name another")
    # From its own leaves, for a donated state must not share any buffer.
    ema = jax.tree_util.tree_map_with_path(begin, state.ema)
    state = dataclasses.replace(state, **new, ema=ema)
    return Beginning(state, sorted(drawn), other if width > other else None, mark)


def mark_of(arrays: Mapping[str, np.ndarray]) -> int:
    """A checksum of arrays by name, which a run that begins with them adds to its seed.

    With the seed of the run before, it would draw the same crops, turns and masks for the same
    faces, step by step; and a network remembers. One that had learnt from the same draws in eight
    runs had a loss of 0.65 on them, and of 0.78 on others of the same faces.
    """
    mark = 0
    for name in sorted(arrays):
        mark = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), mark)
    return mark


def _must_agree(meta: dict[str, Any]) -> dict[str, Any]:
    spec = meta["spec"]
    pixels = {key: tuple(v) if isinstance(v := spec[key], list) else v for key in PIXELS}
    model = meta["model"]
    # No shape tells it: the weights would fit, and answer otherwise.
    padding = model.get("padding") or "''"
    return {"model.name": model["name"], "model.padding": padding, **pixels}
