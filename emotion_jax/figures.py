"""Figures without pyplot: an importer's backend, styles and open figures stay as they are."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_jax.host.atomic import replace_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FilePath = str | os.PathLike[str]

DPI = 120
INK, MUTED, GRID = "#2b2f36", "#7b8490", "#e4e7eb"
VAL, GOOD, BAD = "#1d6a8c", "#2e7d4f", "#b3423a"


def make_figure(
    width: float, height: float, *, dpi: int = DPI, h_pad: float = 0.07, laid_out: bool = True
) -> Figure:
    """Begin a white figure.

    Args:
      width, height: in inches.
      dpi: its pixels an inch.
      h_pad: inches above and below its axes, where it is laid out.
      laid_out: whether it leaves room for its texts by itself.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=h_pad, wspace=0.02) if laid_out else None
    return Figure((width, height), dpi=dpi, layout=layout, facecolor="white")


def style(ax: Axes, title: str) -> None:
    """Give axes the look of this project's plots: a title at the left, a faint grid, no frame."""
    ax.set_facecolor("white")
    ax.set_title(title, color=INK, fontsize=11, loc="left", parse_math=False)
    ax.grid(True, color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelcolor=INK, labelsize=9)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GRID)


def save_figure(figure: Figure, path: FilePath) -> Path:
    """Write a figure as PNG, in one move over the old one, and return its path.

    Raises:
      OSError: see `atomic.replace_bytes`.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=figure.dpi)
    # In one move: a run that is killed here keeps the picture of the epoch before.
    replace_bytes(Path(path), picture.getvalue())
    return Path(path)
