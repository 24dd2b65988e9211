"""Honest confidences: how far they are from the truth, and the temperature that mends them.

Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from __future__ import annotations

import numpy as np

# Past these a network knows nothing, or the held-out faces are too few to tell.
LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature at which held-out faces are likeliest: least mean -log p(true class).

    That mean is convex in 1 / temperature, so its slope is bisected; no label changes place, and
    accuracy stays.

    Args:
      logits: `[N, K]`, N at least 1, of faces that were not trained on.
      labels: the true classes, int `[N]`, in 0..K-1.

    Returns:
      What logits are to be divided by, from 0.05 to 20.
    """
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    true = np.take_along_axis(logits, np.asarray(labels)[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        odds = np.exp(inverse * logits)
        return float(((odds * logits).sum(1) / odds.sum(1) - true).mean())

    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))
