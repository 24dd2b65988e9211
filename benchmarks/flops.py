"""What a training step costs, counted from the networks' tables, and the limits that follow.

    python benchmarks/flops.py [--tflops=790 --bandwidth=4.3]

Prints FLOPs and activations layer by layer; with a device's matrix product (TFLOP/s) and memory
(TB/s), both measured, also the rates that neither lets a training step exceed.

Counted: a multiplication and an addition are two FLOPs; convolutions and dense layers alone,
padding as if it were data. Training takes three times the forward pass (the output, the gradient of
the input, that of the kernel), but no gradient of the pixels.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from emotion_jax.models.simplenet import BLOCKS
from emotion_jax.models.vgg import HIDDEN, STAGES

CLASSES, CHANNELS = 8, 3
SIZES = {"simplenet": 64, "vgg16": 224}
# How often an elementwise pass touches each output of a normalized convolution: forward its
# statistics read it, normalizing reads and writes; backward two sums read it and the gradient,
# and one pass reads both and writes. Without BatchNorm: ReLU forward (2) and backward (3), which
# compilers mostly fuse into the convolution, so 0.
NORMALIZED_TOUCHES, PLAIN_TOUCHES = 8, 0


class Layer(NamedTuple):
    """A layer's work for one face: forward FLOPs, its numbers, its outputs."""

    name: str
    flops: int
    parameters: int
    outputs: int
    normalized: bool


def layers(network: str, size: int | None = None) -> list[Layer]:
    """The layers of "simplenet" or "vgg16" with eight classes, for RGB of `size` pixels."""
    return (_simplenet if network == "simplenet" else _vgg16)(size or SIZES[network])


def training_flops(network: str, size: int | None = None) -> int:
    """FLOPs of a training step, for one face."""
    first, *others = layers(network, size)
    return 2 * first.flops + 3 * sum(layer.flops for layer in others)


def elementwise_bytes(network: str, width: int = 2) -> int:
    """Bytes that normalizing and its gradient move for one face, at `width` bytes a number."""
    return sum(
        layer.outputs * (NORMALIZED_TOUCHES if layer.normalized else PLAIN_TOUCHES) * width
        for layer in layers(network)
    )


def _simplenet(size: int) -> list[Layer]:
    found, channels = [], CHANNELS
    for i, block in enumerate(BLOCKS, start=1):
        size -= 2 * (block.padding == "VALID")
        found.append(_conv(f"conv{i:02}", channels, block.features, size, normalized=True))
        channels = block.features
        if block.pool:
            size //= 2
    return [*found, _dense("head", channels, CLASSES)]


def _vgg16(size: int) -> list[Layer]:
    found, channels = [], CHANNELS
    for stage, (count, features) in enumerate(STAGES, start=1):
        for i in range(1, count + 1):
            found.append(_conv(f"conv{stage}_{i}", channels, features, size, normalized=False))
            channels = features
        size //= 2
    hidden = [_dense("fc1", size * size * channels, HIDDEN), _dense("fc2", HIDDEN, HIDDEN)]
    return [*found, *hidden, _dense("head", HIDDEN, CLASSES)]


def _conv(name: str, inputs: int, features: int, size: int, *, normalized: bool) -> Layer:
    parameters = 9 * inputs * features + features + 2 * features * normalized
    outputs = size * size * features
    return Layer(name, 2 * 9 * inputs * outputs, parameters, outputs, normalized)


def _dense(name: str, inputs: int, features: int) -> Layer:
    return Layer(name, 2 * inputs * features, (inputs + 1) * features, features, False)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, help="of the device's matrix product, measured")
    parser.add_argument("--bandwidth", type=float, help="of its memory, TB/s, measured")
    flags = parser.parse_args()
    for network, size in SIZES.items():
        print(f"\n{network} at {size} pixels, one face, forward")
        print(f"{'layer':<9}{'MFLOP':>9}{'parameters':>12}{'outputs':>11}{'FLOP/byte':>11}")
        for layer in layers(network):
            # In bfloat16 with many faces, where the kernel's bytes are shared by all.
            intensity = layer.flops / (2 * 2 * layer.outputs)
            print(
                f"{layer.name:<9}{layer.flops / 1e6:>9.1f}{layer.parameters:>12,}"
                f"{layer.outputs:>11,}{intensity:>11.0f}"
            )
        print(f"training: {training_flops(network) / 1e9:.2f} GFLOP a face")
        if flags.tflops and flags.bandwidth:
            _print_limits(network, flags.tflops, flags.bandwidth)


def _print_limits(network: str, tflops: float, bandwidth: float) -> None:
    products = training_flops(network) / tflops / 1e12
    passes = elementwise_bytes(network) / bandwidth / 1e12
    both = products + passes
    print(f"matrix products alone: {1e6 * products:6.1f} us a face, {1 / products:8,.0f} faces/s")
    print(f"elementwise passes:    {1e6 * passes:6.1f} us a face (bfloat16)")
    print(f"one after the other:   {1e6 * both:6.1f} us a face, {1 / both:8,.0f} faces/s")


if __name__ == "__main__":
    main()
