"""SimpleNetV2: thirteen 3x3 convolutions, two pools, a global maximum."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from emotion_jax.models.layers import global_max_pool, max_pool_2x2, scale_features

# After both pools and the six rows and columns that unpadded convolutions take at 1/1 scale and
# the four at 1/4, at least one pixel must remain.
MIN_SIZE = 26
# Of BatchNorm: Keras' default, with which the port was trained.
EPSILON = 1e-3


class Block(NamedTuple):
    """One row of the network's table."""

    features: int
    padding: Literal["SAME", "VALID"]
    pool: Literal["", "before relu", "after dropout"] = ""


BLOCKS = (
    Block(66, "SAME"),
    Block(128, "SAME"),
    Block(128, "VALID"),
    Block(128, "VALID"),
    Block(192, "VALID", "before relu"),
    Block(192, "SAME"),
    Block(192, "SAME"),
    Block(192, "SAME"),
    Block(192, "SAME"),
    Block(288, "SAME", "after dropout"),
    Block(288, "SAME"),
    Block(355, "VALID"),
    Block(432, "VALID"),
)


class SimpleNetV2(nn.Module):
    """SimpNet V2 5M (Hasanpour et al., "Towards Principled Design of Deep Convolutional Networks",
    arXiv 1802.06205) with the padding of its Keras port for faces.

    At width 1 and eight classes: 5,482,903 numbers, 5,477,357 of them trained, for 64x64x3 input.

    Attributes:
      num_classes: of the output; None returns the pooled features `[B, 432 * width]`.
      width: multiplies every layer's width, rounded to multiples of 8.
      dropout: rates before and after the second pool.
      dtype: of the computation; parameters, statistics and logits stay float32.
      momentum: of BatchNorm's running statistics.
      axis_name: the mapped axis over which BatchNorm takes its statistics, if any.
      padding: "SAME" for every convolution, so that none takes the border away: the same parameters
        and, of 64 pixels, 1.24 times the products. Empty for the table's.
    """

    num_classes: int | None = 8
    width: float = 1.0
    dropout: tuple[float, float] = (0.2, 0.3)
    dtype: Any = jnp.float32
    momentum: float = 0.95
    axis_name: str | None = None
    padding: Literal["", "SAME"] = ""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps normalized images `[B, H, W, C]`, 26 pixels and up, to logits float32 `[B, K]`."""
        if min(x.shape[1:3]) < MIN_SIZE:
            raise ValueError(
                f"SimpleNetV2 needs {MIN_SIZE}x{MIN_SIZE} pixels or more, not {x.shape}"
            )
        early, late = self.dropout
        rate = early
        for i, block in enumerate(BLOCKS, start=1):
            x = nn.Conv(
                scale_features(block.features, self.width),
                (3, 3),
                padding=self.padding or block.padding,
                dtype=self.dtype,
                # The published recipe: Xavier, and Gaussian of 0.01 for the third to the fifth.
                kernel_init=nn.initializers.normal(0.01)
                if 3 <= i <= 5
                else nn.initializers.xavier_uniform(),
                name=f"conv{i:02}",
            )(x)
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=EPSILON,
                dtype=self.dtype,
                axis_name=self.axis_name if train else None,
                name=f"bn{i:02}",
            )(x)
            if block.pool == "before relu":
                x = max_pool_2x2(x)
            x = nn.relu(x)
            x = nn.Dropout(rate, deterministic=not train)(x)
            if block.pool == "after dropout":
                x = max_pool_2x2(x)
                rate = late
        x = global_max_pool(x).astype(jnp.promote_types(self.dtype, jnp.float32))
        if self.num_classes is None:
            return x
        x = nn.Dropout(late, deterministic=not train)(x)
        return nn.Dense(
            self.num_classes,
            dtype=x.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="head",
        )(x)
