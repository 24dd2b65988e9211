"""A worker of `train_step.py`: the same step in Keras, compiled as `fit` compiles it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from flops import SIZES  # noqa: E402
from keras import layers  # noqa: E402
from measuring import peak_resident, processor, serve, time_steps  # noqa: E402

from emotion_jax.models.layers import scale_features  # noqa: E402
from emotion_jax.models.simplenet import BLOCKS  # noqa: E402
from emotion_jax.models.vgg import HIDDEN, STAGES  # noqa: E402


def make_network(network: str, width: float) -> keras.Model:
    """SimpleNetV2 or VGG16 with eight classes, from pixels 0..255."""
    size, scale = SIZES[network], partial(scale_features, width=width)
    x = pixels = layers.Input((size, size, 3))
    x = layers.Rescaling(1 / 255 / 0.25, -0.5 / 0.25)(x)
    if network == "simplenet":
        rate = 0.2
        for block in BLOCKS:
            x = layers.Conv2D(scale(block.features), 3, padding=block.padding.lower())(x)
            x = layers.BatchNormalization(momentum=0.95, epsilon=1e-3)(x)
            if block.pool == "before relu":
                x = layers.MaxPooling2D()(x)
            x = layers.Dropout(rate)(layers.ReLU()(x))
            if block.pool == "after dropout":
                x, rate = layers.MaxPooling2D()(x), 0.3
        x = layers.Dropout(rate)(layers.GlobalMaxPooling2D()(x))
    else:
        for count, features in STAGES:
            for _ in range(count):
                x = layers.Conv2D(scale(features), 3, padding="same", activation="relu")(x)
            x = layers.MaxPooling2D()(x)
        x = layers.Flatten()(x)
        for _ in range(2):
            x = layers.Dropout(0.5)(layers.Dense(scale(HIDDEN), activation="relu")(x))
    return keras.Model(pixels, layers.Dense(8, dtype="float32")(x))


def work(
    network: str,
    precision: str,
    batch: int,
    levers: list[str],
    seconds: float,
    width: float,
    **_: Any,
) -> dict[str, Any]:
    """Trains on one batch of noise by `train_on_batch`; takes no levers."""
    if levers:
        raise SystemExit(f"keras has no lever {levers[0]}")
    keras.utils.set_random_seed(0)
    if precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = make_network(network, width)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=1e-4)
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() == "jax")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, *model.input_shape[1:]), np.uint8)
    labels = np.eye(8, dtype=np.float32)[rng.integers(0, 8, batch)]

    def step() -> float:
        return float(model.train_on_batch(images, labels))

    found = time_steps(step, lambda _: None, seconds=seconds)
    versions = {"keras": f"{keras.__version__} on {keras.backend.backend()}"}
    return {
        **found,
        "loss": step(),
        "peak_memory": peak_resident(),
        "device": processor(),
        "versions": versions,
    }


if __name__ == "__main__":
    serve(work)
