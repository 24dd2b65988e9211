"""From pictures to rows: read, detect, crop, predict, write."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from emotion_jax import draw, faces, images, window
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS
from emotion_jax.rows import Row, RowWriter, make_row

if TYPE_CHECKING:
    from emotion_jax.preprocess import ImageSpec

# An annotated picture keeps the format of its source among these; any other becomes PNG.
_KEPT = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


class Predictor(Protocol):
    """What `emotion_jax.load_predictor` returns: faces in, probabilities out."""

    @property
    def spec(self) -> ImageSpec:
        """How the network wants its faces cropped."""

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """Map uint8 `[N, H, W, 3]`, RGB, to float32 `[N, 8]` whose rows sum to 1."""


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
        lines = [f"{_count(self.pictures, 'picture')}, {_count(self.faces, 'face')}"]
        if self.faceless:
            lines[0] += f"; no face in {_count(self.faceless, 'picture')}"
        if self.skipped:
            lines[0] += f"; {len(self.skipped)} skipped:"
        return "\n".join([*lines, *(f"  {sentence}" for sentence in self.skipped)])


def analyze(
    image: str | os.PathLike[str] | np.ndarray,
    predictor: Predictor,
    *,
    finder: faces.Finder = faces.DEFAULT,
    source: str | None = None,
) -> list[Row]:
    """Find the faces of one picture and read their emotions.

    Args:
      image: a path, or uint8 `[H, W, 3]`, RGB.
      predictor: from `load_predictor`.
      finder: of the faces.
      source: what the rows call the picture; by default its path, or "array".

    Returns:
      a row for each face, from left to right; see `rows.make_row`. Without a face, no row.

    Raises:
      EmotionError: the picture cannot be read.
    """
    if isinstance(image, np.ndarray):
        name = "array"
    else:
        name, image = os.fspath(image), images.read_image(image)
    return _make_rows(image, *_predict(image, predictor, finder), source=source or name)


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
      paths: files, folders and globs; see `images.find_images`. What is met twice is read once.
      predictor: from `load_predictor`; called once a picture, with all of its faces.
      finder: of the faces.
      output: a folder, made if need be, for `predictions.csv` (or .jsonl) and the annotated
        pictures, named as their sources, with a number where two would collide; no source is
        ever overwritten. Without it rows go to standard output, and nothing else does.
      format: of the rows: "csv" or "jsonl".
      blur: hide the faces that are found in the annotated pictures.
      show: show each annotated picture in a window until a key is pressed; q or Esc stops.

    Returns:
      the counts.

    Raises:
      EmotionError: nothing could be read, or something cannot be written or shown.
    """
    sources, skipped = _find_all(paths)
    readable = _read_each(sources, skipped)
    first = next(readable, None)
    if first is None:  # before any file is opened for writing: what an earlier run left stays
        raise EmotionError(_all_failed(skipped))
    targets = {} if output is None else choose_targets(sources, output)
    table = None if output is None else os.path.join(output, f"predictions.{format}")
    pictures = found = faceless = 0
    with RowWriter(table, format=format) as writer:
        for source, image in itertools.chain([first], readable):
            boxes, probabilities = _predict(image, predictor, finder)
            pictures, found, faceless = pictures + 1, found + len(boxes), faceless + (not boxes)
            writer.write(_make_rows(image, boxes, probabilities, source=source))
            if not writer.wanted:
                break
            if output is None and not show:
                continue
            numbers = range(len(boxes)) if len(boxes) > 1 else None
            canvas = draw.hide(image, boxes) if blur else image
            annotated = draw.annotate(canvas, boxes, probabilities, numbers=numbers)
            if output is not None:
                images.write_image(targets[source], annotated)
            if show and not window.show(annotated):
                break
    summary = Summary(pictures, found, faceless, tuple(skipped))
    print(summary, file=sys.stderr)
    if output is not None:
        print(f"written to {os.fspath(output)}", file=sys.stderr)
    return summary


def choose_targets(sources: Sequence[str], output: str | os.PathLike[str]) -> dict[str, str]:
    """Choose where each source's annotated picture goes: no two to one file, none to a source.

    Args:
      sources: paths of pictures.
      output: the folder of the annotated ones.

    Returns:
      the path for each source: its name, or the first free of name-2, name-3, ...
    """
    used = {_identity(source) for source in sources}
    targets = {}
    for source in sources:
        stem, suffix = os.path.splitext(os.path.basename(source))
        suffix = suffix if suffix.lower() in _KEPT else ".png"
        target, number = os.path.join(output, stem + suffix), 1
        while _identity(target) in used:
            number += 1
            target = os.path.join(output, f"{stem}-{number}{suffix}")
        used.add(_identity(target))
        targets[source] = target
    return targets


def _identity(path: str) -> str:
    """The same string for what may be the same file: links resolved, case ignored."""
    return os.path.realpath(path).casefold()


def _find_all(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The pictures that paths mean, each once, and a sentence for each that means none."""
    found: dict[str, str] = {}
    skipped = []
    for path in paths:
        try:
            for source in images.find_images(path):
                found.setdefault(os.path.realpath(source), source)
        except EmotionError as error:
            skipped.append(str(error))
    return list(found.values()), skipped


def _read_each(sources: Sequence[str], skipped: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each picture that can be read, in its turn; of the others a sentence goes to `skipped`."""
    for source in sources:
        try:
            image = images.read_image(source)
        except EmotionError as error:
            skipped.append(str(error))
        else:
            yield source, image


def _predict(
    image: np.ndarray, predictor: Predictor, finder: faces.Finder
) -> tuple[list[faces.Face], np.ndarray]:
    boxes = finder.detect(image)
    if not boxes:
        return [], np.empty((0, len(EMOTIONS)), np.float32)
    return boxes, np.asarray(predictor(finder.crop(image, boxes, predictor.spec)))


def _make_rows(
    image: np.ndarray, boxes: Sequence[faces.Face], probabilities: np.ndarray, *, source: str
) -> list[Row]:
    size = (image.shape[0], image.shape[1])
    return [
        make_row(face, row, source=source, size=size, index=i)
        for i, (face, row) in enumerate(zip(boxes, probabilities, strict=True))
    ]


def _all_failed(skipped: Sequence[str]) -> str:
    if len(skipped) == 1:
        return skipped[0]
    return f"none of {len(skipped)} pictures can be read: " + "; ".join(skipped)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
