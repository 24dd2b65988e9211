"""Many pictures to a table and annotated pictures: found, labelled, drawn, written."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from emotion_jax import draw, faces, images
from emotion_jax.analysis import label_each
from emotion_jax.classifying import Predictor
from emotion_jax.errors import EmotionError
from emotion_jax.host.wording import count
from emotion_jax.prediction import window
from emotion_jax.prediction.paths import all_failed, choose_targets, find_all
from emotion_jax.rows import RowWriter

One = TypeVar("One")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of some pictures.

    Attributes:
      pictures: how many were read.
      faces: how many were found in them.
      faceless: how many of the pictures show none.
      skipped: what could not be read, one sentence each.
    """

    pictures: int
    faces: int
    faceless: int
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{count(self.pictures, 'picture')}, {count(self.faces, 'face')}"]
        if self.faceless:
            lines[0] += f"; no face in {count(self.faceless, 'picture')}"
        if self.skipped:
            lines[0] += f"; {len(self.skipped)} skipped:"
        return "\n".join([*lines, *(f"  {sentence}" for sentence in self.skipped)])

    def tell(self, output: str | os.PathLike[str] | None) -> None:
        """Say it on standard error, and in which folder the results are, if in one."""
        print(self, file=sys.stderr)
        if output is not None:
            print(f"written to {os.fspath(output)}", file=sys.stderr)


def analyze_pictures(
    paths: Sequence[str],
    predictor: Predictor,
    *,
    finder: faces.Finder = faces.DEFAULT,
    output: str | os.PathLike[str] | None = None,
    format: str = "csv",
    blur: bool = False,
    show: bool = False,
) -> Summary:
    """Read the emotions in many pictures and write them down as they come.

    A file that cannot be read is skipped. A summary, with what was skipped and why, goes to
    standard error.

    Args:
      paths: files, folders and globs; see `paths.find_images`. What is met twice is read once.
      predictor: from `load_predictor`; called once a picture, with all of its faces.
      finder: of the faces.
      output: a folder, made if need be, for `predictions.csv` (or .jsonl) and the annotated
        pictures, see `choose_targets`; no source is ever overwritten. Without it rows go to
        standard output, and nothing else does.
      format: of the rows: "csv" or "jsonl".
      blur: hide the faces that are found in the annotated pictures.
      show: show each annotated picture in a window until a key is pressed; q or Esc stops.

    Returns:
      the counts.

    Raises:
      EmotionError: nothing could be read, or something cannot be written or shown.
    """
    sources, skipped = find_all(paths)
    results = label_each(zip(sources, sources, strict=True), predictor, finder)
    readable = keep_readable(results, skipped)
    first = next(readable, None)
    if first is None:  # before any file is opened for writing: what an earlier run left stays
        raise EmotionError(all_failed(skipped))
    targets = {} if output is None else choose_targets(sources, output)
    table = None if output is None else os.path.join(output, f"predictions.{format}")
    pictures = found = faceless = 0
    with RowWriter(table, format=format) as writer:
        for one in itertools.chain([first], readable):
            pictures, found = pictures + 1, found + len(one.faces)
            faceless += not one.faces
            writer.write(one.rows())
            if not writer.wanted:
                break
            if output is None and not show:
                continue
            numbers = range(len(one.faces)) if len(one.faces) > 1 else None
            canvas = draw.hide(one.image, one.faces) if blur else one.image
            annotated = draw.annotate(
                canvas, one.faces, one.probabilities, numbers=numbers, landmarks=not blur
            )
            if output is not None:
                images.write_image(targets[one.source], annotated)
            if show and not window.show(annotated):
                break
    summary = Summary(pictures, found, faceless, tuple(skipped))
    summary.tell(output)
    return summary


def keep_readable(results: Iterable[One | EmotionError], skipped: list[str]) -> Iterator[One]:
    """What was made of each readable picture; of the others a sentence goes to `skipped`."""
    for result in results:
        if isinstance(result, EmotionError):
            skipped.append(str(result))
        else:
            yield result
