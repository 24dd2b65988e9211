"""Losses per example, over label distributions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

# (logits, labels) to losses; from teachers, (logits, labels, their answers).
LossFn = Callable[..., jax.Array]


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
    logit_adjustment: tuple[float, ...] | None = None,
) -> jax.Array:
    """Cross-entropy between label distributions and softmax(logits).

    With hard labels this is the usual loss; with vote shares, mixed labels or a teacher's
    probabilities it is the Kullback-Leibler divergence up to a constant.

    Args:
      logits: `[B, K]`.
      labels: distributions `[B, K]`.
      label_smoothing: share of every label spread evenly over the K classes, 0..1.
      class_weights: K factors on the classes' terms; None for 1.
      logit_adjustment: K numbers added to the logits; None for 0. See `log_shares`.

    Returns:
      Losses `[B]`, in nats.
    """
    if label_smoothing:
        labels = optax.smooth_labels(labels, label_smoothing)
    if class_weights is not None:
        labels = labels * jnp.asarray(class_weights, labels.dtype)
    if logit_adjustment is not None:
        logits = logits + jnp.asarray(logit_adjustment, logits.dtype)
    return optax.softmax_cross_entropy(logits, labels)


def distillation(
    logits: jax.Array,
    labels: jax.Array,
    taught: jax.Array,
    *,
    loss_fn: LossFn,
    temperature: float,
    share: float,
) -> jax.Array:
    """A share of the labels' loss, and for the rest how far the answers are from a teacher's.

    The second part is the Kullback-Leibler divergence of softmax(logits / T) from the teacher's
    softened answers, times T ** 2, which keeps its gradient as large as at T = 1 (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", arXiv 1503.02531).

    Args:
      logits: `[B, K]`.
      labels: distributions `[B, K]`.
      taught: the teacher's probabilities at the same temperature, `[B, K]`.
      loss_fn: of the labels, (logits, labels) to losses `[B]`.
      temperature: T.
      share: of the teacher's part, 0..1.

    Returns:
      Losses `[B]`, in nats.
    """
    softened = jax.nn.log_softmax(logits / temperature)
    divergence = optax.kl_divergence(softened, taught)
    return (1 - share) * loss_fn(logits, labels) + share * temperature**2 * divergence


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


def log_shares(counts: np.ndarray, scale: float = 1.0) -> tuple[float, ...]:
    """Logit adjustments, scale * log(share of the class).

    A network trained on adjusted logits learns what speaks for a class apart from how common it
    is, and unadjusted judges as if all were (Menon et al., "Long-tail learning via logit
    adjustment", arXiv 2007.07314).

    Args:
      counts: examples a class, `[K]`; a class without any gets 0, and so is learned to be shunned.
      scale: tau of the paper.
    """
    counts = np.asarray(counts, np.float64)
    shares = np.where(counts > 0, counts / max(counts.sum(), 1), 1)
    return tuple((scale * np.log(shares)).tolist())
