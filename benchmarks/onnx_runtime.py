"""A face read by our network on a CPU, and by ONNX Runtime with the same weights.

    pip install onnx onnxruntime  # first: --help needs them, too
    python benchmarks/onnx_runtime.py [--model=RUN] [--width=1] [--batch=1]

Without `--model` it is a SimpleNetV2 of that width at 64 pixels that has seen nothing: the time is
the same. The network is written as ONNX here, layer by layer, and both take normalized faces. They
take turns, and the medians count: Flax's own convolutions as compiled by XLA, those that the
predictor uses on a CPU, one face after another, and ONNX Runtime's, for so many faces a call, in
milliseconds a face; then the largest difference of a probability.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from typing import Any

# As ONNX Runtime, which is asked for its CPU's kernels.
os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn
import jax
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import emotion_jax as ej
from emotion_jax.errors import EmotionError, run
from emotion_jax.models.simplenet import BLOCKS
from emotion_jax.models.winograd import transform_kernels, use_kernels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a workdir, a checkpoint or shipped weights: a SimpleNetV2")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=1, help="faces a call")
    parser.add_argument("--runs", type=int, default=51)
    flags = parser.parse_args()
    if flags.model:
        predictor = ej.load_predictor(flags.model)
        model, variables = predictor.model, predictor.variables
        size = predictor.spec.size
        shape = (flags.batch, size, size, predictor.spec.channels)
    else:
        model, shape = ej.SimpleNetV2(width=flags.width, momentum=0.0), (flags.batch, 64, 64, 3)
        variables = make_variables(model, shape)
    if not isinstance(model, ej.SimpleNetV2):
        raise EmotionError(f"--model: {type(model).__name__}; give a SimpleNetV2")
    readers = make_readers(model, variables, shape)
    faces = np.random.default_rng(0).normal(size=(flags.runs, *shape)).astype(np.float32)
    expected = [readers["XLA"](face) for face in faces[:3]]  # and everything is compiled
    times: dict[str, list[float]] = {name: [] for name in readers}
    off = dict.fromkeys(readers, 0.0)
    for face, answer in zip(faces[:3], expected, strict=True):
        for name, read in readers.items():
            off[name] = max(off[name], float(np.abs(read(face) - answer).max()))
    for face in faces:
        for name, read in readers.items():
            start = time.perf_counter()
            read(face)
            times[name].append(1000 * (time.perf_counter() - start) / flags.batch)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"SimpleNetV2, {count:,} parameters, {shape[1]}x{shape[2]}x{shape[3]}")
    print(f"{platform.machine()}, {os.cpu_count()} cores; ", end="")
    print(f"medians of {flags.runs}, a face, {flags.batch} a call")
    for name, spent in times.items():
        median, least = statistics.median(spent), min(spent)
        print(
            f"{name:14}{median:8.2f} ms (least {least:.2f}), probabilities off by {off[name]:.0e}"
        )


def make_variables(model: nn.Module, shape: tuple[int, ...]) -> Any:
    """Parameters by chance, with statistics of BatchNorm that keep the signal alive."""
    x = jax.random.normal(jax.random.key(1), (4, *shape[1:]))
    variables = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(0))
    still = model.clone(dropout=(0.0, 0.0))
    train = jax.jit(lambda v: still.apply(v, x, train=True, mutable=["batch_stats"]))
    return {"params": variables["params"], **train(variables)[1]}


def make_readers(model: nn.Module, variables: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """The three, each from normalized faces `[N, H, W, C]` to probabilities `[N, 8]`."""
    variables = jax.device_put(variables)
    kernels = transform_kernels(variables["params"])

    def probs(variables: Any, kernels: Any, faces: jax.Array) -> jax.Array:
        with nn.intercept_methods(use_kernels(kernels)):
            return jax.nn.softmax(model.apply(variables, faces, train=False))

    def one_by_one(faces: np.ndarray) -> np.ndarray:
        return np.concatenate([compiled(variables, kernels, face[None]) for face in faces])

    compiled = jax.jit(probs)
    session = onnxruntime.InferenceSession(
        to_onnx(variables, shape).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return {
        "XLA": lambda faces: np.asarray(compiled(variables, {}, faces)),
        "predictor": one_by_one,
        "ONNX Runtime": lambda faces: session.run(None, {"face": faces})[0],
    }


def to_onnx(variables: Any, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Write a SimpleNetV2 as ONNX: NHWC in, channels first within, BatchNorm as its own node."""
    nodes, weights = [], []

    def weight(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    params, statistic = jax.device_get((variables["params"], variables["batch_stats"]))
    x = node("Transpose", ["face"], perm=[0, 3, 1, 2])
    for i, block in enumerate(BLOCKS, start=1):
        conv, norm = params[f"conv{i:02}"], params[f"bn{i:02}"] | statistic[f"bn{i:02}"]
        kernel = weight(f"kernel{i}", conv["kernel"].transpose(3, 2, 0, 1))
        pads = [1 if block.padding == "SAME" else 0] * 4
        x = node("Conv", [x, kernel, weight(f"offset{i}", conv["bias"])], pads=pads)
        names = [weight(f"{name}{i}", norm[name]) for name in ("scale", "bias", "mean", "var")]
        x = node("BatchNormalization", [x, *names], epsilon=1e-3)
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        if block.pool == "before relu":
            x = node("MaxPool", [x], **pool)
        x = node("Relu", [x])
        if block.pool == "after dropout":
            x = node("MaxPool", [x], **pool)
    x = node("Flatten", [node("GlobalMaxPool", [x])])
    head = weight("head", params["head"]["kernel"]), weight("head_bias", params["head"]["bias"])
    x = node("Softmax", [node("Gemm", [x, *head])])
    face = helper.make_tensor_value_info("face", onnx.TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, [shape[0], 8])
    graph = helper.make_graph(nodes, "SimpleNetV2", [face], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    sys.exit(run(main))
