"""What a run says while it runs: metrics.jsonl, TensorBoard's events, and the terminal."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from emotion_jax.atomic import replace_text
from emotion_jax.errors import EmotionError
from emotion_jax.json_files import parse_json

Row = dict[str, Any]
Moment = tuple[int, float]
_TITLES = ("epoch", "train loss", "acc", "val loss", "acc", "F1", "img/s")
_WIDTHS = (9, 10, 7, 10, 7, 7, 8)


def best_row(rows: Iterable[Row], monitor: str = "val/accuracy") -> Row | None:
    """Find the row with the best value of one metric; the last of equals, as a checkpoint.

    Args:
      rows: rows of metrics; those without a finite `monitor` are passed over.
      monitor: the metric's key; smaller is better where it ends in "loss", else larger is.

    Returns:
      The row, or None where no row has the metric.
    """
    sign = -1 if monitor.endswith("loss") else 1
    scored = [row for row in rows if _finite(row.get(monitor))]
    return max(reversed(scored), key=lambda row: sign * row[monitor], default=None)


class MetricsLog:
    """Keep a run's metrics in `workdir/metrics.jsonl` and in TensorBoard's events beside it.

    Every row is on the disk before `write` returns, so a killed run loses none. Used as
    `with MetricsLog(workdir) as log:`; a file that a killed run left behind is repaired on entry.

    Args:
      workdir: the run's folder; made on entry.
      enabled: False writes nothing: for every process of a run but the first.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, enabled: bool = True):
        self.path = Path(workdir) / "metrics.jsonl"
        self._enabled = enabled
        self._events: Any = None  # tensorboardX.SummaryWriter, from the first row on
        self._has_events = True
        self._purge_step: int | None = None

    def __enter__(self) -> MetricsLog:
        if self._enabled:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A row appended to a torn line would be lost with it.
            self._rewrite(self.rows())
        return self

    def __exit__(self, kind: object = None, *exc: object) -> None:
        events, self._events = self._events, None
        try:
            if events is not None:
                events.close()
        except OSError:
            if kind is None:  # else a full disk has been told already
                raise

    def write(self, row: Row) -> None:
        """Append one row; its numbers also become TensorBoard scalars at `row["step"]`.

        Args:
          row: `step` (int; KeyError without) and any of numbers, NumPy or JAX arrays, strings,
            lists, None. NaN and infinity are written as null: JSON has neither.
        """
        step = int(row["step"])
        if not self._enabled:
            return
        clean = _plain(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(clean))
            file.flush()
            os.fsync(file.fileno())
        events = self._open_events()
        for key, value in clean.items() if events else ():
            if key not in ("step", "epoch") and _finite(value):
                events.add_scalar(key, value, global_step=step)

    def rows(self) -> list[Row]:
        """Read all rows, oldest first; the half of a last line that a kill leaves is no row.

        Raises:
          EmotionError: a line before the last is not a JSON object with a `step`.
        """
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        rows: list[Row] = []
        for number, line in enumerate(lines, start=1):
            try:
                row = parse_json(line)
                rows.append({**row, "step": int(row["step"])})
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                # No part of a JSON object is itself one, so a torn line never passes for whole.
                if number < len(lines):
                    why = f"{self.path}, line {number}: no row of metrics; delete that line"
                    raise EmotionError(why) from error
        return rows

    def rewind(self, step: int) -> None:
        """Drop every row after `step`, so that none stands twice when a run resumes there.

        The file is replaced in one move: a kill leaves the old rows or the new, no mixture.
        TensorBoard hides the events after `step` once the next row is written.
        """
        if self._enabled:
            self._rewrite([row for row in self.rows() if row["step"] <= step])
            self.__exit__()  # the events go on in a new file, which begins with what to hide
            self._purge_step = step + 1

    def _rewrite(self, rows: list[Row]) -> None:
        replace_text(self.path, "".join(_line(_plain(row)) for row in rows))

    def _open_events(self) -> Any:
        """TensorBoard's writer, or None where tensorboardX is not installed, which is said once."""
        if self._events is None and self._has_events:
            try:
                from tensorboardX import SummaryWriter
            except ModuleNotFoundError:
                self._has_events = False
                print("note: no events for TensorBoard: tensorboardX is not here", file=sys.stderr)
                return None
            self._events = SummaryWriter(
                str(self.path.parent),
                purge_step=self._purge_step,
                flush_secs=5,
                # Files are named by the second; one just as old would be overwritten.
                filename_suffix=f".{time.time_ns()}",
            )
        return self._events


class TrainProgress:
    """Show how far a run is: a bar on a terminal, plain lines in a log file.

    Each epoch leaves one line. The bar runs over the steps of the epoch; the time left is that
    of the whole run, validation included, at the mean pace since the session's first step was
    done (so compilation does not count). Used as `with TrainProgress(...) as progress:`.

    Args:
      num_epochs, steps_per_epoch, batch_size: the run; `batch_size` over all devices.
      start_step: steps that earlier sessions have done; the run goes on after them.
      history: rows of earlier sessions, so that "best" means best of the whole run.
      monitor: the metric that decides which epoch is best, as in `best_row`.
      enabled: False prints nothing: for every process of a run but the first.
      console: where to print; standard output by default.
      plain_every: seconds, by `clock`, between two lines within an epoch where there is no bar.
    """

    def __init__(
        self,
        num_epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        *,
        start_step: int = 0,
        history: Iterable[Row] = (),
        monitor: str = "val/accuracy",
        enabled: bool = True,
        console: Console | None = None,
        plain_every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._num_epochs, self._steps, self._batch_size = num_epochs, steps_per_epoch, batch_size
        self._monitor, self._enabled, self._clock = monitor, enabled, clock
        self._console = console or Console()
        self._best = best_row(history, monitor)
        # Moments (step, time): the first update of the session, of the epoch, and the latest.
        self._start: Moment | None = None
        self._epoch_start: Moment | None = None
        self._last: Moment | None = None
        self._plain_every, self._next_plain = plain_every, clock() + plain_every
        self._has_bar = enabled and self._console.is_terminal
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}  [dim]{task.fields[said]}"),
            console=self._console,
            disable=not self._has_bar,
            transient=True,
            expand=True,
        )
        epochs_done, step = divmod(start_step, steps_per_epoch)
        epoch = f"{min(epochs_done + 1, num_epochs)}/{num_epochs}"
        self._task = self._bar.add_task("", total=self._steps, completed=step, epoch=epoch, said="")

    def __enter__(self) -> TrainProgress:
        self._print(_columns(_TITLES), "bold")
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def update(self, epoch: int, step_in_epoch: int, loss: float, accuracy: float) -> None:
        """Tell of one step that is done.

        Args:
          epoch: 1..num_epochs.
          step_in_epoch: steps of this epoch that are done, 1..steps_per_epoch.
          loss, accuracy: of the step or their mean in the epoch; accuracy in 0..1.
        """
        now = self._clock()
        self._last = ((epoch - 1) * self._steps + step_in_epoch, now)
        self._start = self._start or self._last
        self._epoch_start = self._epoch_start or self._last
        if not self._enabled or not (self._has_bar or now >= self._next_plain):
            return
        of_epochs = f"{epoch}/{self._num_epochs}"
        said = f"loss {float(loss):.3f}  acc {float(accuracy):.1%}"
        said += f"  {self._images_per_second()} img/s  {self._time_left()} left"
        if self._has_bar:
            self._bar.update(self._task, completed=step_in_epoch, epoch=of_epochs, said=said)
        else:
            self._next_plain = now + self._plain_every
            self._print(f"epoch {of_epochs}  step {step_in_epoch}/{self._steps}  {said}")

    def end_epoch(self, row: Row) -> None:
        """Print the line of a finished epoch, marked "best" where none before it was better.

        Args:
          row: the epoch's row of metrics: `epoch` (1..num_epochs), `train/loss`,
            `train/accuracy`, `val/loss`, `val/accuracy`, `val/macro_f1`; what lacks is a dash.
        """
        row = _plain(row)
        best = best_row([self._best or {}, row], self._monitor)
        mark = "  best" if best is row else ""
        self._best = best
        cells = [f"{row.get('epoch', '-')}/{self._num_epochs}"]
        for split in ("train", "val"):
            cells.append(_shown(row.get(f"{split}/loss"), ".4f"))
            cells.append(_shown(row.get(f"{split}/accuracy"), ".1%"))
        cells += [_shown(row.get("val/macro_f1"), ".1%"), self._images_per_second()]
        self._print(_columns(cells) + mark, "green" if mark else "")
        self._epoch_start = None
        self._next_plain = self._clock() + self._plain_every

    def _print(self, line: str, style: str = "") -> None:
        if self._enabled:
            # Soft: a log file has no width, so no line is folded at a supposed 80 columns.
            self._console.print(Text(line, style=style), soft_wrap=True)

    def _images_per_second(self) -> str:
        pace = _pace(self._epoch_start, self._last)
        return f"{self._batch_size / pace:,.0f}" if pace else "-"

    def _time_left(self) -> str:
        pace = _pace(self._start, self._last)
        if not pace or self._last is None:
            return "-:--:--"
        seconds = round(pace * max(self._num_epochs * self._steps - self._last[0], 0))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _columns(cells: Iterable[str]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _pace(start: Moment | None, last: Moment | None) -> float | None:
    """Seconds a step between two moments; None where none can be told."""
    if start is None or last is None or last[0] <= start[0] or last[1] <= start[1]:
        return None
    return (last[1] - start[1]) / (last[0] - start[0])


def _shown(value: Any, form: str) -> str:
    return format(value, form) if _finite(value) else "-"


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """The value in JSON's own types: arrays as numbers or lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    array = np.asarray(value)
    # Only these kinds turn into Python's own types by themselves; bfloat16, for one, does not.
    return _plain((array if array.dtype.kind in "biuU" else array.astype(np.float64)).tolist())
