"""What a network wants its pixels to be like; saved with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from emotion_jax.errors import EmotionError

# No face is larger, in pixels, and memory ends.
MAX_SIZE = 4096
# Past these a crop shows a dot, or no face.
CROP_SCALES, CROP_SHIFTS = (0.5, 4.0), (-1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How a face becomes the network's input; saved with the weights, for the camera to repeat.

    Attributes:
      size: height and width of the input, in pixels.
      grey: keep the luminance only, for networks trained on grey faces.
      channels: of the input: 3, or 1 where `grey`.
      mean: subtracted from intensities in 0..1, one number or one a channel.
      std: what is left is divided by this, likewise.
      crop_scale: side of the square crop, in widths of the detector's box.
      crop_shift: how far the crop's centre lies below the box's, in heights of the box; negative
        is up. The defaults are what dlib's HOG boxes need to look like FER2013's frames.
      align: the network was trained on faces cut out level, and needs landmarks to find them so.
    """

    size: int = 64
    grey: bool = False
    channels: int = 3
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    crop_scale: float = 1.12
    crop_shift: float = -0.08
    align: bool = False


def check_spec(spec: ImageSpec, keys: Mapping[str, str] | None = None) -> None:
    """Refuses a spec that cannot be meant: whoever wrote it, pixels could not be made by it.

    Args:
      spec: of weights, or as a config says it.
      keys: what the fields are called there; else "spec." and their name.

    Raises:
      EmotionError: naming the field.
    """
    rules = {
        "size": (_within(spec.size, 1, MAX_SIZE, int), f"a whole number from 1 to {MAX_SIZE}"),
        "grey": (isinstance(spec.grey, bool), "true or false"),
        "channels": (spec.channels == 3 or spec.channels == 1 and spec.grey, "3, or 1 where grey"),
        "mean": (_one_a_channel(spec.mean, spec.channels, -1e6), "one number, or one a channel"),
        "std": (_one_a_channel(spec.std, spec.channels, 1e-6), "one number above 0, or such ones"),
        "crop_scale": (
            _within(spec.crop_scale, *CROP_SCALES),
            "from {} to {}".format(*CROP_SCALES),
        ),
        "crop_shift": (
            _within(spec.crop_shift, *CROP_SHIFTS),
            "from {} to {}".format(*CROP_SHIFTS),
        ),
        "align": (isinstance(spec.align, bool), "true or false"),
    }
    for name, (fits, be) in rules.items():
        if not fits:
            value = repr(getattr(spec, name))[:60]
            key = f"spec.{name}" if keys is None else keys[name]
            raise EmotionError(f"{key}: {value}; must be {be}")


def _within(x: Any, low: float, high: float, kind: Any = int | float) -> bool:
    return isinstance(x, kind) and not isinstance(x, bool) and low <= x <= high


def _one_a_channel(numbers: Any, channels: int, low: float) -> bool:
    """Whether they are one number or one a channel, from `low` to a million."""
    counts = isinstance(numbers, tuple) and len(numbers) in (1, channels)
    return counts and all(_within(x, low, 1e6) for x in numbers)


def spec_from_meta(meta: dict[str, Any]) -> ImageSpec:
    """The spec that weights' meta holds, checked.

    Raises:
      EmotionError: a field cannot be meant.
      KeyError, TypeError, AttributeError: there is no spec, or it has other fields.
    """
    fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["spec"].items()}
    spec = ImageSpec(**fields)
    check_spec(spec)
    return spec
