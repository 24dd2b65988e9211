"""What the networks share.

Both maxima pick the winner's position first and then let its value through. The plain
`x.max(axes)` gives the gradient to every input that *equals* the maximum; under `jit` the input
may be computed twice, rounded differently each time, and then nothing equals it: after dropout,
a third of a layer's gradient was lost that way on a CPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def scale_features(features: int, width: float) -> int:
    """Multiplies a layer's width; exact at 1.0, else to the nearest multiple of 8, at least 8."""
    return features if width == 1.0 else max(8, round(features * width / 8) * 8)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Takes the maximum of 2x2 windows with stride 2: `[B, H, W, C]` to `[B, H//2, W//2, C]`.

    An odd last row or column is dropped, as "valid" pooling does. Its gradient is elementwise;
    that of `nn.max_pool` is a scatter, slow and not deterministic on a GPU.
    """
    b, h, w, c = x.shape
    windows = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    best, winner = windows[:, :, 0, :, 0], jnp.zeros((b, h // 2, w // 2, c), jnp.int8)
    for position, (i, j) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
        value = windows[:, :, i, :, j]
        # A NaN wins, so that what has gone wrong is seen further up.
        wins = (value > best) | jnp.isnan(value)
        winner = jnp.where(wins, jnp.int8(position), winner)
        best = jnp.maximum(value, best)
    positions = jnp.arange(4, dtype=jnp.int8).reshape(2, 1, 2, 1)
    won = winner[:, :, None, :, None] == positions
    return jnp.where(won, windows, 0).sum(axis=(2, 4))


def global_max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum of each channel over the whole map: `[B, H, W, C]` to `[B, C]`."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    won = jnp.arange(x.shape[1])[:, None] == x.argmax(axis=1, keepdims=True)
    return jnp.where(won, x, 0).sum(axis=1)
