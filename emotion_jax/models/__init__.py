"""The networks, as Flax modules."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from emotion_jax.errors import EmotionError
from emotion_jax.models.simplenet import SimpleNetV2
from emotion_jax.models.vgg import VGG16

__all__ = ["MODELS", "SimpleNetV2", "VGG16", "make_model"]

MODELS: dict[str, type[nn.Module]] = {"simplenet": SimpleNetV2, "vgg16": VGG16}
# SimpleNetV2 has 1.4 billion parameters then.
MAX_WIDTH = 16


def make_model(name: str, **kwargs: Any) -> nn.Module:
    """Builds a network by name: "simplenet" or "vgg16".

    Args:
      name: of the network.
      **kwargs: the module's attributes; `dtype` may be a string, lists become tuples, and an empty
        `dropout` or `padding` leaves the network's own.

    Raises:
      EmotionError: no such network, attribute or dtype.
    """
    if name not in MODELS:
        raise EmotionError(f"model.name: no network '{name}'; use one of {', '.join(MODELS)}")
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    for key, empty in (("dropout", ()), ("padding", "")):
        if kwargs.get(key) == empty:
            del kwargs[key]
    known = {
        field for field in MODELS[name].__dataclass_fields__ if field not in ("parent", "name")
    }
    if unknown := set(kwargs) - known:
        raise EmotionError(
            f"model.{min(unknown)}: {name} has no such option; it has {', '.join(sorted(known))}"
        )
    if "dtype" in kwargs:
        try:
            dtype = jnp.dtype(kwargs["dtype"])
        except TypeError:
            dtype = jnp.dtype(bool)
        if dtype.name not in ("float32", "bfloat16", "float64"):
            raise EmotionError(f"model.dtype: '{kwargs['dtype']}' is neither float32 nor bfloat16")
        # The very object that the modules have as a default, so that equal modules hash alike.
        kwargs["dtype"] = getattr(jnp, dtype.name)
    if "dropout" in kwargs:
        pair = isinstance(kwargs["dropout"], tuple) and len(kwargs["dropout"]) == 2
        if not pair or not all(0 <= rate < 1 for rate in kwargs["dropout"]):
            raise EmotionError(
                f"model.dropout: {kwargs['dropout']}; use two rates, such as (0.2, 0.3)"
            )
    if kwargs.get("padding", "SAME") != "SAME":
        raise EmotionError(
            f"model.padding: '{kwargs['padding']}'; use SAME, or nothing for the network's own"
        )
    if not 0 < kwargs.get("width", 1.0) <= MAX_WIDTH:
        raise EmotionError(f"model.width: {kwargs['width']}; must be above 0, at most {MAX_WIDTH}")
    return MODELS[name](**kwargs)
