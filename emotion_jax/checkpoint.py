"""A run's state on disk. The only file that knows Orbax.

A checkpoint has three items: `model`, what is evaluated and shipped (the moving averages where
they are on); `optimizer`, the rest of the training state; `meta`, JSON that says how to build the
network and how to make its pixels.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from emotion_jax.errors import EmotionError
from emotion_jax.steps import TrainState, eval_variables

ITEMS = ("model", "optimizer", "meta")


class Checkpoints:
    """The checkpoints of one run: the last and the best are kept. A context manager."""

    def __init__(
        self, folder: str | Path, *, monitor: str = "val/accuracy", read_only: bool = False
    ):
        """Opens `folder`.

        Args:
          folder: of the checkpoints.
          monitor: the metric that chooses the best: the largest, or the smallest of a loss.
          read_only: never writes, not even the folder.
        """

        def score(metrics: Any) -> float:
            value = metrics.get(monitor, math.nan)
            # What is not a number is never the best.
            if not math.isfinite(value):
                return -math.inf
            return -value if monitor.endswith("loss") else value

        if Path(folder).exists() and not Path(folder).is_dir():
            raise EmotionError(f"'{folder}' must be a folder; use another --workdir")
        best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        with _quiet():
            self._manager = ocp.CheckpointManager(
                Path(folder).absolute(),
                item_names=ITEMS,
                options=ocp.CheckpointManagerOptions(
                    create=not read_only,
                    read_only=read_only,
                    # best_step() is the latest, silently, without this function.
                    best_fn=score,
                    preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), best]),
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
        """The step of the newest checkpoint; None without any."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the best checkpoint by the monitored metric; the newest where none has it."""
        best = self._manager.best_step()
        return self.latest_step if best is None else best

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
        step = int(state.step)
        try:
            with _quiet():
                self._manager.save(step, args=args, metrics=metrics, force=True)
        except OSError as error:
            raise EmotionError(
                f"checkpoint of step {step} cannot be written ({error.strerror or error}); "
                "make room and start again: the one before is kept"
            ) from error

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads the newest checkpoint into arrays placed like those of `state`."""
        target = jax.tree.map(_abstract, state)
        model, rest = _split(target)
        try:
            item = self._manager.restore(
                self.latest_step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardRestore(model),
                    optimizer=ocp.args.StandardRestore(rest),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            raise _mismatch(self._manager.directory, error) from error
        return _join(item["model"], item["optimizer"]), item["meta"]

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """The `meta` of one checkpoint, by default the best."""
        step = self.best_step if step is None else step
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        try:
            return self._manager.restore(step, args=args)["meta"]
        except (ValueError, KeyError, OSError) as error:
            raise _mismatch(self._manager.directory, error) from error

    def read_model(self, variables: Any, step: int | None = None) -> Any:
        """The `model` of one checkpoint, by default the best, as NumPy arrays.

        Args:
          variables: the shapes to expect, as from `jax.eval_shape`.
          step: which.
        """
        step = self.best_step if step is None else step
        # NumPy targets: without them Orbax wants the devices that wrote the file.
        target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), variables)
        args = ocp.args.Composite(model=ocp.args.StandardRestore(target))
        try:
            return self._manager.restore(step, args=args)["model"]
        except (ValueError, KeyError, OSError) as error:
            raise _mismatch(self._manager.directory, error) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax from warning of what is meant: to read alone, to save within an epoch."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
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


def _mismatch(folder: Any, error: Exception) -> EmotionError:
    reason = (
        str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    )
    return EmotionError(
        f"'{folder}' holds checkpoints of another network, or damaged ones ({reason}); "
        "use another --workdir or --model"
    )
