"""3x3 convolutions with fewer multiplications, for CPUs.

Winograd's F(2x2, 3x3) makes four outputs of sixteen products a channel, where thirty-six are usual
(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308). The sums
come in another order; in float32 that moves a logit by some millionths of the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

# With fewer channels, what is saved in products goes into the sums around them. In training it pays
# sooner, because XLA's gradients of a convolution are slower still than the convolution.
MIN_CHANNELS = 64
MIN_CHANNELS_IN_TRAINING = 32

# A kernel of 3 to the 4 that its tiles are multiplied by; the paper's G.
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)

Kernels = dict[str, jax.Array]


def transform_kernels(params: Any) -> Kernels:
    """Transform the 3x3 kernels that it pays for, once for all pictures.

    Args:
      params: of a network.

    Returns:
      by the layer's name ("conv05"), float32 `[16, C, features]`.
    """
    kernels = {}
    for name, kernel in flatten_dict(params, sep="/").items():
        layer, _, leaf = name.rpartition("/")
        if leaf == "kernel" and kernel.shape[:2] == (3, 3) and kernel.shape[2] >= MIN_CHANNELS:
            kernels[layer] = jnp.asarray(_transform(np.asarray(kernel)))
    return kernels


def use_kernels(kernels: Kernels) -> Callable[..., Any]:
    """Make an interceptor for `nn.intercept_methods` that convolves by `convolve`.

    Args:
      kernels: from `transform_kernels`; layers without one, with a stride or with a padding of
        their own convolve as ever.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer: Any = context.module
        if not _can_do(layer) or "/".join(layer.path) not in kernels:
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

    The kernels are transformed anew at every call. Layers of few channels, of another dtype than
    float32, with a stride or with a padding of their own convolve as ever.
    """
    layer: Any = context.module
    if not _can_do(layer) or not layer.has_variable("params", "kernel"):
        return call(*args, **kwargs)
    kernel: jax.Array = layer.get_variable("params", "kernel")
    is_float32 = layer.dtype in (None, jnp.float32) and args[0].dtype == jnp.float32
    if kernel.shape[:2] != (3, 3) or kernel.shape[2] < MIN_CHANNELS_IN_TRAINING or not is_float32:
        return call(*args, **kwargs)
    return _apply(layer, args[0], _transform(kernel))


def _can_do(layer: Any) -> bool:
    plain = isinstance(layer, nn.Conv) and layer.strides in (1, (1, 1))
    return plain and layer.padding in ("SAME", "VALID")


def _apply(layer: nn.Conv, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(x, kernel, padding=str(layer.padding)) + layer.get_variable("params", "bias")


def _transform(kernel: Any) -> Any:
    """`[3, 3, C, features]` to `[16, C, features]`."""
    tall = _G @ kernel.reshape(3, -1)
    square = _G @ tall.reshape(4, 3, -1)  # [4, 4, C * features]
    return square.reshape(16, *kernel.shape[2:])


def convolve(x: jax.Array, kernel: jax.Array, *, padding: str) -> jax.Array:
    """Convolve by 3x3 with stride 1.

    Args:
      x: float `[B, H, W, C]`.
      kernel: `[16, C, features]`, from `transform_kernels`.
      padding: "SAME" or "VALID".

    Returns:
      float `[B, H', W', features]`; H' and W' are H and W, or less by 2 where "VALID".
    """
    border = 1 if padding == "SAME" else 0
    batch, height, width, channels = x.shape
    height, width = height + 2 * border - 2, width + 2 * border - 2
    rows, columns = -(-height // 2), -(-width // 2)  # of tiles that make 2x2 outputs
    margins = (border, border + height % 2), (border, border + width % 2)
    x = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    # Barriers, because XLA would else weave all steps into one loop, and compile it for 20 s.
    fixed = jax.lax.optimization_barrier
    x = fixed(_spread([x[:, i : i + 2 * rows : 2] for i in range(4)], axis=0))
    x = fixed(_spread([x[..., j : j + 2 * columns : 2, :] for j in range(4)], axis=1))
    x = x.reshape(16, batch * rows * columns, channels)
    y = fixed(jax.lax.dot_general(x, kernel, (((2,), (1,)), ((0,), (0,)))))
    y = y.reshape(4, 4, batch, rows, columns, -1)
    y = fixed(_gather(list(y)))  # [2, 4, ...]
    y = _gather([y[:, j] for j in range(4)])  # [2 (across), 2 (down), batch, rows, columns, ...]
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(batch, 2 * rows, 2 * columns, -1)
    return y[:, :height, :width]


def _spread(x: list[jax.Array], *, axis: int) -> jax.Array:
    """Four lines of a tile to the four that are multiplied; the paper's B."""
    return jnp.stack([x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]], axis)


def _gather(y: list[jax.Array]) -> jax.Array:
    """Four lines of products to two of outputs; the paper's A."""
    return jnp.stack([y[0] + y[1] + y[2], y[1] - y[2] - y[3]])
