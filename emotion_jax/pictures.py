"""Many pictures to a table and annotated pictures: found, labelled, drawn, written."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from emotion_jax import draw, faces, images, window
from emotion_jax.analysis import Labelled, Predictor, label_each
from emotion_jax.errors import EmotionError
from emotion_jax.rows import RowWriter
from emotion_jax.wording import count

# An annotated picture keeps the format of its source among these; any other becomes PNG.
_KEPT = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


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
    readable = _keep_readable(results, skipped)
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
    print(summary, file=sys.stderr)
    if output is not None:
        print(f"written to {os.fspath(output)}", file=sys.stderr)
    return summary


def check_sources(paths: Sequence[str]) -> None:
    """Find out, by their names alone, whether paths mean any picture.

    Raises:
      EmotionError: none does.
    """
    sources, skipped = find_all(paths)
    if not sources:
        raise EmotionError(all_failed(skipped))


def choose_targets(sources: Sequence[str], output: str | os.PathLike[str]) -> dict[str, str]:
    """Choose where each source's annotated picture goes: no two to one file, none to a source.

    Each keeps its name, so that a row's source tells its picture. Where two share one, all keep
    their folders too, from the deepest that they have in common.

    Args:
      sources: paths of pictures.
      output: the folder of the annotated ones.

    Returns:
      the path for each source; with a number (name-2, name-3, ...) where that very file is a
      source, or differs from another in case alone. A format that holds no photo adds .png.
    """
    used = {_identity(source) for source in sources}
    targets = {}
    for source, name in zip(sources, _choose_names(sources), strict=True):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in _KEPT:
            stem, suffix = name, ".png"
        target, number = os.path.join(output, stem + suffix), 1
        while _identity(target) in used:
            number += 1
            target = os.path.join(output, f"{stem}-{number}{suffix}")
        used.add(_identity(target))
        targets[source] = target
    return targets


def _choose_names(sources: Sequence[str]) -> list[str]:
    names = [os.path.basename(source) for source in sources]
    if len(set(names)) == len(names):
        return names
    paths = [os.path.abspath(source) for source in sources]
    return [os.path.relpath(path, os.path.commonpath(paths)) for path in paths]


def _identity(path: str) -> str:
    """The same string for what may be the same file: links resolved, case ignored."""
    return os.path.realpath(path).casefold()


def find_all(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find the pictures that paths mean, see `images.find_images`.

    Returns:
      each picture's path, once; a sentence for each of the paths that means none.
    """
    found: dict[str, str] = {}
    skipped = []
    for path in paths:
        try:
            for source in images.find_images(path):
                found.setdefault(os.path.realpath(source), source)
        except EmotionError as error:
            skipped.append(str(error))
    return list(found.values()), skipped


def _keep_readable(
    results: Iterator[Labelled | EmotionError], skipped: list[str]
) -> Iterator[Labelled]:
    """Each picture that could be read; of the others a sentence goes to `skipped`."""
    for result in results:
        if isinstance(result, EmotionError):
            skipped.append(str(result))
        else:
            yield result


def all_failed(skipped: Sequence[str]) -> str:
    """Say in one sentence why, of some pictures, none can be read; a sentence each is given."""
    if len(skipped) == 1:
        return skipped[0]
    return f"none of {len(skipped)} pictures can be read: " + "; ".join(skipped)
