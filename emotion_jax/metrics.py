"""Metrics as sums over examples: measured on the device, merged by addition, read at the end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

# Of the expected calibration error: equal widths of confidence, as in arXiv 1706.04599.
BINS = 15


@struct.dataclass
class Metrics:
    """Sums over examples, each counted by its weight.

    Attributes:
      loss: sum of losses, float `[]`.
      weight: sum of weights, float `[]`.
      confusion: float `[K, K]`, row the true class, column the predicted one.
      nll: sum of -log p(true class), float `[]`; the loss itself where labels are hard and plain.
      bins: float `[15, 3]`, of the predictions by their confidence, from 0 to 1 in equal steps:
        sums of weight, of confidence, and of weight that was right.
      skipped: training steps not taken, because their numbers were not finite, float `[]`.
    """

    loss: Any
    weight: Any
    confusion: Any
    nll: Any
    bins: Any
    skipped: Any


def empty(num_classes: int) -> Metrics:
    """The metrics of no examples, as NumPy float64."""
    confusion, bins = np.zeros((num_classes, num_classes)), np.zeros((BINS, 3))
    return Metrics(np.zeros(()), np.zeros(()), confusion, np.zeros(()), bins, np.zeros(()))


def measure(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array,
    losses: jax.Array,
    *,
    axis_name: str | None = None,
) -> Metrics:
    """Sums up one batch.

    Args:
      logits: `[B, K]`; the prediction is the largest.
      labels: distributions `[B, K]`; the true class is the largest.
      weight: `[B]`; 0 for padding.
      losses: `[B]`.
      axis_name: a mapped axis to sum over, if any.
    """
    num_classes = logits.shape[-1]
    true = jax.nn.one_hot(labels.argmax(-1), num_classes)
    predicted = jax.nn.one_hot(logits.argmax(-1), num_classes)
    # Sums of small whole numbers: exact in float32, whatever the device multiplies in.
    confusion = jnp.matmul((true * weight[:, None]).T, predicted, precision="highest")
    log_probs = jax.nn.log_softmax(logits)
    confidence, right = jnp.exp(log_probs.max(-1)), (true * predicted).sum(-1)
    # A bin holds its upper edge: a confidence of 1 belongs to the last.
    place = (jnp.ceil(confidence * BINS) - 1)[:, None] == jnp.arange(BINS)
    parts = weight[:, None] * jnp.stack([jnp.ones_like(right), confidence, right], axis=1)
    sums = Metrics(
        loss=jnp.sum(losses * weight),
        weight=jnp.sum(weight),
        confusion=confusion,
        nll=-jnp.sum(weight * (true * log_probs).sum(-1)),
        bins=jnp.matmul(place.T.astype(parts.dtype), parts, precision="highest"),
        skipped=jnp.zeros(()),
    )
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def merge(a: Metrics, b: Metrics) -> Metrics:
    """The metrics of both sets of examples."""
    return jax.tree.map(lambda x, y: x + y, a, b)


def to_host(metrics: Metrics) -> Metrics:
    """The same sums as NumPy float64, in which whole epochs add up exactly."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), metrics)


class Running:
    """Sums that grow step by step, the newest held back: the device never waits for the host."""

    def __init__(self, total: Metrics):
        self._total = total
        self._newest: Metrics | None = None

    def add(self, new: Metrics) -> None:
        """Takes a step's sums; waits for those of the step before."""
        self.all()
        self._newest = new

    def all(self) -> Metrics:
        """The sums with the newest step's, for which this waits."""
        if self._newest is not None:
            self._total, self._newest = merge(self._total, to_host(self._newest)), None
        return self._total

    @property
    def loss(self) -> float:
        """The mean loss, but for the newest step; NaN where there is no other."""
        return _mean(self._total.loss, self._total.weight)

    @property
    def skipped(self) -> int:
        """The steps that were skipped, but for the newest."""
        return int(self._total.skipped)

    @property
    def accuracy(self) -> float:
        """The share of right answers, but for the newest step; NaN where there is no other."""
        return _mean(np.trace(self._total.confusion), self._total.weight)


def _mean(total: Any, weight: Any) -> float:
    return float(total / weight) if weight else float("nan")


def summarize(metrics: Metrics) -> dict[str, Any]:
    """Reads the sums.

    Returns:
      loss, nll, accuracy, ece (the expected calibration error, over `BINS`) and macro_f1 (the
      mean over the classes that occur), floats; recall, precision, f1 and count, `[K]`. Recall is
      NaN for a class without examples, precision for one never predicted.
    """
    m = to_host(metrics)
    hits, true, predicted = np.diag(m.confusion), m.confusion.sum(1), m.confusion.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hits / (true + predicted)
        return {
            "loss": float(m.loss / m.weight),
            "nll": float(m.nll / m.weight),
            "ece": float(np.abs(m.bins[:, 1] - m.bins[:, 2]).sum() / m.weight),
            "accuracy": float(hits.sum() / m.weight),
            "macro_f1": float(f1[true > 0].mean()) if true.any() else float("nan"),
            "recall": hits / true,
            "precision": hits / predicted,
            "f1": f1,
            "count": true,
        }
