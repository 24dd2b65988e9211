"""The pictures and tables that a run leaves behind: arrays in, one file out."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion_jax.figures import (
    BAD,
    DPI,
    GOOD,
    GRID,
    INK,
    MUTED,
    VAL,
    FilePath,
    make_figure,
    save_figure,
    style,
)
from emotion_jax.host.atomic import replace_text
from emotion_jax.logs import Row, best_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

TRAIN, F1, BEST = "#9aa7b5", "#d08a2e", "#b3423a"
SHADES = ("#ffffff", "#cfe0ea", "#6fa3bd", VAL, "#0d3b52")
CURVES = {
    "loss": {"train/loss": TRAIN, "val/loss": VAL},
    "accuracy and macro-F1": {"train/accuracy": TRAIN, "val/accuracy": VAL, "val/macro_f1": F1},
    "learning rate": {"learning_rate": VAL},
}
FIRST_COLUMNS = ("step", "epoch", *(key for keys in CURVES.values() for key in keys))


def write_results(
    rows: Sequence[Row], workdir: FilePath, *, monitor: str = "val/accuracy"
) -> tuple[Path, Path]:
    """Write a run's metrics as `workdir/results.csv` and its curves as `workdir/results.png`.

    Args:
      rows: rows of metrics.jsonl, oldest first; any may lack any key but `step`.
      workdir: the folder; it exists.
      monitor: the metric that decides which epoch is best, as in `logs.best_row`.

    Returns:
      The two paths. The csv's columns are the known keys, then all others by name; what is
      missing, None or NaN is an empty cell, a list is JSON.
    """
    others = sorted({key for row in rows for key in row}.difference(FIRST_COLUMNS))
    table = io.StringIO()
    writer = csv.DictWriter(table, [*FIRST_COLUMNS, *others], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    sheet = Path(workdir) / "results.csv"
    replace_text(sheet, table.getvalue())

    figure = make_figure(13, 4.2)
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    epochs = {row.get("epoch") for row in rows}
    by = "epoch" if len(epochs) == len(rows) and None not in epochs else "step"
    best = best_row(rows, monitor)
    for ax, (title, colors) in zip(axes, CURVES.items(), strict=True):
        style(ax, title)
        _draw_curves(ax, rows, by, colors, best)
    if best is not None:
        value = f"{best[monitor]:.4f}" if "loss" in monitor else _percent(best[monitor], " %")
        words = f"best: {by} {best[by]}, {_label(monitor)} {value}"
        figure.suptitle(words, color=BEST, fontsize=11, x=0.012, ha="left")
    return sheet, save_figure(figure, Path(workdir) / "results.png")


def plot_confusion(confusion: np.ndarray, path: FilePath, names: Sequence[str]) -> Path:
    """Draw a confusion matrix: counts at the left, shares of each true class at the right.

    Args:
      confusion: `[K, K]`, counts or sums of weights, row true and column predicted. A class
        without faces has no shares: its cells at the right show a dash.
      path: the picture to write.
      names: the K classes.
    """
    counts = np.asarray(confusion, np.float64)
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"a confusion matrix {counts.shape} for {len(names)} names")
    faces = counts.sum(axis=1)
    shares = counts / np.where(faces > 0, faces, np.nan)[:, None]
    figure = make_figure(width := max(13.0, 0.85 * len(names)), 0.48 * width)
    left, right = figure.subplots(1, 2)
    cell = 72 * (width / 2 - 1.3) / len(names)  # 1.3 inches beside each matrix hold the names
    # The square root keeps rare classes visible beside one with a hundred times their faces.
    shades = np.sqrt(counts / max(counts.max(), 1))
    _draw_matrix(left, shades, [[f"{n:,.0f}" for n in row] for row in counts], cell)
    _draw_matrix(right, shares, [[_percent(share) for share in row] for row in shares], cell)
    hits = np.trace(counts) / (faces.sum() or math.nan)
    recall = np.nansum(np.diag(shares)) / (np.sum(faces > 0) or math.nan)
    titles = (
        f"{faces.sum():,.0f} faces, {_percent(hits, ' %')} of them right",
        f"% of each true class, mean recall {_percent(recall, ' %')}",
    )
    for ax, title in zip((left, right), titles, strict=True):
        ax.set_title(title, color=INK, fontsize=11, loc="left")
        ax.set_xlabel("predicted", color=MUTED)
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right", parse_math=False)
        ax.set_yticks(range(len(names)), names, parse_math=False)
    left.set_ylabel("true", color=MUTED)
    return save_figure(figure, path)


def plot_labels(counts: Mapping[str, np.ndarray], path: FilePath, names: Sequence[str]) -> Path:
    """Draw how many faces each class has in each split.

    Args:
      counts: split name to faces per class `[K]`; the splits stand side by side in this order.
      path: the picture to write.
      names: the K classes.
    """
    figure = make_figure(1.3 + 4.2 * max(len(counts), 1), 1.2 + 0.36 * len(names))
    axes = figure.subplots(1, max(len(counts), 1), squeeze=False, sharey=True)[0]
    for ax, (split, faces) in zip(axes, counts.items(), strict=False):
        faces = np.asarray(faces, np.float64)
        if faces.shape != (len(names),):
            raise ValueError(f"{split} has counts {faces.shape} for {len(names)} names")
        total = faces.sum()
        style(ax, f"{split}: {total:,.0f} faces")
        ax.grid(False)
        ax.spines["bottom"].set_visible(False)
        bars = ax.barh(range(len(names)), faces, color=VAL, height=0.72)
        shares = faces / (total or math.nan)
        labels = [f"{n:,.0f}   {_percent(p, ' %')}" for n, p in zip(faces, shares, strict=True)]
        ax.bar_label(bars, labels, padding=5, color=MUTED, fontsize=9)
        ax.set(xticks=[], xlim=(0, 1.5 * max(faces.max(), 1)))
    axes[0].set_yticks(range(len(names)), names, parse_math=False)
    axes[0].invert_yaxis()
    return save_figure(figure, path)


def contact_sheet(
    images: np.ndarray,
    captions: Sequence[str],
    path: FilePath,
    *,
    columns: int = 8,
    good: Sequence[bool] | None = None,
) -> Path:
    """Lay pictures out in a grid, each enlarged by one whole factor, its caption under it.

    Args:
      images: uint8 `[N, H, W, C]`, N at least 1, C 1 (grey) or 3 (RGB).
      captions: N texts, of one line or more.
      path: the picture to write.
      columns: pictures in a row, at least 1.
      good: N truths; a caption is green where it holds and red where not. Ink without.
    """
    count, height, width, channels = np.shape(images)
    if images.dtype != np.uint8 or channels not in (1, 3) or not count == len(captions) > 0:
        raise ValueError(f"images {images.dtype} {images.shape} with {len(captions)} captions")
    factor, gap = max(1, round(128 / max(height, width))), 10
    # A cell is wide enough for its picture, and for its longest line in letters of 11 pixels.
    letters = 0.6 * max(len(line) for text in captions for line in ["-" * 12, *text.split("\n")])
    cell = max(width * factor, math.ceil(11 * letters))
    text_size = min(15.0, cell / letters)
    lines = 1 + max(text.count("\n") for text in captions)
    row_height = height * factor + math.ceil(1.35 * text_size * lines) + 2 * gap
    columns = min(columns, count)
    size = (gap + math.ceil(count / columns) * row_height, gap + columns * (cell + gap))
    canvas = np.full((*size, 3), 255, np.uint8)
    figure = make_figure((size[1] + 0.01) / DPI, (size[0] + 0.01) / DPI, laid_out=False)
    for index, (picture, caption) in enumerate(zip(images, captions, strict=True)):
        top = gap + index // columns * row_height
        left = gap + index % columns * (cell + gap) + (cell - width * factor) // 2
        tile = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        canvas[top : top + height * factor, left : left + width * factor] = tile
        color = INK if good is None else GOOD if good[index] else BAD
        x, below = (left + width * factor / 2) / size[1], top + height * factor + 3
        for line, text in enumerate(caption.split("\n")):
            y = 1 - (below + (1 + 1.25 * line) * text_size) / size[0]
            figure.text(x, y, text, color=color, size=text_size * 72 / DPI, ha="center",
                        va="baseline", parse_math=False)  # fmt: skip
    figure.figimage(canvas, origin="upper")
    return save_figure(figure, path)


def summary_table(summary: Mapping[str, Any], names: Sequence[str]) -> Table:
    """Build the table of an evaluation, to print with rich.

    Args:
      summary: `loss`, `accuracy`, `macro_f1` and `ece` (floats), and per class `[K]` `count`,
        `precision`, `recall` and `f1`. Scores lie in 0..1; NaN is shown as a dash.
      names: the K classes.
    """
    from rich.table import Table
    from rich.text import Text

    loss = f"{summary['loss']:.4f}" if math.isfinite(summary["loss"]) else "-"
    accuracy, f1 = (_percent(summary[key], " %") for key in ("accuracy", "macro_f1"))
    title = f"accuracy {accuracy}   macro-F1 {f1}   loss {loss}   ECE {summary['ece']:.3f}"
    table = Table(title=title, title_style="bold", title_justify="left", min_width=len(title))
    table.add_column("emotion")
    for column in ("faces", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    keys = ("count", "precision", "recall", "f1")
    for name, faces, *scores in zip(names, *(summary[key] for key in keys), strict=True):
        cells = (_percent(float(score), " %") for score in scores)
        table.add_row(Text(name), f"{float(faces):,.0f}", *cells)
    return table


def _draw_curves(
    ax: Axes, rows: Sequence[Row], by: str, colors: dict[str, str], best: Row | None
) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for key, color in colors.items():
        points = [(row[by], row[key]) for row in rows if row.get(key) is not None]
        if not points:
            continue
        x, y = np.asarray(points, np.float64).T
        marker, lw = ("o", 1.8) if len(points) <= 40 else (None, 1.3)
        ax.plot(x, y, color=color, lw=lw, marker=marker, ms=3.5, label=_label(key))
        if best is not None and best.get(key) is not None:
            ax.plot(best[by], best[key], "o", color=color, ms=7, mec="white", mew=1.2, zorder=4)
    if best is not None:
        ax.axvline(best[by], color=BEST, lw=1, ls=(0, (4, 3)), zorder=1)
    ax.set_xlabel(by, color=MUTED, fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    if "val/accuracy" in colors:
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if ax.get_legend_handles_labels()[0] and len(colors) > 1:
        ax.legend(facecolor="white", edgecolor="none", fontsize=9, labelcolor=INK)


def _draw_matrix(ax: Axes, shades: np.ndarray, texts: Sequence[Sequence[str]], cell: float) -> None:
    """Shades `[K, K]` in 0..1 with a text on each; a cell is about `cell` points wide."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("shades", SHADES)
    ax.imshow(np.nan_to_num(shades), cmap=colors, vmin=0, vmax=1)
    # A letter is about 0.62 of its size wide.
    size = min(11.0, 0.9 * cell / (0.62 * max(len(text) for row in texts for text in row)))
    for i, j in np.ndindex(*shades.shape):
        faint = texts[i][j] in ("0", "0.0", "-")
        color = MUTED if faint else "white" if shades[i, j] > 0.55 else INK
        ax.text(j, i, texts[i][j], color=color, fontsize=size, ha="center", va="center")
    ticks = np.arange(len(shades) + 1) - 0.5
    ax.set_xticks(ticks, minor=True)
    ax.set_yticks(ticks, minor=True)
    ax.grid(which="minor", color=GRID, lw=1)
    ax.tick_params(which="both", length=0, labelcolor=INK, labelsize=10)
    ax.spines[:].set_visible(False)


def _label(key: str) -> str:
    return key.replace("/", " ").replace("macro_f1", "macro-F1")


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _percent(share: float, unit: str = "") -> str:
    return f"{100 * share:.1f}{unit}" if math.isfinite(share) else "-"
