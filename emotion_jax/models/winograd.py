"""3x3 convolutions with fewer multiplications, for CPUs.

Winograd's F(2x2, 3x3) makes the four outputs of a tile by sixteen products a channel, where
thirty-six are usual; F(4x4, 3x3) makes sixteen by thirty-six, where a hundred and forty-four are
(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308). The sums
come in another order; in float32 that moves an output by some millionths of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

# With fewer channels, what is saved in products goes into the sums around them. In training it pays
# sooner, because XLA's gradients of a convolution are slower still than the convolution.
MIN_CHANNELS = 32
MIN_CHANNELS_IN_TRAINING = 16

# Channels times features up to which one picture alone is convolved by large tiles: their kernels,
# 36 numbers for each, then stay in a core's cache. Beyond it reading them costs more than products.
MOST_FOR_LARGE_TILES = 8192


class Tile(NamedTuple):
    """The paper's matrices for tiles that make so many outputs across."""

    outputs: int
    spread: np.ndarray  # its B, transposed: a tile's pixels to what is multiplied
    kernel: np.ndarray  # G: the three numbers of a kernel likewise
    gather: np.ndarray  # A, transposed: products to outputs


SMALL = Tile(
    outputs=2,
    spread=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    kernel=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    gather=np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
)
LARGE = Tile(
    outputs=4,
    spread=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    kernel=np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    gather=np.array(
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    ),
)

Kernels = dict[str, jax.Array]


def transform_kernels(params: Any) -> Kernels:
    """Transform the 3x3 kernels that it pays for, once for all pictures.

    Args:
      params: of a network.

    Returns:
      by the layer's name ("conv05"), float32 `[16 or 36, C, features]`.
    """
    kernels = {}
    for name, kernel in flatten_dict(params, sep="/").items():
        layer, _, leaf = name.rpartition("/")
        if leaf == "kernel" and kernel.shape[:2] == (3, 3) and kernel.shape[2] >= MIN_CHANNELS:
            tile = LARGE if kernel.shape[2] * kernel.shape[3] <= MOST_FOR_LARGE_TILES else SMALL
            kernels[layer] = jnp.asarray(_transform(np.asarray(kernel), tile))
    return kernels


def use_kernels(kernels: Kernels) -> Callable[..., Any]:
    """Make an interceptor for `nn.intercept_methods` that convolves by `convolve`.

    Args:
      kernels: from `transform_kernels`; layers without one, and those with a stride, a dilation,
        groups, a mask or a padding of their own, convolve as ever.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer: Any = context.module
        if not _can_do(layer, args) or "/".join(layer.path) not in kernels:
            return call(*args, **kwargs)
        return _apply(layer, args[0], kernels["/".join(layer.path)])

    return intercept


def accelerate(platform: str) -> AbstractContextManager[None]:
    """A context in which networks train, and are evaluated, as fast as one such device can.

    Args:
      platform: of the device; "cpu" gets `intercept_training`, all others are left alone.
    """
    return nn.intercept_methods(intercept_training) if platform == "cpu" else nullcontext()


def intercept_training(
    call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """An interceptor for `nn.intercept_methods` that convolves, and finds gradients, by `convolve`.

    The kernels are transformed anew at every call. Layers of few channels or of another dtype than
    float32, and those with a stride, a dilation, groups, a mask or a padding of their own, convolve
    as ever.
    """
    layer: Any = context.module
    if not _can_do(layer, args) or not layer.has_variable("params", "kernel"):
        return call(*args, **kwargs)
    kernel: jax.Array = layer.get_variable("params", "kernel")
    is_float32 = layer.dtype in (None, jnp.float32) and args[0].dtype == jnp.float32
    if kernel.shape[:2] != (3, 3) or kernel.shape[2] < MIN_CHANNELS_IN_TRAINING or not is_float32:
        return call(*args, **kwargs)
    return _apply(layer, args[0], _transform(kernel, LARGE))


def _can_do(layer: Any, args: Any) -> bool:
    return (
        isinstance(layer, nn.Conv)
        and [x.ndim for x in args] == [4]
        and layer.padding in ("SAME", "VALID")
        and layer.feature_group_count == 1
        and layer.mask is None
        and all(each in (1, (1, 1)) for each in (layer.strides, layer.kernel_dilation))
    )


def _apply(layer: nn.Conv, x: jax.Array, kernel: jax.Array) -> jax.Array:
    y = convolve(x, kernel, padding=str(layer.padding))
    return y + layer.get_variable("params", "bias") if layer.use_bias else y


def _transform(kernel: Any, tile: Tile) -> Any:
    """`[3, 3, C, features]` to `[16 or 36, C, features]`."""
    matrix = tile.kernel.astype(np.float32)
    tall = matrix @ kernel.reshape(3, -1)
    square = matrix @ tall.reshape(len(matrix), 3, -1)  # [4 or 6, 4 or 6, C * features]
    return square.reshape(len(matrix) ** 2, *kernel.shape[2:])


def convolve(x: jax.Array, kernel: jax.Array, *, padding: str) -> jax.Array:
    """Convolve by 3x3 with stride 1.

    Args:
      x: float `[B, H, W, C]`.
      kernel: `[16 or 36, C, features]`, from `transform_kernels`.
      padding: "SAME" or "VALID".

    Returns:
      float `[B, H', W', features]`; H' and W' are H and W, or less by 2 where "VALID".
    """
    tile = LARGE if len(kernel) == len(LARGE.kernel) ** 2 else SMALL
    side, step = len(tile.kernel), tile.outputs
    border = 1 if padding == "SAME" else 0
    batch, height, width, channels = x.shape
    height, width = height + 2 * border - 2, width + 2 * border - 2
    rows, columns = -(-height // step), -(-width // step)
    bottom, right = border + rows * step - height, border + columns * step - width
    x = jnp.pad(x, ((0, 0), (border, bottom), (border, right), (0, 0)))
    # Barriers, because XLA would else weave all steps into one loop, and compile it for 20 s.
    fixed = jax.lax.optimization_barrier
    lines = [x[:, i : i + step * rows : step] for i in range(side)]
    x = fixed(_combine(tile.spread, lines, axis=0))
    lines = [x[..., j : j + step * columns : step, :] for j in range(side)]
    x = fixed(_combine(tile.spread, lines, axis=1))
    x = x.reshape(side**2, batch * rows * columns, channels)
    y = fixed(jax.lax.dot_general(x, kernel, (((2,), (1,)), ((0,), (0,)))))
    y = y.reshape(side, side, batch, rows, columns, -1)
    y = fixed(_combine(tile.gather, list(y), axis=0))  # [outputs down, side, ...]
    lines = [y[:, j] for j in range(side)]
    y = _combine(tile.gather, lines, axis=0)  # [across, down, batch, rows, columns, ...]
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(batch, step * rows, step * columns, -1)
    return y[:, :height, :width]


def _combine(matrix: np.ndarray, lines: Sequence[jax.Array], *, axis: int) -> jax.Array:
    """The matrix times a column of lines; what is multiplied by 0 is not there at all."""
    rows = (zip(row, lines, strict=True) for row in matrix.tolist())
    sums = [sum(factor * line for factor, line in row if factor) for row in rows]
    return jnp.stack(sums, axis)
