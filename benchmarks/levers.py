"""Ways to make the step faster, tried beside it: none of them changes a checkpoint.

A lever is a word:

- padN: channels padded to multiples of N inside the step, the input's too. XLA pads for tensor
  cores in float16, never in bfloat16. Gradients flow through the padding and come back cropped.
- scanN: N steps in one call.
- direct: XLA's own convolutions on a CPU, too, where training uses Winograd's.
- rbg: dropout's keys from the device's own generator.
- bits8: dropout from 8 random bits a number, not 32; its rate is rounded to 1/256.
- still: no gradient of the bias before a BatchNorm, which is zero anyway: the mean takes it away.
- bf16norm: BatchNorm scales and shifts in the network's precision; its statistics stay float32.
- remat: only the convolutions' outputs are kept for the backward pass; what lies between them is
  computed again.
- trusting: every step is taken, without a look at whether its loss and gradients are finite.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from emotion_jax import steps
from emotion_jax.image_spec import ImageSpec
from emotion_jax.models import simplenet, vgg

WORDS = ("pad", "scan", "rbg", "bits8", "still", "bf16norm", "remat", "direct", "trusting")


def number(levers: list[str], word: str, otherwise: int) -> int:
    """The number of a lever such as "pad8", if it is pulled."""
    found = [int(lever.removeprefix(word)) for lever in levers if lever.startswith(word)]
    return found[0] if found else otherwise


def wrap_model(model: nn.Module, spec: ImageSpec, levers: list[str]) -> Any:
    """The network as `train_step` calls it, with what the levers put around it."""
    wrapped: Any = model
    if multiple := number(levers, "pad", 0):
        wrapped = Padded(model, spec, multiple)
    return Rematerialized(wrapped) if "remat" in levers else wrapped


class Padded:
    """A network whose channels are multiples of a number, run with another's variables."""

    def __init__(self, model: nn.Module, spec: ImageSpec, multiple: int):
        def up(count: int) -> int:
            return math.ceil(count / multiple) * multiple

        # The tables are read at each call: from now on this process runs the wide network.
        blocks = simplenet.BLOCKS
        simplenet.BLOCKS = tuple(block._replace(features=up(block.features)) for block in blocks)
        vgg.STAGES = tuple((count, up(features)) for count, features in vgg.STAGES)
        self.model, self.more = model, up(spec.channels) - spec.channels
        image = jax.ShapeDtypeStruct((1, spec.size, spec.size, up(spec.channels)), jnp.float32)
        self.wide = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)

    def apply(self, variables: Any, x: jax.Array, **words: Any) -> Any:
        """As `model.apply`; zeros in, so what is padded stays zero throughout."""
        x = jnp.pad(x, [(0, 0)] * 3 + [(0, self.more)])
        wide = {name: _fit(tree, self.wide[name]) for name, tree in variables.items() if tree}
        logits, updated = self.model.apply(wide, x, **words)
        return logits, {name: _fit(tree, variables[name]) for name, tree in updated.items()}


def _fit(tree: Any, like: Any) -> Any:
    """Each array padded with zeros, or cropped, to another's shape."""

    def fit(x: jax.Array, y: Any) -> jax.Array:
        x = x[tuple(slice(0, b) for b in y.shape)]
        return jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, y.shape, strict=True)])

    return jax.tree.map(fit, tree, like)


class Rematerialized:
    """A network that keeps its convolutions' outputs alone."""

    def __init__(self, model: Any):
        self.model = model

    def apply(self, variables: Any, x: jax.Array, *, rngs: Any, **words: Any) -> Any:
        """As `model.apply`."""

        def convolutions(primitive: Any, *_: Any, **__: Any) -> bool:
            return primitive.name == "conv_general_dilated"

        def forward(variables: Any, x: jax.Array, rngs: Any) -> Any:
            return self.model.apply(variables, x, rngs=rngs, **words)

        return jax.checkpoint(forward, policy=convolutions)(variables, x, rngs)


def intercept(stack: contextlib.ExitStack, levers: list[str]) -> None:
    """Replaces layers, and the choice of a state, while a step is traced."""
    for lever, replace in (("bits8", _dropout), ("still", _conv), ("bf16norm", _norm)):
        if lever in levers:
            stack.enter_context(nn.intercept_methods(replace))
    if "trusting" in levers:
        take = mock.patch.object(steps, "_select", lambda condition, after, before: after)
        stack.enter_context(take)


def _dropout(call: Any, args: Any, words: Any, context: Any) -> Any:
    module = context.module
    if not isinstance(module, nn.Dropout) or module.deterministic or not module.rate:
        return call(*args, **words)
    (x,) = args
    keep = round(256 * (1 - module.rate))
    count = math.ceil(x.size / 4)
    bits = jax.random.bits(module.make_rng("dropout"), (count,), jnp.uint32)
    bytes_ = jax.lax.bitcast_convert_type(bits, jnp.uint8).reshape(-1)[: x.size]
    return jnp.where(bytes_.reshape(x.shape) < keep, x * (256 / keep), 0).astype(x.dtype)


def _conv(call: Any, args: Any, words: Any, context: Any) -> Any:
    module = context.module
    if not isinstance(module, nn.Conv) or module.is_initializing():
        return call(*args, **words)
    (x,) = args
    kernel, bias = (module.get_variable("params", name) for name in ("kernel", "bias"))
    x, kernel = x.astype(module.dtype), kernel.astype(module.dtype)
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), module.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + jax.lax.stop_gradient(bias).astype(module.dtype)


def _norm(call: Any, args: Any, words: Any, context: Any) -> Any:
    module = context.module
    if not isinstance(module, nn.BatchNorm) or module.use_running_average:
        return call(*args, **words)
    (x,) = args
    scale, bias = (module.get_variable("params", name) for name in ("scale", "bias"))
    wide = x.astype(jnp.float32)
    mean = wide.mean((0, 1, 2))
    var = jnp.maximum(jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean), 0)
    for name, value in (("mean", mean), ("var", var)):
        before = module.get_variable("batch_stats", name)
        after = module.momentum * before + (1 - module.momentum) * value
        module.put_variable("batch_stats", name, after)
    factor = scale * jax.lax.rsqrt(var + module.epsilon)
    return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)
