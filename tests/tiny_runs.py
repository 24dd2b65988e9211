"""Runs of a few seconds: a network that compiles at once, and faces that it learns in no time."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from emotion_jax import models, train
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.config import default_config
from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.models.layers import global_max_pool
from emotion_jax.training.experiment import make_experiment

TRAIN, VALIDATION, SIDE = 96, 40, 12


class Tiny(nn.Module):
    """BatchNorm and dropout, and nothing that takes long to compile."""

    num_classes: int | None = 8
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(8, (3, 3), dtype=self.dtype)(x)
        x = nn.BatchNorm(not train, momentum=0.5, axis_name=self.axis_name)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes)(global_max_pool(x))


def write_faces(path, *, train=TRAIN, validation=VALIDATION, white=()):
    """An array file in which each class has its own brightness, but for some faces all white."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, train + validation)
    images = 30 * labels[:, None, None, None] + rng.integers(0, 20, (len(labels), SIDE, SIDE, 3))
    images[list(white)] = 255
    split = np.repeat([0, 1], [train, validation]).astype(np.uint8)
    save_arrays(path, Arrays(images.astype(np.uint8), split, labels=labels))
    return str(path)


def finish_run(faces, workdir):
    """An uninterrupted run of 18 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", Tiny)
        train.train_and_evaluate(make_config(faces), workdir)
    return workdir


def make_config(faces, **changes):
    config = default_config()
    config.data.update({"source": "arrays", "dir": faces})
    config.model = {"name": "tiny"}
    config.update({"image_size": SIDE, "batch_size": 16, "eval_batch_size": 32, "num_epochs": 3})
    config.augment.update({"flip": 0.5, "brightness": 0.02, "mixup": 0.1})
    config.optimizer.learning_rate = 0.02
    config.ema_decay = 0.5
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return config


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def lasting(row):
    """What must repeat: all but how fast it went."""
    return {k: v for k, v in row.items() if k != "images_per_s"}


def last_state(config, workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return jax.tree.map(
            np.asarray, checkpoints.restore(make_experiment(config).init_state())[0]
        )
