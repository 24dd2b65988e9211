"""Training runs one after the other within a time: what is done stays done, what is not goes on.

Each is `launch.py` in a process of its own. It is asked to stop when the time is up, saves, and the
next call goes on with it. A finished run is a line of `results.jsonl`.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import runpy
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# As configs are, so that one of them is known to lie in it.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from emotion_jax.config import flatten, unknown_key  # noqa: E402
from emotion_jax.config_check import check_config  # noqa: E402
from emotion_jax.errors import EmotionError  # noqa: E402

RESULTS = "results.jsonl"
# Seconds that a run is left to finish a step and save, before it is killed: it goes on from its
# last epoch then.
GRACE = 60.0
# With less than this left nothing is started: it would only load JAX.
LEAST = 5.0


class TimeIsUp(Exception):
    """The seconds given are spent; everything is saved."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      name: of the variant.
      config: a file of `configs/`.
      seed: of the run.
      changes: keys of the config and their values.
    """

    name: str
    config: str
    seed: int
    changes: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.name}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """What must be the same for two runs of this label to be one."""
        path = Path(self.config).resolve()
        # Of a checkout's own the place in it: the same run may go on in another checkout.
        config = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        return json.loads(json.dumps({"config": str(config), "changes": self.changes}))


def parse_overrides(words: Sequence[str], config: str, flag: str = "--overrides") -> dict[str, Any]:
    """KEY=VALUE words, given by a flag, as the values they mean.

    Raises:
      EmotionError: a word is none, names no key of the config, or a value that cannot be meant.
    """
    known, found = base_config(config), {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise EmotionError(f"{flag}: '{word}'; write KEY=VALUE")
        if key not in known and not key.startswith("model."):
            raise EmotionError(f"{flag}: {unknown_key(key, known)}")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a word, such as a path
            found[key] = {"true": True, "false": False}.get(value, value)
    settings = runpy.run_path(config)["get_config"]()
    try:
        settings.update_from_flattened_dict(found)
    except (KeyError, TypeError, ValueError) as error:
        raise EmotionError(f"{flag}: {' '.join(map(str, error.args))}") from error
    check_config(settings)
    return found


def base_config(config: str) -> dict[str, Any]:
    """Every key of a config file, with its value."""
    return dict(flatten(runpy.run_path(config)["get_config"]()))


class Runner:
    """Trains runs into one folder until a time is up."""

    def __init__(self, folder: Path, seconds: float):
        """Takes the folder of everything, and the seconds from now; infinity for no end."""
        self.folder, self._end = folder, time.monotonic() + seconds
        self._path = folder / RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        # What one run compiled the next need not; private, for who writes there could run code.
        cache = folder / "compiled"
        cache.mkdir(mode=0o700, exist_ok=True)
        self._environment = {
            "JAX_COMPILATION_CACHE_DIR": str(cache.absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
            **os.environ,
            # This very checkout, wherever it is called from.
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])]),
        }

    def rows(self) -> list[dict[str, Any]]:
        """What is finished, in its order; half a line, which a kill left, is no row."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [row for row in map(_row, lines) if row]

    def find(self, label: str) -> dict[str, Any] | None:
        """The row of what is finished."""
        return next((row for row in self.rows() if row["label"] == label), None)

    def finished(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """The rows of those of the runs that are finished, with these settings, in their order."""
        settings = {run.label: run.settings() for run in runs}
        rows = (row for row in self.rows() if row["label"] in settings)
        return [row for row in rows if row["settings"] == settings[row["label"]]]

    def keep(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes a row down; returns it."""
        before = self._path.read_bytes() if self._path.exists() else b""
        torn = before[-1:] not in (b"", b"\n")
        with self._path.open("a") as file:
            file.write("\n" * torn + json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return row

    def train(self, run: Run) -> dict[str, Any]:
        """Trains a run to its end, or finds its row.

        Raises:
          EmotionError: it was finished with other settings, or failed.
          TimeIsUp: it was stopped, or not begun.
        """
        if done := self.find(run.label):
            if done["settings"] != run.settings():
                raise EmotionError(
                    f"{run.label}: '{self._path}' has it with {done['settings']}, not "
                    f"{run.settings()}; use another --output"
                )
            return done
        workdir = self.folder / run.label
        changes = {"seed": run.seed, **run.changes}
        words = [f"--config.{key}={value}" for key, value in changes.items()]
        begun = time.monotonic()
        self.call(
            run.label,
            [str(ROOT / "launch.py"), f"--config={run.config}", f"--workdir={workdir}", *words],
        )
        log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return self.keep(
            {
                "label": run.label,
                "name": run.name,
                "seed": run.seed,
                "settings": run.settings(),
                "epochs": log[-1]["epoch"],
                "images_per_s": statistics.median(row["images_per_s"] for row in log),
                # Of the last call alone, where there were several.
                "seconds": round(time.monotonic() - begun, 1),
                **json.loads((workdir / "scores.json").read_text()),
            }
        )

    def call(self, label: str, words: Sequence[str]) -> str:
        """Runs a Python program, its words into `<label>.log`; returns what it printed.

        Raises:
          EmotionError: it failed; the message ends with the last that it said.
          TimeIsUp: it was stopped, or not begun.
        """
        left = self._end - time.monotonic()
        if left < LEAST:
            raise TimeIsUp
        print(f"{time.strftime('%H:%M:%S')} {label}", flush=True)
        path = self.folder / f"{label}.log"
        with path.open("ab") as log, _Asked() as asked:
            start = log.tell()
            # In a group of its own: what stops this process, its whole group even, reaches the run
            # through `_stop` alone, and once. A second time would mean "now, unsaved".
            process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                process_group=0,
            )
            try:
                asked.listen()
                process.wait(None if left == float("inf") else left)
            except (subprocess.TimeoutExpired, TimeIsUp, KeyboardInterrupt) as why:
                asked.listen(False)  # it is being stopped
                _stop(process)
                if isinstance(why, KeyboardInterrupt):
                    raise
                raise TimeIsUp from None
        said = path.read_bytes()[start:].decode(errors="replace")
        if process.returncode:
            last = (said.strip().splitlines() or ["no word"])[-1]
            raise EmotionError(f"{label} failed ({last}); all that it said is in '{path}'")
        return said


def _row(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


class _Asked:
    """Ctrl-C, SIGTERM and a closed terminal: raised once there is a run to be stopped."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> _Asked:
        self._listens, self._come = False, 0
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
        for number, before in self._before.items():
            if before is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def listen(self, listens: bool = True) -> None:
        """From now on a signal raises, and so does one that has come before; or none does."""
        self._listens = listens
        if self._come:
            self._take(self._come)

    def _take(self, number: int, *_: object) -> None:
        self._come = number
        if self._listens:
            raise KeyboardInterrupt if number == signal.SIGINT else TimeIsUp


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks a run to save and leave; kills it if it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
