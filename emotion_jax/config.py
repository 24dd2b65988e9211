"""Configs: every key with its default and its reason, and the flags that read them.

A file in `configs/` takes `default_config()` and changes what differs. The only file that knows
ml_collections and absl's flags for training.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from emotion_jax.errors import EmotionError


def default_config() -> ConfigDict:
    """A config with every key; what is random or costly is off."""
    return ConfigDict(
        {
            "seed": 0,
            # Of the network's input, in pixels; SimpleNetV2's own is 64.
            "image_size": 64,
            # Keep the luminance only: FER2013 has no colours, and a camera's should not matter then.
            "grey": False,
            # Of the input: 1 saves a little where `grey`; 3 fits weights made for colours.
            "channels": 3,
            "batch_size": 128,
            # Larger: nothing is kept for gradients. It must be a multiple of the devices.
            "eval_batch_size": 256,
            "num_epochs": 100,
            # Devices to train on; 0 takes all.
            "num_devices": 0,
            # Checkpoints between those at the end of each epoch, every so many steps; 0 for none.
            "checkpoint_every": 0,
            # Chooses the best checkpoint: val/accuracy, val/macro_f1 or val/loss.
            "best": "val/accuracy",
            "data": {
                # drawn_faces, ferplus or arrays.
                "source": "drawn_faces",
                # The source's folder, or the array file.
                "dir": "",
                # Builds lie here, each named by what it was built from.
                "cache_dir": "~/.cache/emotion_jax",
                # "stream" decodes as it goes; "resident" keeps the set on the device, which is
                # faster wherever it fits (FER+ at 64 pixels, grey: 0.1 GB).
                "feed": "resident",
                # Faces to train on, where people voted: those with a "majority" by FER+'s rule, or
                # all that have a "distribution". Evaluation always counts the majority's.
                "train_votes": "majority",
                # Of drawn faces: how many, and which people.
                "train_faces": 6400,
                "val_faces": 1600,
                "seed": 0,
            },
            "model": {"name": "simplenet", "width": 1.0, "dropout": (0.2, 0.3), "dtype": "float32"},
            "optimizer": {
                # adamw, sgd (Nesterov) or adadelta.
                "name": "adamw",
                "learning_rate": 1e-3,
                "weight_decay": 0.0,
                "momentum": 0.9,
                "b2": 0.999,
                "rho": 0.95,
                "clip_norm": 0.0,
            },
            "schedule": {
                # constant, cosine or multistep.
                "name": "cosine",
                "warmup_epochs": 0.0,
                # Of multistep: shares of the run at which the rate is multiplied by `factor`.
                "milestones": (0.5, 0.75),
                "factor": 0.1,
                # Of cosine: the last rate, as a share of the first.
                "final_ratio": 0.0,
            },
            "loss": {
                "label_smoothing": 0.0,
                # Classes weigh count ** -power: 0 leaves them, 1 balances them.
                "class_weight_power": 0.0,
            },
            # The fields of preprocess.Augmentation; the defaults are "off".
            "augment": {
                "flip": 0.0,
                "crop_area": 1.0,
                "crop_aspect": 1.0,
                "translate": 0.0,
                "rotate": 0.0,
                "brightness": 0.0,
                "contrast": 0.0,
                "grey": 0.0,
                "erase": 0.0,
                "erase_area": 0.25,
                "mixup": 0.0,
            },
            # Of the moving averages of weights and BatchNorm statistics; 0 is off.
            "ema_decay": 0.0,
        }
    )


def check_config(config: Any) -> None:
    """Refuses numbers that cannot be meant.

    Raises:
      EmotionError: naming the key.
    """
    for key in ("image_size", "batch_size", "eval_batch_size", "num_epochs"):
        if config[key] < 1:
            raise EmotionError(f"{key}: {config[key]}; must be at least 1")
    if config.channels not in (1, 3) or (config.channels == 1 and not config.grey):
        raise EmotionError(f"channels: {config.channels}; use 3, or 1 with grey=True")
    if config.best not in ("val/accuracy", "val/macro_f1", "val/loss"):
        raise EmotionError(f"best: '{config.best}'; use val/accuracy, val/macro_f1 or val/loss")
    if not 0 <= config.ema_decay < 1:
        raise EmotionError(f"ema_decay: {config.ema_decay}; must be at least 0 and below 1")
    if config.optimizer.learning_rate <= 0:
        raise EmotionError(
            f"optimizer.learning_rate: {config.optimizer.learning_rate}; must be > 0"
        )
    if not 0 < config.augment.crop_area <= 1:
        raise EmotionError(f"augment.crop_area: {config.augment.crop_area}; must be in (0, 1]")
    if config.augment.mixup and config.batch_size % 2:
        raise EmotionError(
            f"batch_size: {config.batch_size}; mixup blends pairs, use an even number"
        )


def define_config() -> flags.FlagHolder[ConfigDict]:
    """Defines `--config=FILE` and `--config.KEY=VALUE`."""
    return config_flags.DEFINE_config_file("config", None, "what to train: a file of configs/")


def config_name() -> str:
    """The name of the file that `--config` read, without its suffix."""
    return Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem


def parse_flags(usage: str, argv: list[str] | None = None) -> None:
    """Reads the command line.

    Args:
      usage: how the program is called, for the error.
      argv: the command line, program first; None for the process's own.

    Raises:
      EmotionError: a flag, a config file, one of its keys or values is wrong.
    """
    argv = sys.argv if argv is None else argv
    try:
        words = flags.FLAGS(argv)[1:]
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EmotionError(f"{_sentence(error)}; usage: {usage}") from error
    if words:
        raise EmotionError(f"'{words[0]}' belongs to no flag; usage: {usage}")
    if flags.FLAGS["config"].value is None:
        raise EmotionError(f"no --config; usage: {usage}")


def _sentence(error: Exception) -> str:
    """The first line of what a library says of a wrong flag."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
