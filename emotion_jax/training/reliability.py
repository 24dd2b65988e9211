"""The reliability diagram: how often a network is right, for each confidence that it states."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emotion_jax.figures import (
    BAD,
    GRID,
    INK,
    MUTED,
    VAL,
    FilePath,
    make_figure,
    save_figure,
    style,
)


def plot_reliability(bins: np.ndarray, path: FilePath) -> Path:
    """Draw accuracy over confidence, and below it how many faces were answered with which.

    Args:
      bins: `[B, 3]`, see `metrics.Metrics`: weight, confidence and right answers of each bin.
      path: the picture to write.
    """
    bins = np.asarray(bins, np.float64)
    weight, confidence, right = bins.T
    total = max(weight.sum(), 1e-9)
    error = np.abs(confidence - right).sum() / total
    edges = np.linspace(0, 1, len(bins) + 1)
    used = weight > 0
    accuracy, stated = right[used] / weight[used], confidence[used] / weight[used]
    figure = make_figure(6, 6.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    style(upper, f"calibration error {error:.3f} ({len(bins)} bins)")
    lefts, width = edges[:-1][used], 1 / len(bins)
    upper.bar(lefts, accuracy, width, align="edge", color=VAL, ec="white", label="right answers")
    # The gap of each bin, from what was stated to what came true.
    upper.vlines(stated, np.minimum(accuracy, stated), np.maximum(accuracy, stated), color=BAD,
                 lw=2, label="gap to the stated confidence")  # fmt: skip
    upper.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (4, 3)), label="honest")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers")
    upper.legend(facecolor="white", edgecolor=GRID, fontsize=9, labelcolor=INK, loc="upper left")
    style(lower, f"{total:,.0f} faces: confidence {confidence.sum() / total:.1%} in the mean, "
                 f"right {right.sum() / total:.1%}")  # fmt: skip
    lower.bar(edges[:-1], weight / total, width, align="edge", color=VAL, ec="white")
    lower.set(xlabel="confidence", ylabel="share of faces")
    for ax in (upper, lower):
        ax.xaxis.label.set_color(MUTED)
        ax.yaxis.label.set_color(MUTED)
    return save_figure(figure, path)
