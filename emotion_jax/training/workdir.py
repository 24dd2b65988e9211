"""A run's folder: the config it was begun with, and the lock that keeps a second run out."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emotion_jax.config import default_config, flatten
from emotion_jax.errors import EmotionError
from emotion_jax.host.atomic import replace_text
from emotion_jax.host.json_files import parse_json

CONFIG = "config.json"
# What may change between a run and its continuation: where the same faces lie, how they travel,
# what it runs on, how long it goes on, what becomes of steps that are not finite, what is reported;
# teachers are known by their hashes.
CHANGEABLE = {
    "num_epochs",
    "num_devices",
    "eval_batch_size",
    "checkpoint_every",
    "on_nonfinite",
    "report_mirrored",
    "distill.teachers",
    "data.dir",
    "data.cache_dir",
    "data.feed",
}


def compare_config(config: Any, workdir: Path) -> None:
    """Makes the folder, and checks that a `config.json` there is of the same run.

    Raises:
      EmotionError: the run there was begun with another config, or the folder cannot be made.
    """
    path, now = workdir / CONFIG, _flat(json.loads(config.to_json()))
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            return
        stored = parse_json(path.read_bytes())
    except OSError as error:
        raise _unwritable(workdir, error) from error
    except ValueError as error:
        raise EmotionError(f"'{path}' is not JSON ({error}); use another --workdir") from error
    if not isinstance(stored, dict) or not stored:
        raise EmotionError(f"'{path}' is no config; use another --workdir")
    # A key that came after the run was begun stood where its default leaves things.
    defaults = _flat(json.loads(default_config().to_json()))
    before = {key: value for key, value in defaults.items() if key in now} | _flat(stored)
    for key in sorted({*before, *now} - CHANGEABLE):
        if before.get(key) != now.get(key):
            raise EmotionError(
                f"{key}: '{workdir}' was begun with {before.get(key)}, not {now.get(key)}; "
                "use another --workdir, or the same value"
            )


def read_config(workdir: Path) -> Any:
    """The config of the run in a folder; keys that came after it have their defaults.

    Raises:
      EmotionError: there is none, or it is not ours.
    """
    path = workdir / CONFIG
    try:
        stored = parse_json(path.read_bytes())
        config, known = default_config(), dict(flatten(default_config()))
        # Each network has options of its own.
        config.model = {"name": stored["model"]["name"]}
        config.model.unlock()
        for key, value in _flat(stored).items():
            section, _, name = key.rpartition(".")
            value = tuple(value) if isinstance(known.get(key), tuple) else value
            (config[section] if section else config)[name] = value
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmotionError(f"'{path}' is not a run's config ({error}); name its folder") from error
    return config


def write_config(config: Any, workdir: Path) -> None:
    """Writes `config.json`: once the run can begin, so that a refused config binds nobody."""
    try:
        replace_text(workdir / CONFIG, json.dumps(json.loads(config.to_json()), indent=2) + "\n")
    except OSError as error:
        raise _unwritable(workdir, error) from error


def _unwritable(workdir: Path, error: OSError) -> EmotionError:
    reason = error.strerror or error
    return EmotionError(f"--workdir: '{workdir}' cannot be written ({reason}); name another")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the system lets go when the process ends, however."""
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EmotionError(
                f"--workdir: a run is under way in '{workdir}'; wait for it, or use another"
            ) from error
        yield


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
