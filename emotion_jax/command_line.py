"""The command line of the programs that take a config: `--config=FILE` and `--config.KEY=VALUE`."""

from __future__ import annotations

import os
import re
import runpy
import sys
import textwrap
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from emotion_jax.config import flatten, unknown_key
from emotion_jax.errors import EmotionError

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
                raise EmotionError(f"--config.{unknown_key(key[1], known)}")
        words = FLAGS(argv)[1:]
    except flags.Error as error:
        raise EmotionError(f"{_sentence(error, known)}; {see}") from error
    if words:
        # Not Path's: that raises for names that are too long for a file.
        meant = [name for name in (words[0], f"configs/{words[0]}.py") if os.path.isfile(name)]
        hint = f"write --config={meant[0]}" if meant and path.config is None else see
        raise EmotionError(f"'{words[0]}' belongs to no flag; {hint}")
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
