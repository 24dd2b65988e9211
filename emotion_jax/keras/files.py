"""Networks that Keras trained, as ours: layers are matched by order and shape, not by name."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import make_meta
from emotion_jax.keras.config import check_architecture
from emotion_jax.keras.layers import Layer, open_layers
from emotion_jax.labels import EMOTIONS, emotion_code
from emotion_jax.models import make_model
from emotion_jax.models.layers import scale_features
from emotion_jax.models.simplenet import BLOCKS, EPSILON, MIN_SIZE
from emotion_jax.models.vgg import HIDDEN, STAGES

# Every layer's features at width 1, but for the last's.
FEATURES = {
    "simplenet": [block.features for block in BLOCKS],
    "vgg16": [n for count, n in STAGES for _ in range(count)] + [HIDDEN, HIDDEN],
}
# What pictures may have gone through: mean and deviation of RGB in 0..1, and whether they were
# BGR. The first three are the modes of keras.applications' preprocess_input.
PREPROCESSING: dict[str, tuple[tuple[float, ...], tuple[float, ...], bool]] = {
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,), True),
    "tf": ((0.5,), (0.5,), False),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    "unit": ((0.0,), (1.0,), False),
    "raw": ((0.0,), (1 / 255,), False),
}


@dataclasses.dataclass(frozen=True)
class KerasNetwork:
    """A network as a Keras file holds it.

    Attributes:
      name: "simplenet" or "vgg16".
      width: of ours that has the file's layers.
      channels: of its input.
      num_classes: of its output; None where the file has no top.
      size: the least input, in pixels, of which the dense layers make sense; None where any does.
      image_size: of its pictures, where the file says it.
      variables: {"params", "batch_stats"}, float32, named as ours; without the layers of a
        missing top.
      padding: of ours, where its table's is not the file's.
      scale: what the file's network multiplies a picture by, before all else, one number or one a
        channel;
      offset: and what it adds then.
    """

    name: str
    width: float
    channels: int
    num_classes: int | None
    size: int | None
    variables: dict[str, Any]
    image_size: int | None = None
    padding: str = ""
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    @property
    def options(self) -> dict[str, Any]:
        """What `make_model` is to be told of it."""
        return {"width": self.width} | ({"padding": self.padding} if self.padding else {})


def is_keras_file(path: str | Path) -> bool:
    """Whether the path is a file that is called as Keras calls its own."""
    path = Path(os.path.expanduser(path))
    return path.is_file() and path.suffix in (".h5", ".hdf5", ".keras")


def read_keras(path: str | Path) -> KerasNetwork:
    """Reads a SimpleNetV2 or a VGG16 that Keras saved, whole or its weights alone.

    Args:
      path: a `.h5` or `.keras` file, of Keras 1 to 3, channels last. VGG16 may lack its top, the
        three dense layers.

    Raises:
      EmotionError: it is no such file, not of one of the two networks, or not to be trusted.
    """
    path = Path(os.path.expanduser(path))
    with open_layers(path) as (layers, config):
        convs, denses, normed = ([x for x in layers if x.rank == rank] for rank in (4, 2, 1))
        name = _name(path, len(convs), len(denses), len(normed))
        architecture = check_architecture(path, config, name)
        width = _width(path, name, [*convs, *denses[:-1]])
        channels = convs[0].arrays["kernel"].shape[2]
        if channels not in (1, 3):
            raise EmotionError(f"'{path}' is for pictures of {channels} channels; needs 1 or 3")
        num_classes = denses[-1].arrays["kernel"].shape[1] if denses else None
        size = None
        if name == "vgg16" and denses:
            inputs, last = denses[0].arrays["kernel"].shape[0], convs[-1].arrays["bias"].shape[0]
            size = 32 * max(1, math.isqrt(inputs // last))
        shapes = _shapes(name, width, channels, num_classes, size)
        kinds = [[key for key in sorted(shapes) if key.startswith(k)] for k in ("conv", "bn")]
        ours = [*kinds[0], *(("fc1", "fc2", "head")[-len(denses) :] if denses else ()), *kinds[1]]
        pairs = dict(zip(ours, [*convs, *denses, *normed], strict=True))
        for key, layer in pairs.items():
            _check_shapes(path, key, layer, shapes[key], f"{name} of width {width:g}")
        variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
        for key, layer in pairs.items():
            for leaf in layer.arrays:
                part = variables["batch_stats" if leaf in ("mean", "var") else "params"]
                part.setdefault(key, {})[leaf] = _read(path, layer, leaf)
    for key, epsilon in zip(kinds[1], architecture.epsilons, strict=False):
        variables["params"][key]["scale"] *= _other_epsilon(variables["batch_stats"][key], epsilon)
    if len(architecture.scale) not in (1, channels):
        raise EmotionError(
            f"'{path}' scales {len(architecture.scale)} channels, and its first convolution takes "
            f"{channels}; it is damaged"
        )
    return KerasNetwork(
        name,
        width,
        channels,
        num_classes,
        size,
        variables,
        image_size=architecture.size,
        padding=architecture.padding,
        scale=architecture.scale,
        offset=architecture.offset,
    )


def convert(
    network: KerasNetwork,
    spec: ImageSpec,
    *,
    bgr: bool = False,
    labels: Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes of a Keras network what `weights.save_weights` takes.

    A network of other than seven or eight outputs loses its last layer, and its meta names no
    emotions: it is to be trained from.

    Args:
      network: as read.
      spec: how its pictures were prepared; their mean and deviation in the order RGB.
      bgr: it was trained on BGR. Its first kernel is turned, so that nobody else need know.
      labels: the emotions of its outputs, in their order; None means that of `EMOTIONS`.

    Returns:
      Variables and meta.

    Raises:
      EmotionError: the spec or the labels do not fit the network.
    """
    if network.image_size not in (None, spec.size):
        raise EmotionError(
            f"image_size: {spec.size}; the file is of a network for {network.image_size} pixels; "
            "leave it out"
        )
    if network.size is not None and spec.size // 32 != network.size // 32:
        raise EmotionError(
            f"image_size: {spec.size}; the file's dense layers are for {network.size} to "
            f"{network.size + 31} pixels"
        )
    if spec.size < (32 if network.name == "vgg16" else MIN_SIZE):
        raise EmotionError(f"image_size: {spec.size}; too few pixels for {network.name}")
    variables = network.variables
    if bgr and network.channels == 3:
        variables = swap_colours(variables)
    emotions = EMOTIONS[: network.num_classes or 0]
    if network.num_classes not in (len(EMOTIONS) - 1, len(EMOTIONS)):
        emotions = ()
        if labels is not None:
            raise EmotionError(
                f"--labels: the file has {network.num_classes or 'no'} outputs, not those of seven "
                "or eight emotions; leave it out"
            )
        params = {k: v for k, v in variables["params"].items() if k != "head"}
        variables = {**variables, "params": params}
    elif labels is not None:
        variables = reorder_classes(variables, labels)
    # The file's own scaling comes after what the pictures went through outside.
    turn = slice(None, None, -1 if bgr else 1)
    scale, offset = np.array(network.scale)[turn], np.array(network.offset)[turn]
    mean = np.array(spec.mean) - offset / scale * np.array(spec.std)
    std = np.array(spec.std) / scale
    spec = dataclasses.replace(spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    return variables, make_meta(network.name, network.options, spec, emotions=emotions)


def reorder_classes(variables: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Puts a network's outputs in the order of `EMOTIONS`.

    Args:
      variables: with a layer "head".
      labels: the emotion of each output as it is now, in any common spelling.

    Raises:
      EmotionError: an emotion is unknown, missing or named twice.
    """
    head = variables["params"]["head"]
    codes = [emotion_code(label) for label in labels]
    if sorted(codes) != list(range(len(head["bias"]))):
        raise EmotionError(
            f"--labels={','.join(labels)}; name the emotion of each of the {len(head['bias'])} "
            "outputs once, in the file's order (seven are those without contempt)"
        )
    order = np.argsort(codes)
    head = {"kernel": head["kernel"][:, order], "bias": head["bias"][order]}
    return {**variables, "params": {**variables["params"], "head": head}}


def swap_colours(variables: dict[str, Any]) -> dict[str, Any]:
    """Makes a network that was trained on BGR take RGB: its first kernel's inputs change places."""
    params = dict(variables["params"])
    first = min(key for key in params if key.startswith("conv"))
    params[first] = {**params[first], "kernel": params[first]["kernel"][:, :, ::-1]}
    return {**variables, "params": params}


def _name(path: Path, convs: int, denses: int, norms: int) -> str:
    if (convs, denses, norms) == (13, 1, 13):
        return "simplenet"
    if (convs, denses, norms) in ((13, 3, 0), (13, 0, 0)):
        return "vgg16"
    raise EmotionError(
        f"'{path}' has {convs} convolutions, {denses} dense layers and {norms} BatchNorms; "
        "SimpleNetV2 has 13, 1 and 13, VGG16 13, 3 and 0 (or 13, 0 and 0 without its top)"
    )


def _width(path: Path, name: str, layers: list[Layer]) -> float:
    """The simplest width whose rounding gives the layers' features."""
    found = [layer.arrays["bias"].shape[0] for layer in layers]
    table = FEATURES[name][: len(found)]
    # Rounded to multiples of 8, a layer says its width to within 4 features; 8 may be much less.
    low = max((f - 4) / n if f > 8 else 0.0 for f, n in zip(found, table, strict=True))
    high = min((f + 4) / n for f, n in zip(found, table, strict=True))
    for denominator in range(1, 1000):
        width = float(Fraction(round((low + high) / 2 * denominator), denominator))
        if width > 0 and [scale_features(n, width) for n in table] == found:
            return width
    raise EmotionError(
        f"'{path}': its layers have {found} features; {name} has {table}, or these times a width, "
        "rounded to multiples of 8"
    )


def _shapes(
    name: str, width: float, channels: int, num_classes: int | None, size: int | None
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Those of our network, by layer and leaf; nothing is drawn."""
    model = make_model(name, num_classes=num_classes, width=width)
    image = jax.ShapeDtypeStruct((1, size or 64, size or 64, channels), jnp.float32)
    variables: Any = jax.eval_shape(
        lambda image: model.init(jax.random.key(0), image, train=False), image
    )
    stats = variables.get("batch_stats", {})
    return {
        key: {leaf: x.shape for leaf, x in {**leaves, **stats.get(key, {})}.items()}
        for key, leaves in variables["params"].items()
    }


def _check_shapes(
    path: Path, key: str, layer: Layer, expected: dict[str, tuple[int, ...]], network: str
) -> None:
    for leaf, array in layer.arrays.items():
        if array.shape != expected[leaf]:
            raise EmotionError(
                f"'{path}': layer '{layer.name}' has a {leaf} {array.shape}, where {network} has "
                f"{expected[leaf]} in {key}"
            )


def _other_epsilon(stats: dict[str, np.ndarray], epsilon: float) -> np.ndarray:
    """What makes of a scale beside Keras' `epsilon` the same beside ours."""
    return np.sqrt((stats["var"] + EPSILON) / (stats["var"] + epsilon))


def _read(path: Path, layer: Layer, leaf: str) -> np.ndarray:
    values = layer.arrays[leaf][()].astype(np.float32)
    if not np.isfinite(values).all():
        raise EmotionError(
            f"'{path}': the {leaf} of layer '{layer.name}' is not finite, its training failed; "
            "take an earlier file"
        )
    return values
