"""A training run: `train_and_evaluate(config, workdir)`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from emotion_jax import conclude, metrics, report
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.data.pipeline import epoch_order, make_feed
from emotion_jax.errors import EmotionError
from emotion_jax.experiment import Experiment, make_experiment
from emotion_jax.labels import EMOTIONS
from emotion_jax.logs import MetricsLog, Row, TrainProgress
from emotion_jax.steps import TrainState, eval_variables
from emotion_jax.workdir import Stop, compare_config, write_config


def train_and_evaluate(config: Any, workdir: str | Path) -> None:
    """Trains until `config.num_epochs`, from where the workdir's last checkpoint stands.

    Args:
      config: see `config.default_config`.
      workdir: receives everything that the run leaves behind.

    Raises:
      EmotionError: the config, the data or the workdir is wrong.
    """
    workdir = Path(workdir).expanduser()
    compare_config(config, workdir)
    experiment = make_experiment(config)
    write_config(config, workdir)
    first = jax.process_index() == 0
    with (
        Checkpoints(workdir / "checkpoints", monitor=config.best) as checkpoints,
        MetricsLog(workdir, enabled=first) as log,
    ):
        if checkpoints.latest_step == experiment.total_steps:
            print(f"finished already: {config.num_epochs} epochs, {experiment.total_steps} steps")
        else:
            if first:
                conclude.draw_inputs(experiment, workdir)
            _train(experiment, checkpoints, log, workdir)
        if first:
            report.write_results(log.rows(), workdir, monitor=config.best)
            conclude.conclude(experiment, checkpoints, workdir)


def _train(
    experiment: Experiment, checkpoints: Checkpoints, log: MetricsLog, workdir: Path
) -> None:
    """Steps from the last checkpoint, or from the start, to the end."""
    config, per_epoch = experiment.config, experiment.steps_per_epoch
    feed, val_feed = (
        make_feed(config.data.feed, experiment.splits[name], experiment.mesh)
        for name in ("train", "validation")
    )
    state, running = _start(experiment, checkpoints, log, workdir)
    step_fn = experiment.compile_train_step(feed)
    evaluate = experiment.compile_evaluation(val_feed)
    key = jax.random.key(config.seed)
    start = int(state.step)
    show = TrainProgress(
        config.num_epochs,
        per_epoch,
        config.batch_size,
        start_step=start,
        history=log.rows(),
        monitor=config.best,
        enabled=jax.process_index() == 0,
    )
    with Stop() as stop, show as progress:
        for epoch in range(start // per_epoch, config.num_epochs):
            begun, skip = time.monotonic(), int(state.step) % per_epoch
            order = epoch_order(config.seed, epoch, len(feed.split), config.batch_size)
            sums = _Sums(running)
            for done, args in enumerate(feed(order, skip), start=skip + 1):
                state, now = step_fn(state, args, key)
                sums.add(now)
                progress.update(epoch + 1, done, sums.loss, sums.accuracy)
                due = config.checkpoint_every and done % config.checkpoint_every == 0
                if (due or stop.asked) and done < per_epoch:
                    checkpoints.save(state, _meta(experiment, epoch, sums.all()), None)
                    stop.leave_if_asked(int(state.step))
            seconds = time.monotonic() - begun
            row = _row(
                experiment, int(state.step), epoch + 1, sums.all(), evaluate(eval_variables(state))
            )
            row["images_per_s"] = (per_epoch - skip) * config.batch_size / seconds
            running = metrics.empty(len(EMOTIONS))
            # The row first: one without its checkpoint is cut back and written anew.
            log.write(row)
            score = {config.best: row[config.best]}
            checkpoints.save(state, _meta(experiment, epoch + 1, running), score)
            progress.end_epoch(row)
            stop.leave_if_asked(int(state.step))


def _start(
    experiment: Experiment, checkpoints: Checkpoints, log: MetricsLog, workdir: Path
) -> tuple[TrainState, metrics.Metrics]:
    """The state to go on from, and the sums over the steps of its unfinished epoch."""
    state, step = experiment.init_state(), checkpoints.latest_step
    log.rewind(step or 0)
    if step is None:
        return state, metrics.empty(len(EMOTIONS))
    if step > experiment.total_steps:
        raise EmotionError(
            f"num_epochs: {experiment.config.num_epochs} end at step {experiment.total_steps}, but "
            f"'{workdir}' is at step {step}; ask for more, or use another --workdir"
        )
    state, meta = checkpoints.restore(state)
    print(f"resumed from step {step}")
    return state, metrics.Metrics(*(np.array(x) for x in meta["running"]))


class _Sums:
    """An epoch's metrics so far, but for the newest step's: the device never waits for the host."""

    def __init__(self, total: metrics.Metrics):
        self._total = total
        self._newest: metrics.Metrics | None = None

    def add(self, new: metrics.Metrics) -> None:
        self.all()
        self._newest = new

    def all(self) -> metrics.Metrics:
        """The sums with the newest step's, for which this waits."""
        if self._newest is not None:
            self._total = metrics.merge(self._total, metrics.to_host(self._newest))
            self._newest = None
        return self._total

    @property
    def loss(self) -> float:
        return float(self._total.loss / max(self._total.weight, 1e-9))

    @property
    def accuracy(self) -> float:
        return float(np.trace(self._total.confusion) / max(self._total.weight, 1e-9))


def _meta(experiment: Experiment, epoch: int, running: metrics.Metrics) -> dict[str, Any]:
    sums = [np.asarray(x).tolist() for x in (running.loss, running.weight, running.confusion)]
    return {**experiment.meta, "epoch": epoch, "running": sums}


def _row(
    experiment: Experiment,
    step: int,
    epoch: int,
    trained: metrics.Metrics,
    measured: metrics.Metrics,
) -> Row:
    train, val = metrics.summarize(trained), metrics.summarize(measured)
    recall = dict(zip(EMOTIONS, val["recall"].tolist(), strict=True))
    return {
        "step": step,
        "epoch": epoch,
        "train/loss": train["loss"],
        "train/accuracy": train["accuracy"],
        **{f"val/{name}": val[name] for name in ("loss", "accuracy", "macro_f1")},
        **{f"val/recall/{name}": value for name, value in recall.items()},
        "learning_rate": float(experiment.schedule(step - 1)),
    }
