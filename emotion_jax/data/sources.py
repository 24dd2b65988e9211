"""What a source of faces is: the interface that every data set here fills."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypedDict

import numpy as np

Target = Literal["label", "votes"]


class Example(TypedDict, total=False):
    """One face. `label` or `votes` is there, as the source's `targets` says."""

    image: np.ndarray  # uint8 [size, size, C], C 1 or 3 (RGB)
    label: int  # the code of an emotion, 0..7
    votes: np.ndarray  # counts uint8 [10], in the order of labels.VOTES
    valence: float  # from -1 to 1, NaN where nobody said; of a source that has it in `extras`
    arousal: float  # likewise


class Source(Protocol):
    """Faces in a fixed order, read or drawn one at a time.

    A source may have `extras`, the names of the further numbers in its examples; `report()`, which
    says what became of the rows read so far (`tally.Report`); and, for a progress bar,
    `rows(split)`, about how many rows a split has, and, where some are dropped,
    `rows_read(split)`, how many of them have been read.
    """

    @property
    def name(self) -> str:
        """What the builds are called."""

    @property
    def targets(self) -> Target:
        """What each example carries: a label or votes."""

    @property
    def size(self) -> int:
        """Height and width of the pictures, in pixels."""

    @property
    def channels(self) -> int:
        """Of the pictures: 1 or 3."""

    def options(self) -> dict[str, Any]:
        """Everything that changes what `examples` yields, fit for JSON; it names the build."""

    def splits(self) -> tuple[str, ...]:
        """The names of the splits: "train", "validation" and, where there is one, "test"."""

    def examples(self, split: str) -> Iterator[Example]:
        """The split's faces, always in the same order."""
