"""A film's emotions over time, collected frame by frame and drawn as one strip a person."""

from __future__ import annotations

import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from emotion_jax.draw import COLORS
from emotion_jax.errors import EmotionError
from emotion_jax.figures import INK, MUTED, make_figure, save_figure
from emotion_jax.labels import EMOTIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BINS = 2048  # as many points as a page is wide; more would be drawn over one another
_MOST_PEOPLE = 8


class Timeline:
    """The mean emotions of each person, in intervals of equal length.

    Memory stays bounded however long the film is: the intervals grow with it.
    """

    def __init__(self, *, step_s: float = 1 / 30) -> None:
        """Begin with intervals of `step_s` seconds: the time from a frame to the next, best."""
        self._step = step_s
        # For each person and interval: the sum of the probabilities and, last, how many they were.
        self._sums: dict[int, dict[int, np.ndarray]] = defaultdict(dict)

    def add(self, numbers: Sequence[int], probabilities: np.ndarray, time_s: float) -> None:
        """Take in a frame.

        Args:
          numbers: of N persons.
          probabilities: float `[N, 8]`.
          time_s: of the frame, in seconds, not negative.
        """
        while time_s >= _MOST_BINS * self._step:
            self._halve()
        place = int(time_s / self._step + 1e-6)  # a time at an edge belongs behind it
        for number, row in zip(numbers, probabilities, strict=True):
            _add_to(self._sums[number], place, np.append(row, 1.0))

    def people(self) -> list[int]:
        """The persons' numbers, the one that is seen longest first."""
        return sorted(self._sums, key=lambda number: (-len(self._sums[number]), number))

    def seconds(self, number: int) -> float:
        """How long a person was seen."""
        return len(self._sums[number]) * self._step

    def series(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A person's emotions over time.

        Gaps of up to half a second, or of one interval, are bridged.

        Returns:
          edges of T intervals in seconds, `[T + 1]`, from the person's first to the last; and float
          `[T, 8]`, the mean probabilities in each; NaN where the person was not seen.
        """
        sums = self._sums[number]
        seen = np.array(sorted(sums))
        bins = np.arange(seen[0], seen[-1] + 1)
        means = np.array([sums[i][:-1] / sums[i][-1] for i in seen.tolist()])
        rows = np.stack([np.interp(bins, seen, column) for column in means.T], axis=1)
        after = np.searchsorted(seen, bins)
        before = np.searchsorted(seen, bins, side="right") - 1
        rows[seen[after] - seen[before] > max(2.0, 0.5 / self._step)] = np.nan
        return np.append(bins, bins[-1] + 1) * self._step, rows

    def _halve(self) -> None:
        self._step *= 2
        for number, sums in self._sums.items():
            halved: dict[int, np.ndarray] = {}
            for i, row in sums.items():
                _add_to(halved, i // 2, row)
            self._sums[number] = halved


def _add_to(sums: dict[int, np.ndarray], place: int, row: np.ndarray) -> None:
    sums[place] = sums[place] + row if place in sums else row


def prepare_plot() -> threading.Thread:
    """Load what `plot_timeline` needs on a thread, half a second that a film can be read in."""
    thread = threading.Thread(target=make_figure, args=(1, 1), name="plotting")
    thread.start()
    return thread


def plot_timeline(timeline: Timeline, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw the emotions of a film over time, for each person a strip.

    In a strip the eight probabilities lie on top of one another and fill it; where it is white the
    person was not seen. The eight who are seen longest are drawn.

    Args:
      timeline: of at least one person.
      path: the picture to write, as PNG.
      title: what stands above, such as the film's name.

    Raises:
      EmotionError: it cannot be written.
    """
    people = timeline.people()
    shown = people[:_MOST_PEOPLE]
    figure = make_figure(10, 1.3 + 0.95 * len(shown), dpi=160, h_pad=0.04)
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, number in zip(axes, shown, strict=True):
        _draw_strip(ax, *timeline.series(number))
        label = f"person {number}\n{timeline.seconds(number):.1f} s"
        ax.set_ylabel(label, color=INK, rotation=0, ha="right", va="center", fontsize=9)
    _style_time(axes[-1], min(ax.dataLim.x0 for ax in axes), max(ax.dataLim.x1 for ax in axes))
    title = title.encode(errors="replace").decode()  # names of files may hold bytes of no text
    left = len(people) - len(shown)
    seen = f"; {left} more seen for less time" if left else ""
    figure.suptitle(title + seen, x=0.012, ha="left", color=INK, fontsize=11, parse_math=False)
    handles = axes[0].get_legend_handles_labels()[0]
    figure.legend(handles, EMOTIONS, loc="outside lower center", ncols=len(EMOTIONS), fontsize=9,
                  frameon=False, labelcolor=INK, handlelength=1, handleheight=1)  # fmt: skip
    _write(figure, path)


def _draw_strip(ax: Axes, edges: np.ndarray, rows: np.ndarray) -> None:
    tops = np.cumsum(rows, axis=1)
    below = np.zeros(len(rows))
    for name, color, top in zip(EMOTIONS, COLORS, tops.T, strict=True):
        shade = tuple(part / 255 for part in color)
        ax.stairs(top, edges, baseline=below, fill=True, color=shade, lw=0, label=name)
        below = top
    ax.set(ylim=(0, 1), yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.patch.set_facecolor("#f6f7f8")


def _style_time(ax: Axes, low: float, high: float) -> None:
    """The axis of time from one second to another, in minutes where the film is long."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 3, 5, 6, 10]))
    if high >= 120:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{int(s) // 60}:{int(s) % 60:02}"))
    ax.tick_params(length=3, color=MUTED, labelcolor=INK, labelsize=9)
    unit = "minutes" if high >= 120 else "seconds"
    ax.set_xlabel(f"time, {unit}", color=MUTED, fontsize=9)


def _write(figure: Figure, path: str | os.PathLike[str]) -> None:
    try:
        with warnings.catch_warnings():  # letters of the title that the font lacks become boxes
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            save_figure(figure, path)
    except OSError as error:
        raise EmotionError(
            f"'{os.fspath(path)}' cannot be written ({error.strerror or error}); choose another "
            "folder"
        ) from error
