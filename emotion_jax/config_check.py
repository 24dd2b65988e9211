"""What the values of a config may be: checked before anything is opened or built."""

from __future__ import annotations

from typing import Any

from emotion_jax.config import MONITORED, SCHEDULES, default_config, flatten, unknown_key
from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec, check_spec


def check_config(config: Any) -> None:
    """Refuses keys that are missing or unknown, and values that cannot be meant.

    Raises:
      EmotionError: naming the key.
    """
    known, values = dict(flatten(default_config())), dict(flatten(config))
    # Each network has options of its own; make_model knows them.
    keys = {key for key in known.keys() ^ values.keys() if not key.startswith("model.")}
    for key in sorted(keys | {"model.name"} - values.keys()):
        raise EmotionError(
            unknown_key(key, known) if key in values else f"{key}: is missing; set it"
        )
    for key, default in known.items():
        if key in values:
            _check_type(key, values[key], default)
    for key, most in _COUNTS.items():
        if values[key] < 1:
            raise EmotionError(f"{key}: {values[key]}; must be at least 1")
        if values[key] > most:
            raise EmotionError(f"{key}: {values[key]}; must be at most {most}")
    check_spec(make_spec(config), _PIXELS)
    for key, (low, high) in _RANGES.items():
        if not low <= values[key] <= high:
            raise EmotionError(f"{key}: {values[key]}; must be from {low} to {high}")
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise EmotionError(f"{key}: '{values[key]}'; use one of {', '.join(choices)}")
    if not all(0 <= share <= 1 for share in config.schedule.milestones):
        raise EmotionError(f"schedule.milestones: {config.schedule.milestones}; must lie in 0..1")
    if not config.data.cache_dir and config.data.source != "arrays":
        raise EmotionError("data.cache_dir is empty; name a folder for builds")
    if not 0 <= config.data.holdout < 1:
        raise EmotionError(f"data.holdout: {config.data.holdout}; must be at least 0 and below 1")
    if not 0 <= config.ema_decay < 1:
        raise EmotionError(f"ema_decay: {config.ema_decay}; must be at least 0 and below 1")
    if not 0 < config.optimizer.learning_rate < float("inf"):
        raise EmotionError(
            f"optimizer.learning_rate: {config.optimizer.learning_rate}; must be > 0"
        )
    if not 0 < config.augment.crop_area <= 1:
        raise EmotionError(f"augment.crop_area: {config.augment.crop_area}; must be in (0, 1]")
    if config.augment.mixup and config.batch_size % 2:
        raise EmotionError(
            f"batch_size: {config.batch_size}; mixup blends pairs, use an even number"
        )


def make_spec(config: Any) -> ImageSpec:
    """The pixels of the network that a config describes."""
    return ImageSpec(
        size=config.image_size,
        grey=config.grey,
        channels=config.channels,
        mean=tuple(config.mean),
        std=tuple(config.std),
        crop_scale=config.data.crop_scale,
        crop_shift=config.data.crop_shift,
    )


def _check_type(key: str, value: Any, default: Any) -> None:
    """Refuses what is not of its default's type; flags see to it, files of others do not."""
    if key == "distill.teachers":
        fits = isinstance(value, tuple) and all(isinstance(x, str) for x in value)
        be = "folders, such as ('weights/a',)"
    elif isinstance(default, tuple):
        fits = isinstance(value, tuple) and all(_is_number(x) for x in value)
        be = f"numbers, such as {default or (0.2, 0.3)}"
    elif isinstance(default, float):
        fits, be = _is_number(value), f"a number, such as {default}"
    else:
        fits, be = type(value) is type(default), f"of type {type(default).__name__}"
    if not fits:
        raise EmotionError(f"{key}: {repr(value)[:60]}; must be {be}")


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < float("inf")


# What a config calls the fields of its spec.
_PIXELS = {
    "size": "image_size",
    "grey": "grey",
    "channels": "channels",
    "mean": "mean",
    "std": "std",
    "crop_scale": "data.crop_scale",
    "crop_shift": "data.crop_shift",
}

# What there must be of at least one, with the most that is not a slip: memory and int32 end.
_COUNTS = {
    "batch_size": 1 << 20,
    "eval_batch_size": 1 << 20,
    "accumulate": 1 << 20,
    "num_epochs": 10**6,
    "data.train_faces": 10**8,
    "data.val_faces": 10**8,
}

_RANGES: dict[str, tuple[float, float]] = {
    # JAX keeps 32 bits of a seed.
    "seed": (0, 2**32 - 1),
    "data.seed": (0, 2**32 - 1),
    "data.train_images": (0, 10**9),
    "data.val_images": (0, 10**9),
    "data.class_cap": (0, 10**9),
    "num_devices": (0, 1e9),
    "checkpoint_every": (0, 1e9),
    "augment.flip": (0, 1),
    "augment.crop_aspect": (1, 100),
    "augment.translate": (0, 1),
    "augment.rotate": (0, 180),
    "augment.brightness": (0, 1),
    "augment.contrast": (0, 1),
    "augment.grey": (0, 1),
    "augment.glasses": (0, 1),
    "augment.darkness": (0, 1),
    "augment.backlight": (0, 1),
    "augment.blur": (0, 1),
    "augment.motion": (0, 1),
    "augment.jpeg": (0, 1),
    "augment.erase": (0, 1),
    "augment.erase_area": (0, 1),
    "augment.mixup": (0, 100),
    "loss.label_smoothing": (0, 0.99),
    "loss.class_weight_power": (0, 10),
    "loss.logit_adjustment": (0, 10),
    "data.num_classes": (7, 8),
    "data.sampling_power": (0, 1),
    "optimizer.weight_decay": (0, 1e9),
    "optimizer.momentum": (0, 0.99999),
    "optimizer.b2": (0, 0.9999999),
    "optimizer.rho": (0, 0.99999),
    "optimizer.clip_norm": (0, 1e9),
    "optimizer.sam_rho": (0, 1e9),
    "distill.share": (0, 1),
    "distill.temperature": (0.01, 1e9),
    "schedule.warmup_epochs": (0, 1e9),
    "schedule.factor": (0, 1e9),
    "schedule.final_ratio": (0, 1e9),
}

_CHOICES = {
    "best": MONITORED,
    "on_nonfinite": ("stop", "skip"),
    "data.feed": ("auto", "stream", "resident"),
    "data.train_votes": ("majority", "distribution"),
    "schedule.name": SCHEDULES,
}
