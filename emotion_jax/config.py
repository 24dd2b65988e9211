"""Configs: every key with its default and its reason, and the flags that read them.

A file in `configs/` takes `default_config()` and changes what differs. The only file that knows
ml_collections and absl's flags for training.
"""

from __future__ import annotations

import difflib
import re
import runpy
import sys
import textwrap
from collections.abc import Iterable, Iterator
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
            # Keep the luminance only: FER2013 has no colours, and a camera's must not matter then.
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
                # drawn_faces, ferplus, affectnet, folder or arrays.
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
                # A subset with the classes' shares as they are, drawn by `seed`; 0 takes all.
                "train_images": 0,
                "val_images": 0,
                # The most faces of a class to train on, drawn by `seed`; 0 takes all.
                "class_cap": 0,
                # The share of training that is held out to select on, equal pictures on one side;
                # the source's own validation is then the test of the last report. 0 is off.
                "holdout": 0.0,
                # How a face is cut around its box: the square's side in sides of the box, and how
                # far below the box's centre its own lies. AffectNet's faces are cut so, and the
                # camera's. The defaults make dlib's boxes look like FER2013's frames.
                "crop_scale": 1.12,
                "crop_shift": -0.08,
                # Of drawn faces: how many.
                "train_faces": 6400,
                "val_faces": 1600,
                # Draws people, subsets and what is held out.
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
    """Refuses keys that are missing or unknown, and values that cannot be meant.

    Raises:
      EmotionError: naming the key.
    """
    known, values = dict(flatten(default_config())), dict(flatten(config))
    # Each network has options of its own; make_model knows them.
    keys = {key for key in known.keys() ^ values.keys() if not key.startswith("model.")}
    for key in sorted(keys | {"model.name"} - values.keys()):
        raise EmotionError(_unknown(key, known) if key in values else f"{key}: is missing; set it")
    for key in ("image_size", "batch_size", "eval_batch_size", "num_epochs"):
        if config[key] < 1:
            raise EmotionError(f"{key}: {config[key]}; must be at least 1")
    if config.channels not in (1, 3) or (config.channels == 1 and not config.grey):
        raise EmotionError(f"channels: {config.channels}; use 3, or 1 with grey=True")
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise EmotionError(f"{key}: '{values[key]}'; use one of {', '.join(choices)}")
    for key, default in known.items():
        numbers = values.get(key, ())
        if not isinstance(default, tuple) or isinstance(numbers, float):
            continue  # of VGG16, dropout is one number
        if not all(isinstance(x, int | float) for x in numbers):
            raise EmotionError(f"{key}: {numbers}; must be numbers, such as {default}")
    for key in ("train_images", "val_images", "class_cap", "seed"):
        if config.data[key] < 0:
            raise EmotionError(f"data.{key}: {config.data[key]}; must be at least 0")
    if not 0 <= config.data.holdout < 1:
        raise EmotionError(f"data.holdout: {config.data.holdout}; must be at least 0 and below 1")
    # Past these a crop shows a dot, or no face.
    if not 0.5 <= config.data.crop_scale <= 4 or not -1 <= config.data.crop_shift <= 1:
        crop = f"data.crop_scale: {config.data.crop_scale}, data.crop_shift: "
        raise EmotionError(f"{crop}{config.data.crop_shift}; must lie in 0.5..4 and in -1..1")
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


_CHOICES = {
    "best": ("val/accuracy", "val/macro_f1", "val/loss"),
    "data.feed": ("stream", "resident"),
    "data.train_votes": ("majority", "distribution"),
}


def flatten(config: Any, section: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that has a value, in full ("data.dir"), with it."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def _unknown(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is none."""
    near = difflib.get_close_matches(key, known, n=1)
    # "data.dri" is near; "num_epoch" of a wrong section may still end right.
    near = near or [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"did you mean {near[0]}?" if near else "emotion_jax/config.py lists them all"
    return f"{key}: no such key; {hint}"


# Flags of their own: the libraries' global ones would crowd the help.
FLAGS = flags.FlagValues()


def define_config() -> flags.FlagHolder[ConfigDict]:
    """Defines `--config=FILE`, `--config.KEY=VALUE`, `--debug` and `--help`."""
    config = config_flags.DEFINE_config_file("config", None, "a file of configs/", FLAGS)
    flags.DEFINE_boolean("debug", False, "show the traceback of an error", FLAGS)
    flags.DEFINE_boolean("help", False, "print this", FLAGS, short_name="h")
    return config


def config_name() -> str:
    """The name of the file that `--config` read, without its suffix."""
    return Path(config_flags.get_config_filename(FLAGS["config"]).split(":")[0]).stem


def parse_flags(program: str, about: str) -> None:
    """Reads the process's command line into `FLAGS`; at `--help`, prints it and leaves.

    Args:
      program: how it is called, for the errors.
      about: what it does, for the help.

    Raises:
      EmotionError: a flag, the config file, one of its keys or values is wrong.
    """
    argv, see = sys.argv, f"{program} --help lists the flags"
    if {"--help", "-h"} & set(argv):
        _print_help(about)
        raise SystemExit(0)
    no_config = EmotionError("no --config; name a file, such as --config=configs/quickstart.py")
    known: dict[str, Any] = {}
    path = flags.FlagValues()
    flags.DEFINE_string("config", None, "", path)
    try:
        # First what ml_collections tells late or badly: a wrong file, the names of keys.
        path(argv, known_only=True)
        if path.config is not None:
            known = dict(flatten(_load_config(path.config)))
        for key in filter(None, (re.match(r"--?(?:no)?config\.([^=]*)", word) for word in argv)):
            if path.config is None:
                raise no_config
            if key[1] not in known:
                raise EmotionError(f"--config.{_unknown(key[1], known)}")
        words = FLAGS(argv)[1:]
    except flags.Error as error:
        raise EmotionError(f"{_sentence(error, known)}; {see}") from error
    if words:
        raise EmotionError(f"'{words[0]}' belongs to no flag; {see}")
    if path.config is None:
        raise no_config


def _load_config(path: str) -> ConfigDict:
    """What `get_config` of a file returns; ml_collections tells a wrong one only when it is used.

    Raises:
      EmotionError: there is no such file, or it makes no config.
    """
    file, *argument = path.split(":", 1)
    if not Path(file).is_file():
        raise EmotionError(f"--config: no file '{file}'; configs/ has some to start from")
    try:
        config = runpy.run_path(file)["get_config"](*argument)
    except Exception as error:  # a file of the user's own, with whatever it raises
        what = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        if error.args == ("get_config",):
            what = "it has no get_config()"
        raise EmotionError(f"--config: '{file}' does not load ({what}); see configs/") from error
    if not isinstance(config, ConfigDict):
        raise EmotionError(f"--config: get_config() of '{file}' must return a ConfigDict")
    return config


def _print_help(about: str) -> None:
    print(about.strip() + "\n")
    for name in FLAGS:
        if len(name) > 1:
            print(f"  --{name:9} {' '.join(FLAGS[name].help.split())}")
    print("\n--config.KEY=VALUE changes one key; emotion_jax/config.py has them all, with reasons.")


_TYPES = {bool: "true or false", int: "a whole number", float: "a number"}


def _sentence(error: Exception, known: dict[str, Any]) -> str:
    """What absl says of a wrong flag, in one line; of a wrong value, in our words."""
    text = " ".join(str(error).split()).rstrip(".?! ")
    value = re.match(r"flag --config\.([^=]*)=(.*?): ", text)
    if value and (kind := _TYPES.get(type(known[value[1]]))):
        key, default = value[1], known[value[1]]
        return f"--config.{key}: '{value[2]}'; must be {kind}, such as {default}"
    return text
