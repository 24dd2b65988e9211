"""VGG16: the deep plain network."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from emotion_jax.models.layers import max_pool_2x2, scale_features

# Convolutions and features of each stage: configuration D of the paper's table 1.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
HIDDEN = 4096


class VGG16(nn.Module):
    """Configuration D of Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
    Image Recognition", arXiv 1409.1556.

    At width 1, 224x224x3 input and 1000 classes: 138,357,544 parameters.

    Attributes:
      num_classes: of the output; None returns the second hidden layer `[B, 4096 * width]`.
      width: multiplies every layer's width, rounded to multiples of 8.
      dropout: rates after the two hidden layers.
      dtype: of the computation; parameters and logits stay float32.
      axis_name: unused, there is no BatchNorm; every network has it, for the step to set.
    """

    num_classes: int | None = 8
    width: float = 1.0
    dropout: tuple[float, float] = (0.5, 0.5)
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps normalized images `[B, H, W, C]`, 32 pixels and up, to logits float32 `[B, K]`."""
        if min(x.shape[1:3]) < 32:
            raise ValueError(
                f"VGG16 halves its input five times: needs 32x32 pixels, not {x.shape}"
            )
        for stage, (count, features) in enumerate(STAGES, start=1):
            for i in range(1, count + 1):
                x = nn.Conv(
                    scale_features(features, self.width),
                    (3, 3),
                    padding="SAME",
                    dtype=self.dtype,
                    # Sixteen layers without BatchNorm need He et al.'s variance to start learning.
                    kernel_init=nn.initializers.he_normal(),
                    name=f"conv{stage}_{i}",
                )(x)
                x = nn.relu(x)
            x = max_pool_2x2(x)
        x = x.reshape(x.shape[0], -1)
        for i, rate in enumerate(self.dropout, start=1):
            x = nn.Dense(
                scale_features(HIDDEN, self.width),
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
                name=f"fc{i}",
            )(x)
            x = nn.relu(x)
            x = nn.Dropout(rate, deterministic=not train)(x)
        x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
        if self.num_classes is None:
            return x
        return nn.Dense(
            self.num_classes,
            dtype=x.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="head",
        )(x)
