"""Ways to make the step faster, tried beside it: none of them changes a checkpoint.

A lever is a word:

- padN: channels padded to multiples of N inside the step, the input's too. XLA pads for tensor
  cores in float16, never in bfloat16. Gradients flow through the padding and come back cropped.
- inN: the input's channels alone, or to another multiple than padN says.
- scanN: N steps in one call.
- direct: XLA's own convolutions on a CPU, too, where training uses Winograd's.
- rbg: dropout's keys from the device's own generator.
- bits8: dropout from 8 random bits a number, not 32; its rate is rounded to 1/256.
- still: no gradient of the bias before a BatchNorm, which is zero anyway: the mean takes it away.
- bf16norm: BatchNorm scales and shifts in the network's precision; its statistics stay float32.
- remat: only the convolutions' outputs are kept for the backward pass; what lies between them is
  computed again.
- trusting: every step is taken, without a look at whether its loss and gradients are finite.
- scatterpool: Flax's own pool, whose gradient is a scatter.
- nodonate: the state's buffers are not given away, so that the next state needs new ones.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from emotion_jax import steps
from emotion_jax.image_spec import ImageSpec
from emotion_jax.models import simplenet, vgg

NUMBERED = ("pad", "in", "scan")
WORDS = tuple("direct rbg bits8 still bf16norm remat trusting scatterpool nodonate".split())
# Of `torch.compile`, but for the first.
TORCH_MODES = ("eager", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def complaint(implementation: str) -> str:
    """What is wrong with a name such as "ours:pad8+bits8" or "torch:eager", or nothing."""
    name, colon, rest = implementation.partition(":")
    if name not in ("ours", "torch", "keras"):
        return f"'{implementation}': use ours, torch or keras"
    if not colon:
        return ""
    if name == "keras":
        return f"'{implementation}': keras takes no levers"
    if name == "torch":
        modes = ", ".join(TORCH_MODES)
        return "" if rest in TORCH_MODES else f"'{implementation}': torch takes one of {modes}"
    pulled = rest.split("+")
    kinds = [_kind(lever) for lever in pulled]
    for lever, kind in zip(pulled, kinds, strict=True):
        if not kind:
            words = ", ".join([*(f"{word}N" for word in NUMBERED), *WORDS])
            return f"'{implementation}': no lever '{lever}'; use some of {words}, joined by +"
        if kinds.count(kind) > 1:
            return f"'{implementation}': '{kind}' is pulled twice"
    return ""


def _kind(lever: str) -> str:
    """The word of a lever, without its number; nothing where it is unknown."""
    found = re.fullmatch(f"({'|'.join(NUMBERED)})[1-9][0-9]*", lever)
    return found[1] if found else lever if lever in WORDS else ""


def number(levers: list[str], word: str, otherwise: int) -> int:
    """The number of a lever such as "pad8", if it is pulled."""
    found = [int(lever.removeprefix(word)) for lever in levers if _kind(lever) == word]
    return found[0] if found else otherwise


def donated(levers: list[str]) -> tuple[int, ...]:
    """Which arguments of a step, the state first, give their buffers away."""
    return () if "nodonate" in levers else (0,)


def wrap_model(model: nn.Module, spec: ImageSpec, levers: list[str]) -> Any:
    """The network as `train_step` calls it, with what the levers put around it."""
    wrapped: Any = model
    multiple = number(levers, "pad", 1)
    if (inputs := number(levers, "in", multiple)) > 1 or multiple > 1:
        wrapped = Padded(model, spec, multiple, inputs)
    return Rematerialized(wrapped) if "remat" in levers else wrapped


class Padded:
    """A network whose channels are multiples of a number, run with another's variables.

    Args:
      model: the other.
      spec: of its pixels.
      multiple: of the layers' channels.
      inputs: of the pixels' channels.
    """

    def __init__(self, model: nn.Module, spec: ImageSpec, multiple: int, inputs: int):
        def up(count: int, multiple: int = multiple) -> int:
            return math.ceil(count / multiple) * multiple

        # The tables are read at each call: from now on this process runs the wide network.
        blocks = simplenet.BLOCKS
        simplenet.BLOCKS = tuple(block._replace(features=up(block.features)) for block in blocks)
        vgg.STAGES = tuple((count, up(features)) for count, features in vgg.STAGES)
        channels = up(spec.channels, inputs)
        self.model, self.more = model, channels - spec.channels
        image = jax.ShapeDtypeStruct((1, spec.size, spec.size, channels), jnp.float32)
        self.wide = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)

    def apply(self, variables: Any, x: jax.Array, **words: Any) -> Any:
        """As `model.apply`; zeros in, so what is padded stays zero throughout."""
        x = jnp.pad(x, [(0, 0)] * 3 + [(0, self.more)])
        wide = {name: _fit(tree, self.wide[name]) for name, tree in variables.items() if tree}
        logits, updated = self.model.apply(wide, x, **words)
        return logits, {name: _fit(tree, variables[name]) for name, tree in updated.items()}


def _fit(tree: Any, like: Any) -> Any:
    """Each array padded with zeros, or cropped, to another's shape."""

    def fit(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        x = x[tuple(slice(0, b) for b in shape)]
        return jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, shape, strict=True)])

    fitted = jax.tree.map(lambda x, y: fit(x, y.shape), tree, like)
    if "fc1" in tree:  # a VGG16's, whose rows go pixel by pixel through the last map's channels
        channels, others = (t["conv5_3"]["bias"].shape[0] for t in (tree, like))
        kernel, shape = tree["fc1"]["kernel"], like["fc1"]["kernel"].shape
        pixels = kernel.reshape(-1, channels, kernel.shape[-1])
        kernel = fit(pixels, (len(pixels), others, shape[-1])).reshape(shape)
        fitted = {**fitted, "fc1": {**fitted["fc1"], "kernel": kernel}}
    return fitted


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
    if "scatterpool" in levers:
        for network in (simplenet, vgg):
            stack.enter_context(mock.patch.object(network, "max_pool_2x2", _scatter_pool))
    if "trusting" in levers:
        take = mock.patch.object(steps, "_select", lambda condition, after, before: after)
        stack.enter_context(take)


def _scatter_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


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
