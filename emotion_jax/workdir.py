"""A run's folder and its end: the config it was begun with, and how it is stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from emotion_jax.atomic import replace_text
from emotion_jax.errors import EmotionError
from emotion_jax.json_files import parse_json

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
    from emotion_jax.config import default_config  # predict.py takes Stop alone

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
    from emotion_jax.config import default_config, flatten

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


def say(message: str) -> None:
    """Prints, where several processes train one network, from the first alone."""
    import jax  # who only wants to be stopped in good order need not load it

    if jax.process_index() == 0:
        print(message, flush=True)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat


class Stop(contextlib.AbstractContextManager["Stop"]):
    """Turns Ctrl-C and SIGTERM into a wish, granted after the step and once the state is saved.

    Processes that train one network must save the same step: they leave SIGTERM to the notice of
    preemption that JAX has for that, and pass Ctrl-C on to it. Whichever of them gets either, all
    agree on a step. The second Ctrl-C means now; so does the second SIGTERM of a process alone.

    Attributes:
      asked: the signal to end with; None as long as there is no reason to.
    """

    def __init__(self, agree: Callable[[int], bool] | None = None):
        """Takes, of several processes, what tells of a step whether all stop there."""
        self.asked: int | None = None
        self._agree = agree
        self._got: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        ours = (signal.SIGINT, signal.SIGTERM) if self._agree is None else (signal.SIGINT,)
        with contextlib.suppress(ValueError):  # not the main thread: its owner handles signals
            for number in ours:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self._got is not None:  # the second time means now
            self.__exit__()
            signal.raise_signal(number)
        self._got = number
        if self._agree is None:
            self.asked = number
        else:
            signal.raise_signal(signal.SIGTERM)  # JAX's notice: it tells the others

    def due(self, step: int) -> bool:
        """Whether to save and leave after `step`; of several processes each asks at every one."""
        if self._agree is not None and self._agree(step):
            self.asked = self._got or signal.SIGTERM
        return self.asked is not None

    def leave_if_asked(self, step: int) -> None:
        """Says what is saved and ends the program as the signal would have."""
        if self.asked is not None:
            say(f"stopped, saved at step {step}; the same command goes on from there")
            self.leave()

    def leave(self) -> None:
        """Ends the program as the signal would have, if one came; the caller has said so."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt("saved")
        if self.asked is not None:
            raise SystemExit(128 + self.asked)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
