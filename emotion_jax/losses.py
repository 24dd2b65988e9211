"""Losses per example, over label distributions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> jax.Array:
    """Cross-entropy between label distributions and softmax(logits).

    With hard labels this is the usual loss; with vote shares, mixed labels or a teacher's
    probabilities it is the Kullback-Leibler divergence up to a constant.

    Args:
      logits: `[B, K]`.
      labels: distributions `[B, K]`.
      label_smoothing: share of every label spread evenly over the K classes, 0..1.
      class_weights: K factors on the classes' terms; None for 1.

    Returns:
      Losses `[B]`, in nats.
    """
    if label_smoothing:
        labels = optax.smooth_labels(labels, label_smoothing)
    if class_weights is not None:
        labels = labels * jnp.asarray(class_weights, labels.dtype)
    return optax.softmax_cross_entropy(logits, labels)


def inverse_frequency_weights(counts: np.ndarray, power: float = 1.0) -> tuple[float, ...]:
    """Class weights proportional to count ** -power, whose mean over the examples is 1.

    Args:
      counts: examples a class, `[K]`; a class without any gets weight 0.
      power: 1 balances the classes, 0.5 goes half the way, 0 leaves them.
    """
    counts = np.asarray(counts, np.float64)
    present = counts > 0
    weights = np.where(present, np.where(present, counts, 1) ** -power, 0)
    return tuple((weights * counts.sum() / (weights * counts).sum()).tolist())
