"""What a run writes down while it runs: metrics.jsonl and TensorBoard's events."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emotion_jax.errors import EmotionError
from emotion_jax.host.atomic import replace_text
from emotion_jax.host.json_files import parse_json

Row = dict[str, Any]


def best_row(rows: Iterable[Row], monitor: str = "val/accuracy") -> Row | None:
    """Find the row with the best value of one metric; the last of equals, as a checkpoint.

    Args:
      rows: rows of metrics; those without a finite `monitor` are passed over.
      monitor: the metric's key; smaller is better where it ends in "loss", else larger is.

    Returns:
      The row, or None where no row has the metric.
    """
    sign = -1 if monitor.endswith("loss") else 1
    scored = [row for row in rows if is_finite(row.get(monitor))]
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
        clean = plain(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(clean))
            file.flush()
            os.fsync(file.fileno())
        events = self._open_events()
        for key, value in clean.items() if events else ():
            if key not in ("step", "epoch") and is_finite(value):
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
        replace_text(self.path, "".join(_line(plain(row)) for row in rows))

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


def is_finite(value: Any) -> bool:
    """Whether a value of a row is a number that can be compared and plotted."""
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def plain(value: Any) -> Any:
    """The value in JSON's own types: arrays as numbers or lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    array = np.asarray(value)
    # Only these kinds turn into Python's own types by themselves; bfloat16, for one, does not.
    return plain((array if array.dtype.kind in "biuU" else array.astype(np.float64)).tolist())


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
