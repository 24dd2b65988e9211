"""What becomes of every row of a data set: read, kept, or dropped for a reason that is counted."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, TypeVar

from emotion_jax.data.sources import Example, Source
from emotion_jax.data.threads import map_ahead
from emotion_jax.errors import EmotionError
from emotion_jax.host.threads import batched

if TYPE_CHECKING:  # OpenCV: only who reads pictures waits for it
    from emotion_jax.images import Reduced


# Why a row yields no face, where its picture is there and no picture.
UNREADABLE = "unreadable picture"


class Report(TypedDict):
    """What a reading came to: rows = those kept + those dropped."""

    rows: int
    kept: dict[str, int]  # a split
    dropped: dict[str, list[str]]  # names a reason


class DroppedError(Exception):
    """A row that yields no face; its text is the reason, as the report counts it."""


class Named(Protocol):
    @property
    def name(self) -> str:
        """What the report calls the row."""


RowT = TypeVar("RowT", bound=Named)

# Rows that a thread takes at a time: handing over one by one costs a tenth of the pace.
_TOGETHER = 8


class Tally:
    """Counts rows while they are read; a split that is read again is counted anew."""

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        self._dropped: dict[str, list[tuple[str, str]]] = {}

    def read(
        self, split: str, rows: Iterable[RowT], read: Callable[[RowT], Example]
    ) -> Iterator[Example]:
        """Yields the rows' faces in order, read by several threads, and counts what is dropped.

        Args:
          split: what the rows belong to.
          rows: in the order of the result.
          read: makes a row's face, or raises a `DroppedError`.
        """
        self._kept[split], self._dropped[split] = 0, []

        def attempt(some: list[RowT]) -> list[tuple[str, Example | DroppedError]]:
            done: list[tuple[str, Example | DroppedError]] = []
            for row in some:
                try:
                    done.append((row.name, read(row)))
                except DroppedError as reason:
                    done.append((row.name, reason))
            return done

        with contextlib.closing(map_ahead(attempt, batched(rows, _TOGETHER))) as results:
            for name, example in itertools.chain.from_iterable(result() for result in results):
                if isinstance(example, DroppedError):
                    self._dropped[split].append((str(example), name))
                else:
                    self._kept[split] += 1
                    yield example

    def rows_read(self, split: str) -> int:
        """How many rows of a split have been read so far."""
        return self._kept[split] + len(self._dropped[split])

    def report(self) -> Report:
        """What became of the rows of every split read so far."""
        dropped: dict[str, list[str]] = {}
        for pairs in self._dropped.values():
            for reason, name in pairs:
                dropped.setdefault(reason, []).append(name)
        rows = sum(self._kept.values()) + sum(map(len, dropped.values()))
        return {"rows": rows, "kept": dict(self._kept), "dropped": dropped}


def summary(report: Report) -> str:
    """A report in one line."""
    kept = ", ".join(f"{count} {split}" for split, count in report["kept"].items())
    line = f"{report['rows']} rows read, kept {kept or 'none'}"
    counts = {reason: len(names) for reason, names in report["dropped"].items()}
    if counts:
        largest = sorted(counts.items(), key=lambda item: -item[1])
        reasons = ", ".join(f"{count} {reason}" for reason, count in largest)
        line += f", dropped {sum(counts.values())} ({reasons})"
    return line


def source_report(source: Source) -> Report | None:
    """The report of a source that makes one."""
    return source.report() if hasattr(source, "report") else None


def no_faces(source: Source, split: str) -> EmotionError:
    """The error of a split that has been read and came to nothing."""
    report = source_report(source)
    read = f" ({summary(report)})" if report else ""
    return EmotionError(
        f"{source.name}: no faces in the {split} split{read}; is the data's folder whole?"
    )


def read_picture(path: Path, most: float = 1) -> Reduced:
    """Reads a picture, see `images.read_reduced`.

    Raises:
      DroppedError: it is not there, too large to be meant, or no whole picture.
    """
    from emotion_jax.images import PictureTooLargeError, read_reduced

    try:
        if not path.is_file():
            raise DroppedError("missing file")
        return read_reduced(path, most)
    except PictureTooLargeError as error:
        raise DroppedError("picture too large") from error
    except (EmotionError, OSError, MemoryError) as error:
        raise DroppedError(UNREADABLE) from error
