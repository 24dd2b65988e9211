"""A run's state on disk. The only file that knows Orbax.

A checkpoint has three items: `model`, what is evaluated and shipped (the moving averages where
they are on); `optimizer`, the rest of the training state; `meta`, JSON that says how to build the
network and how to make its pixels. `sha256.json` beside them says what every file held: one that
differs is never read. The two newest checkpoints are kept, so that one is left when one is damaged.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from emotion_jax import sharding
from emotion_jax.errors import EmotionError
from emotion_jax.host.atomic import require_room
from emotion_jax.host.manifest import MANIFEST, find_damage, write_manifest
from emotion_jax.host.memory import give_back
from emotion_jax.steps import TrainState, eval_variables

ITEMS = ("model", "optimizer", "meta")
# Bytes that a checkpoint takes beside its arrays, generously: some sixty small files.
ROOM = 1 << 20
# What Orbax raises where a file without hashes says what it never wrote.
_TROUBLE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)


class Checkpoints:
    """The checkpoints of one run: the last two and the best are kept. A context manager.

    A checkpoint that is not as it was written is named on standard error and passed over; a run
    that goes on moves it to `<step>.damaged`, where nothing touches it.
    """

    def __init__(
        self, folder: str | Path, *, monitor: str = "val/accuracy", read_only: bool = False
    ):
        """Opens `folder` and checks all that it holds.

        Args:
          folder: of the checkpoints.
          monitor: the metric that chooses the best: the largest, or the smallest of a loss.
          read_only: never writes, not even the folder.

        Raises:
          EmotionError: `folder` is none, or every checkpoint in it is damaged.
        """

        def score(metrics: Any) -> float:
            value = metrics.get(monitor) if isinstance(metrics, dict) else None
            # What is not a number is never the best.
            if not isinstance(value, int | float) or not abs(value) < math.inf:
                return -math.inf
            return -value if monitor.endswith("loss") else value

        self._folder, self._score = Path(folder).absolute(), score
        if self._folder.exists() and not self._folder.is_dir():
            raise EmotionError(f"'{folder}' must be a folder; use another --workdir")
        # Whether each is as it was written, as far as it is known.
        self._whole: dict[int, bool] = {}
        # Before Orbax looks: it reads metrics at once, and trips over damaged ones.
        if read_only or jax.process_index() == 0:
            self._check_all(set_aside=not read_only)
        if not read_only:
            sharding.wait_for_everyone("checkpoints are checked")
        best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        with _quiet(), _told(self._folder):
            self._manager = ocp.CheckpointManager(
                self._folder,
                item_names=ITEMS,
                options=ocp.CheckpointManagerOptions(
                    create=not read_only,
                    read_only=read_only,
                    lightweight_initialize=read_only,
                    # Without this function Orbax keeps no metrics.
                    best_fn=score,
                    preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
                    cleanup_tmp_directories=not read_only,
                    # On a CPU the arrays to write share memory with those the next step reuses.
                    enable_async_checkpointing=False,
                ),
            )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint; None without any."""
        return max(filter(self._is_whole, self._manager.all_steps()), default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the best whole checkpoint; the newest where none has the monitored metric."""

        def rank(step: int) -> tuple[float, int]:
            return self._score(self._manager.metrics(step) or {}), step

        with _told(self._folder):
            return max(filter(self._is_whole, self._manager.all_steps()), key=rank, default=None)

    def save(
        self, state: TrainState, meta: dict[str, Any], metrics: dict[str, float] | None
    ) -> None:
        """Writes a checkpoint of `state.step`; one in the middle of an epoch has no metrics."""
        model, rest = _split(state)
        args = ocp.args.Composite(
            model=ocp.args.StandardSave(model),
            optimizer=ocp.args.StandardSave(rest),
            meta=ocp.args.JsonSave(meta),
        )
        step, size = int(state.step), sum(x.nbytes for x in jax.tree.leaves(state))
        try:
            # Tried first: where the room ends in its midst, Orbax's threads say so at length.
            sharding.first_does(partial(require_room, self._folder, size + ROOM))
            with _quiet():
                self._manager.save(step, args=args, metrics=metrics, force=True)
            # No process may ask whether it is whole before this says so.
            sharding.first_does(partial(write_manifest, self._folder / str(step)))
        except (OSError, ValueError) as error:  # TensorStore's is a ValueError
            raise EmotionError(
                f"checkpoint of step {step} cannot be written ({_reason(error)}); "
                "make room and start again: the one before is kept"
            ) from error
        give_back()

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads the newest whole checkpoint into arrays placed like those of `state`."""
        target = jax.tree.map(_abstract, state)
        model, rest = _split(target)
        with _told(self._folder):
            item = self._manager.restore(
                self.latest_step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardRestore(model),
                    optimizer=ocp.args.StandardRestore(rest),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        return _join(item["model"], item["optimizer"]), item["meta"]

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """The `meta` of one checkpoint, by default the best."""
        step = self._pick(step)
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with _told(self._folder):
            return self._manager.restore(step, args=args)["meta"]

    def read_model(self, variables: Any, step: int | None = None) -> Any:
        """The `model` of one checkpoint, by default the best, as NumPy arrays.

        Args:
          variables: the shapes to expect, as from `jax.eval_shape`.
          step: which.
        """
        step = self._pick(step)
        # NumPy targets: without them Orbax wants the devices that wrote the file.
        target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), variables)
        args = ocp.args.Composite(model=ocp.args.StandardRestore(target))
        with _told(self._folder):
            return self._manager.restore(step, args=args)["model"]

    def _check_all(self, *, set_aside: bool) -> None:
        """Finds the damaged ones; `set_aside` moves them out of the run's way."""
        folders = {int(path.name): path for path in self._folder.glob("*") if _is_step(path.name)}
        if not any((folder / MANIFEST).exists() for folder in folders.values()):
            self._trust(folders, write=set_aside)
            return
        faults = {step: find_damage(folders[step]) for step in sorted(folders)}
        self._whole = {step: fault is None for step, fault in faults.items()}
        if not any(self._whole.values()):
            raise EmotionError(
                f"no checkpoint in '{self._folder}' is whole (of step {max(faults)}, "
                f"{faults[max(faults)]}); use another --workdir or --model"
            )
        for step, fault in faults.items():
            if fault is not None:
                aside = _unused(self._folder / f"{step}.damaged") if set_aside else None
                self._warn(step, fault, aside)
                if aside is not None:
                    folders[step].rename(aside)

    def _trust(self, folders: dict[int, Path], *, write: bool) -> None:
        """Takes checkpoints that were written before there were manifests for whole."""
        self._whole = dict.fromkeys(folders, True)
        if folders:
            what = "is from an earlier version, without hashes, and is read unchecked"
            print(f"note: '{self._folder}' {what}", file=sys.stderr)
        for folder in folders.values() if write else ():
            write_manifest(folder)

    def _is_whole(self, step: int) -> bool:
        """Whether a checkpoint is as it was written; one of this run's own is checked only now."""
        if step not in self._whole:
            fault = find_damage(self._folder / str(step))
            self._whole[step] = fault is None
            if fault is not None:
                self._warn(step, fault)
        return self._whole[step]

    def _warn(self, step: int, fault: str, aside: Path | None = None) -> None:
        where = f", moved to '{aside.name}'" if aside else ""
        what = f"checkpoint {step} in '{self._folder}' is damaged ({fault})"
        print(f"warning: {what}{where}; another one is used", file=sys.stderr)

    def _pick(self, step: int | None) -> int:
        """The step asked for, if it can be read; by default the best."""
        picked = self.best_step if step is None else step
        if picked is None or not self._is_whole(picked):
            raise EmotionError(f"checkpoint {picked} in '{self._folder}' is damaged; use another")
        return picked


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax from logging what is meant, or raised as well: what failed in its threads."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _split(state: TrainState) -> tuple[Any, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state}
    if state.ema is not None:
        rest |= {"params": state.params, "batch_stats": state.batch_stats}
    return eval_variables(state), rest


def _join(model: Any, rest: Any) -> TrainState:
    ema = model if "params" in rest else None
    raw = rest if "params" in rest else model
    return TrainState(rest["step"], raw["params"], raw["batch_stats"], ema, rest["opt_state"])


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _is_step(name: str) -> bool:
    return name.isdecimal() and name == str(int(name))


def _unused(path: Path) -> Path:
    """The path, or one with a number behind it if something lies there."""
    number = 1
    while (free := path if number == 1 else path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Makes one sentence of what Orbax trips over in a folder that is not as it was written."""
    try:
        yield
    except EmotionError:
        raise
    except (*_TROUBLE, OSError) as error:
        raise EmotionError(
            f"'{folder}' holds checkpoints of another network, or damaged ones ({_reason(error)}); "
            "use another --workdir or --model"
        ) from error


def _reason(error: Exception) -> str:
    said = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return said[0][:200] if said else type(error).__name__
