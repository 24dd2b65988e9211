"""What a Keras file says of its network beside the weights, held against ours, layer by layer.

Weights fit by their shapes; that their network pads, pools or activates otherwise no shape tells,
and its answers would be wrong without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.host.json_files import parse_json
from emotion_jax.models.simplenet import BLOCKS
from emotion_jax.models.vgg import STAGES

# What does nothing to a picture outside training.
_IDLE = (
    "InputLayer",
    "Dropout",
    "SpatialDropout2D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "RandomContrast",
    "RandomBrightness",
)
_PLAIN = {
    "BatchNormalization": "BatchNorm",
    "GlobalMaxPooling2D": "global maximum",
    "GlobalAveragePooling2D": "global average",
    "Flatten": "flattening",
    "Softmax": "softmax",
}
_POOL, _BORDER = "maximum of 2x2", "border of 1"
# The ways of making one line of a map's features; of a map of one pixel all are the same.
_LINES = ("flattening", "global maximum", "global average")


class Architecture(NamedTuple):
    """How a file's network differs from ours within what ours can be.

    Attributes:
      padding: "SAME" where all convolutions of a SimpleNetV2 pad; "" where they pad as ours.
      epsilons: of each BatchNorm.
      scale: a picture's numbers are multiplied by it inside the network, before all else, by one
        number or one a channel;
      offset: then this is added, likewise.
      size: of its pictures, in pixels; None where it takes any, or does not say.
    """

    padding: str = ""
    epsilons: tuple[float, ...] = ()
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    size: int | None = None


class _Step(NamedTuple):
    """One thing done to a picture: what, by the layer of which name, and the layer's options."""

    what: str
    layer: str
    options: dict[str, Any]


def check_architecture(path: Path, config: bytes | None, name: str) -> Architecture:
    """Compares what a file says of its network with ours.

    Args:
      path: of the file, for what is refused.
      config: the JSON in which Keras describes a model; None where a file has weights alone.
      name: of ours, "simplenet" or "vgg16".

    Returns:
      How it differs; of a file that does not say, as if it did not.

    Raises:
      EmotionError: it is another network, with weights of the same shapes; or no JSON of Keras'.
    """
    if config is None:
        return Architecture()
    try:
        described = parse_json(config)
        steps = list(_steps(described))
        if len(steps) < 2:
            return Architecture()  # one class of the user's own, whose layers are in its code
        size = _size(path, described)
        scale, offset = _take_scale(steps)
        steps = _with_padding(steps)
        _compare(path, name, _in_our_order(steps))
        if name == "vgg16":
            _check_line(path, steps, size)
        return Architecture(
            _padding(path, name, steps),
            tuple(_epsilon(path, step) for step in steps if step.what == "BatchNorm"),
            scale,
            offset,
            size,
        )
    except EmotionError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise EmotionError(
            f"'{path}': its description of the network cannot be read ({error}); save its weights "
            "alone, by save_weights"
        ) from error


def _steps(node: dict[str, Any]) -> Iterator[_Step]:
    """The steps of a layer, or of all layers of a network, in order."""
    kind, options = node["class_name"], node["config"]
    if kind in _IDLE:
        return
    layers = _layers(node)
    times = len(node.get("inbound_nodes") or ())
    if times > 1:  # the list has it once, and does not say where else it acts
        yield _Step(f"{kind}, used {times} times", str(node.get("name", kind)), {})
    elif layers is not None:
        for layer in layers:
            yield from _steps(layer)
    else:
        name = str(options.get("name", kind))
        if (what := _what(kind, options)) is not None:
            yield _Step(what, name, options)
        # What an unknown layer does with an option of that name, nobody knows.
        if what != kind and kind != "Activation" and (activation := _activation(options)):
            yield _Step(activation, name, options)


def _layers(node: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The layers of a network; None of a layer."""
    options = node["config"]
    # The first versions of Keras have the layers themselves in a Sequential's place for options.
    return options if isinstance(options, list) else options.get("layers")


def _size(path: Path, node: dict[str, Any]) -> int | None:
    """That of the pictures, as the first layer that says it does; None where none does."""
    if (layers := _layers(node)) is not None:
        return next(filter(None, (_size(path, layer) for layer in layers)), None)
    options = node["config"]
    shape = options.get("batch_shape") or options.get("batch_input_shape")
    if shape is None or len(shape) != 4 or None in shape[1:3]:
        return None
    height, width = (int(n) for n in shape[1:3])
    if height != width:
        raise EmotionError(f"'{path}' is for pictures of {height}x{width} pixels; ours are square")
    return height


def _what(kind: str, options: dict[str, Any]) -> str | None:
    """What a layer does, apart from its activation; None for nothing."""
    if kind in ("Conv2D", "Convolution2D"):
        moves = [options.get(key, 1) for key in ("strides", "subsample", "dilation_rate", "groups")]
        plain = all(move in (1, [1, 1]) for move in moves)
        if {options.get("data_format"), options.get("dim_ordering")} & {"channels_first", "th"}:
            return "convolution of channels that come first"
        return "convolution" if plain else f"convolution with {moves}"
    if kind == "MaxPooling2D":
        size, strides = options["pool_size"], options.get("strides")
        plain = size in (2, [2, 2]) and strides in (None, 2, [2, 2])
        return _POOL if plain and _pads(options) == "valid" else f"maximum of {size}"
    if kind == "Activation":
        return _activation(options)
    if kind == "ReLU":
        limits = [options.get(key) for key in ("max_value", "negative_slope", "threshold")]
        return f"relu with {limits}" if any(limits) or limits[0] == 0 else "relu"
    if kind == "Dense":
        return "dense"
    if kind == "ZeroPadding2D":
        plain = options["padding"] in (1, [1, 1], [[1, 1], [1, 1]])
        return _BORDER if plain else f"border of {options['padding']}"
    return _PLAIN.get(kind, kind)


def _activation(options: dict[str, Any]) -> str | None:
    """The activation that a layer's options name; None for the identity."""
    found = options.get("activation")
    if isinstance(found, dict):  # as Keras 3 writes functions
        found = found["config"]
    return None if found in (None, "linear") else str(found)


def _pads(options: dict[str, Any]) -> str:
    return str(options.get("padding", options.get("border_mode", "valid"))).lower()


def _take_scale(steps: list[_Step]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Takes the scales from the front of the steps; returns them as one scale and offset."""
    scale, offset = np.ones(1), np.zeros(1)
    while steps and steps[0].what == "Rescaling":
        options = steps.pop(0).options
        times, plus = (np.array(options.get(key, 0.0), float) for key in ("scale", "offset"))
        scale, offset = scale * times, offset * times + plus
    scale, offset = np.broadcast_arrays(scale, offset)
    if scale.shape not in ((1,), (3,)) or not (np.isfinite(scale + offset) & (scale > 0)).all():
        raise ValueError(f"a scale of {scale} and {offset}")
    return tuple(scale.tolist()), tuple(offset.tolist())


def _with_padding(steps: list[_Step]) -> list[_Step]:
    """The steps, each border of zeros as the padding of the convolution behind it."""
    merged: list[_Step] = []
    for step in steps:
        bare = step.what == "convolution" and _pads(step.options) == "valid"
        if bare and merged and merged[-1].what == _BORDER:
            merged[-1] = step._replace(options={**step.options, "padding": "same"})
        else:
            merged.append(step)
    return merged


def _in_our_order(steps: list[_Step]) -> list[_Step]:
    """The same steps as ours has them: a relu and the maximum beside it may change places, and a
    line of features is flat already."""
    ordered: list[_Step] = []
    for step in steps:
        before = ordered[-1].what if ordered else ""
        if step.what == "flattening" and before in _LINES:
            continue
        ordered.insert(len(ordered) - (step.what == "relu" and before == _POOL), step)
    return ordered


def _compare(path: Path, name: str, steps: list[_Step]) -> None:
    """Refuses another order of other steps than ours."""
    expected: list[tuple[str, ...]] = []
    if name == "simplenet":
        for block in BLOCKS:
            expected += [("convolution",), ("BatchNorm",), ("relu",)]
            expected += [(_POOL,)] if block.pool else []
        expected += [("global maximum",), ("dense",)]
    else:
        for count, _ in STAGES:
            expected += [("convolution",), ("relu",)] * count + [(_POOL,)]
        # Without its dense layers it may end in a line, or not.
        expected += [_LINES] if len(steps) > len(expected) else []
        if any(step.what == "dense" for step in steps):
            expected += [("dense",), ("relu",), ("dense",), ("relu",), ("dense",)]
    if steps[-1].what == "softmax":  # ours gives what goes into it
        steps = steps[:-1]
    for step, ours in zip_longest(steps, expected):
        if step is None:
            raise _another(path, f"it ends where {name} has: {ours[0]}")
        if ours is None or step.what not in ours:
            here = f"'{step.layer}' is: {step.what[:60]}"
            raise _another(path, f"{here}; {name} has there: {ours[0] if ours else 'nothing'}")


def _check_line(path: Path, steps: list[_Step], size: int | None) -> None:
    """Refuses a mean or a maximum of a map in front of dense layers, where ours flattens it, unless
    the map is one pixel."""
    pooled = [step for step in steps if step.what in _LINES[1:]]
    if pooled and any(step.what == "dense" for step in steps) and (size or 0) // 32 != 1:
        here = f"'{pooled[0].layer}' is: {pooled[0].what}"
        of = f"of pictures of {size or 'any'} pixels"
        raise _another(path, f"{here}, {of}; vgg16 flattens, which is the same for 32 to 63")


def _padding(path: Path, name: str, steps: list[_Step]) -> str:
    """What our network is to be told of padding."""
    layers = [step for step in steps if step.what == "convolution"]
    pads = [_pads(layer.options) for layer in layers]
    if name == "simplenet" and pads == [block.padding.lower() for block in BLOCKS]:
        return ""
    if set(pads) == {"same"}:
        return "SAME" if name == "simplenet" else ""
    raise _another(path, f"its convolutions pad {', '.join(pads)}, which {name} does not")


def _epsilon(path: Path, step: _Step) -> float:
    """A BatchNorm's own."""
    epsilon = float(step.options["epsilon"])
    if not 0 < epsilon < 1:
        raise _another(path, f"the epsilon of '{step.layer}' is {epsilon}")
    return epsilon


def _another(path: Path, why: str) -> EmotionError:
    return EmotionError(
        f"'{path}' is another network: {why}; if you know better, save its weights alone, by "
        "save_weights"
    )
