"""A training run: `train_and_evaluate(config, workdir)`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from emotion_jax import metrics, report, sharding
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.config import MONITORED
from emotion_jax.config_check import check_config
from emotion_jax.data.pipeline import make_feed
from emotion_jax.errors import EmotionError
from emotion_jax.host.stopping import Stop, say
from emotion_jax.logs import MetricsLog, Row
from emotion_jax.steps import TrainState, eval_variables
from emotion_jax.training import conclude
from emotion_jax.training.experiment import Experiment, make_experiment
from emotion_jax.training.initial import begin_from, check_weights_of
from emotion_jax.training.nonfinite import Watch
from emotion_jax.training.progress import TrainProgress
from emotion_jax.training.workdir import compare_config, locked, write_config


def train_and_evaluate(config: Any, workdir: str | Path) -> None:
    """Trains until `config.num_epochs`, from where the workdir's last checkpoint stands.

    Args:
      config: see `config.default_config`.
      workdir: receives everything that the run leaves behind.

    Raises:
      EmotionError: the config, the data or the workdir is wrong.
    """
    workdir = Path(os.path.expanduser(workdir))
    check_config(config)
    compare_config(config, workdir)
    if not (workdir / "checkpoints").exists():  # told before the data is opened, for an hour maybe
        check_weights_of(config)
    experiment = make_experiment(config)
    first = jax.process_index() == 0
    with (
        locked(workdir) if first else contextlib.nullcontext(),
        Checkpoints(workdir / "checkpoints", monitor=config.best) as checkpoints,
        MetricsLog(workdir, enabled=first) as log,
    ):
        finished = checkpoints.latest_step == experiment.total_steps
        # Both read before the config binds the folder.
        if not finished and experiment.teachers:
            say(f"learns from {', '.join(config.distill.teachers)}")
        beginning = None if finished else _start(experiment, checkpoints, log, workdir)
        if first:
            write_config(config, workdir)
        if beginning is None:
            say(f"finished already: {config.num_epochs} epochs, {experiment.total_steps} steps")
        else:
            if first:
                conclude.draw_inputs(experiment, workdir)
            try:
                _train(experiment, checkpoints, log, workdir, *beginning)
            except BaseException:
                # A stopped run has its curves, too; if the disk is full, that is not the news.
                with contextlib.suppress(OSError):
                    _write_results(log, workdir, config)
                raise
            _write_results(log, workdir, config)
        conclude.conclude(experiment, checkpoints, workdir)


def _write_results(log: MetricsLog, workdir: Path, config: Any) -> None:
    if jax.process_index() == 0 and log.rows():
        report.write_results(log.rows(), workdir, monitor=config.best)


def _train(
    experiment: Experiment,
    checkpoints: Checkpoints,
    log: MetricsLog,
    workdir: Path,
    state: TrainState,
    running: metrics.Metrics,
    seed: int,
) -> None:
    """Steps to the end, from what `_start` returns."""
    config, per_epoch = experiment.config, experiment.steps_per_epoch
    feed, val_feed = (
        make_feed(experiment.feed, experiment.splits[name], experiment.mesh)
        for name in ("train", "validation")
    )
    step_fn = experiment.compile_train_step(feed)
    evaluate = experiment.compile_evaluation(val_feed)
    key = jax.random.key(seed)
    start, lost = int(state.step), sum(row.get("train/skipped", 0) for row in log.rows())
    show = TrainProgress(
        config.num_epochs,
        per_epoch,
        config.batch_size,
        start_step=start,
        history=log.rows(),
        monitor=config.best,
        enabled=jax.process_index() == 0,
    )
    with Stop(sharding.agreement()) as stop, show as progress:
        for epoch in range(start // per_epoch, config.num_epochs):
            begun, skip = time.monotonic(), int(state.step) % per_epoch
            order = experiment.epoch_order(epoch)
            sums = metrics.Running(running)
            watch = Watch(experiment, workdir, running.skipped, seed)
            for done, args in enumerate(feed(order, skip), start=skip + 1):
                state, now = step_fn(state, args, key)
                sums.add(now)
                watch.check(sums.skipped, epoch * per_epoch + done - 1)
                progress.update(epoch + 1, done, sums.loss, sums.accuracy)
                due = config.checkpoint_every and done % config.checkpoint_every == 0
                if (stop.due(epoch * per_epoch + done) or due) and done < per_epoch:
                    watch.check(sums.all().skipped, epoch * per_epoch + done)
                    checkpoints.save(state, _meta(experiment, seed, epoch, sums.all()), None)
                    stop.leave_if_asked(int(state.step))
            # Its sums are there once the last step is done: the clock waits for it, too.
            trained, running = sums.all(), metrics.empty(len(experiment.emotions))
            pace = (per_epoch - skip) * config.batch_size / (time.monotonic() - begun)
            watch.check(trained.skipped, (epoch + 1) * per_epoch)
            lost += int(trained.skipped)
            row = _measure(experiment, state, evaluate, trained, lost, pace)
            # The row first: one without its checkpoint is cut back and written anew.
            log.write(row)
            scores = {name: row[name] for name in MONITORED}
            checkpoints.save(state, _meta(experiment, seed, epoch + 1, running), scores)
            progress.end_epoch(row)
            stop.leave_if_asked(int(state.step))


def _start(
    experiment: Experiment, checkpoints: Checkpoints, log: MetricsLog, workdir: Path
) -> tuple[TrainState, metrics.Metrics, int]:
    """The state to go on from, the sums over the steps of its unfinished epoch, the key's seed."""
    config, state, step = experiment.config, experiment.init_state(), checkpoints.latest_step
    log.rewind(step or 0)
    if step is None:
        seed = config.seed
        if config.init_from:
            state, drawn, width, mark = begin_from(config.init_from, state, experiment.meta)
            # What is drawn must be new to these weights.
            seed = (seed + mark) % 2**32
            widened = f", widened from {width:g} to {config.model.width:g}" if width else ""
            anew = ", ".join(drawn) or "no layer"
            say(f"begins from {config.init_from}{widened}, drawn anew: {anew}")
        return state, metrics.empty(len(experiment.emotions)), seed
    if step > experiment.total_steps:
        raise EmotionError(
            f"num_epochs: {config.num_epochs} end at step {experiment.total_steps}, but "
            f"'{workdir}' is at step {step}; ask for more, or use another --workdir"
        )
    state, meta = checkpoints.restore(state)
    running = meta.get("running")
    counted = isinstance(running, dict) and running.keys() == vars(metrics.empty(1)).keys()
    if running is None or not counted or "faces" not in meta:
        raise EmotionError(
            f"'{workdir}' was begun by another version, which counted otherwise; use another "
            "--workdir (predict.py reads this one)"
        )
    if not experiment.knows(meta):
        raise EmotionError(
            f"data.dir: '{workdir}' was trained and measured on other faces than "
            f"'{config.data.dir}' holds; use another --workdir, or the same data (of a run that "
            "has moved, copy data.cache_dir, too)"
        )
    if meta.get("teachers", []) != experiment.teacher_hashes:
        raise EmotionError(
            f"distill.teachers: '{workdir}' has learnt from others so far, or in another order; "
            "name the same, or use another --workdir"
        )
    say(f"resumed from step {step}")
    running = metrics.Metrics(**{key: np.array(x) for key, x in running.items()})
    return state, running, meta.get("seed", config.seed)


def _meta(
    experiment: Experiment, seed: int, epoch: int, running: metrics.Metrics
) -> dict[str, Any]:
    sums = {key: np.asarray(x).tolist() for key, x in vars(running).items()}
    faces = {"faces": experiment.fingerprint, "teachers": experiment.teacher_hashes}
    return {**experiment.meta, **faces, "seed": seed, "epoch": epoch, "running": sums}


def _measure(
    experiment: Experiment,
    state: TrainState,
    evaluate: Callable[[Any], metrics.Metrics],
    trained: metrics.Metrics,
    lost: int,
    pace: float,
) -> Row:
    """The row of the epoch that `state` ends; `lost` are all steps so far that were skipped."""
    step = int(state.step)
    epoch = step // experiment.steps_per_epoch
    if not trained.weight:
        raise EmotionError(
            f"no step of epoch {epoch} had a finite loss; lower optimizer.learning_rate or set "
            "optimizer.clip_norm, and use another --workdir"
        )
    train, val = metrics.summarize(trained), metrics.summarize(evaluate(eval_variables(state)))
    recall = dict(zip(experiment.emotions, val["recall"].tolist(), strict=True))
    return {
        "step": step,
        "epoch": epoch,
        "train/loss": train["loss"],
        "train/accuracy": train["accuracy"],
        "train/skipped": int(trained.skipped),
        **{f"val/{name}": val[name] for name in ("loss", "accuracy", "macro_f1", "nll", "ece")},
        **{f"val/recall/{name}": value for name, value in recall.items()},
        # A skipped step does not move the schedule on.
        "learning_rate": float(experiment.schedule(step - 1 - lost)),
        "images_per_s": pace,
    }
