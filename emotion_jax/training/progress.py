"""How far a run is, on the terminal: a bar, and a line for every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from emotion_jax.logs import Row, best_row, is_finite, plain

Moment = tuple[int, float]
_TITLES = ("epoch", "train loss", "acc", "val loss", "acc", "F1", "img/s")
_WIDTHS = (9, 10, 7, 10, 7, 7, 8)


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
          loss, accuracy: of the step or their mean in the epoch; accuracy in 0..1. NaN is a dash.
        """
        now = self._clock()
        self._last = ((epoch - 1) * self._steps + step_in_epoch, now)
        self._start = self._start or self._last
        self._epoch_start = self._epoch_start or self._last
        if not self._enabled or not (self._has_bar or now >= self._next_plain):
            return
        of_epochs = f"{epoch}/{self._num_epochs}"
        said = f"loss {_shown(loss, '.3f')}  acc {_shown(accuracy, '.1%')}"
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
        row = plain(row)
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
    return format(value, form) if is_finite(value) else "-"
