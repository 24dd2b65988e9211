"""Steps that are not finite: noticed without waiting for the device, and their batch kept."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.training.experiment import Experiment


class Watch:
    """Ends a run at a step whose loss or gradients were not finite, where the config says "stop".

    Such a step leaves the state as it was, so to notice it one step late spoils nothing; the state
    before it comes back from the last checkpoint, bit by bit.
    """

    def __init__(self, experiment: Experiment, workdir: Path, skipped: float, seed: int):
        """Begins an epoch.

        Args:
          experiment: that is run.
          workdir: receives the batch.
          skipped: the epoch's skipped steps so far, in a run before this one.
          seed: of the run's key.
        """
        self._experiment, self._workdir = experiment, workdir
        self._skipped, self._seed = skipped, seed
        self._stops = experiment.config.on_nonfinite == "stop"

    def check(self, skipped: float, step: int) -> None:
        """Raises EmotionError if the count grew with `step`, the last that it includes."""
        if self._stops and skipped > self._skipped:
            raise EmotionError(
                f"step {step}: its loss or gradients are not finite; its batch is kept in "
                f"'{self._keep(step)}' (numpy.load gives image, label, weight, place, seed, step); "
                "lower optimizer.learning_rate or set optimizer.clip_norm and use another "
                "--workdir, or leave such steps out with --config.on_nonfinite=skip"
            )

    def _keep(self, step: int) -> Path:
        """Writes the batch of step 1, 2, ... as it was before augmentation."""
        experiment, path = self._experiment, self._workdir / f"nonfinite-{step}.npz"
        epoch, row = divmod(step - 1, experiment.steps_per_epoch)
        numbers, train = experiment.epoch_order(epoch)[row], experiment.splits["train"]
        if jax.process_index() == 0:
            np.savez(
                path,
                image=train.read(numbers),
                label=train.labels[numbers],
                weight=train.weight[numbers],
                place=numbers,
                seed=self._seed,
                step=step - 1,
            )
        return path
