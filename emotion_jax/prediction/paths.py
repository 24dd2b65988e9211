"""Which pictures paths mean, and where each one's annotated copy goes."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence

from emotion_jax.errors import EmotionError
from emotion_jax.images import SUFFIXES

# What is read as a film; the same suffixes hold no picture.
_FILMS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
# What the name of an annotated picture ends in, beside its source.
_MARK = "-emotions"
# An annotated picture keeps the format of its source among these; any other becomes PNG.
_KEPT = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


def find_images(pattern: str) -> list[str]:
    """List the pictures that a path means.

    Args:
      pattern: a file, whatever its suffix; a folder, of which the pictures count that lie directly
        in it and are not hidden; or a glob ("holiday/**/*.jpg"). A leading "~" is your home. What
        was annotated beside its source does not count, unless it is named itself.

    Returns:
      paths, sorted, at least one.

    Raises:
      EmotionError: nothing is there, no picture is among what is there, or it is a film.
    """
    path = os.path.expanduser(pattern)
    if os.path.isfile(path) and path.lower().endswith(_FILMS):
        raise EmotionError(f"'{pattern}' is a film; use --video={pattern}")
    if os.path.isfile(path):  # before the glob: names may hold [ and ]
        return [path]
    is_folder = os.path.isdir(path)
    if is_folder:
        try:
            names = [os.path.join(path, n) for n in os.listdir(path) if not n.startswith(".")]
        except OSError as error:
            what = error.strerror or error
            raise EmotionError(f"the folder '{pattern}' cannot be read ({what})") from error
    else:
        names = glob.glob(path, recursive=True)
    # A pipe or a link to nothing counts: whoever reads them can say that they are no files.
    found = sorted(n for n in names if n.lower().endswith(SUFFIXES) and not os.path.isdir(n))
    if found:
        sources = {*found, *(os.path.splitext(name)[0] for name in found)}
        return [name for name in found if _source_of(name) not in sources]
    if is_folder or names:
        where = f"the folder '{pattern}'" if is_folder else f"what '{pattern}' matches"
        raise EmotionError(f"no picture is in {where}; pictures end in .jpg, .png, .webp, ...")
    raise EmotionError(f"'{pattern}' is not there; give a picture, a folder or a glob")


def _source_of(name: str) -> str:
    """What an annotated picture beside its source was made of, its suffix left out; "" for none."""
    match = re.fullmatch(rf"(.*){_MARK}(-\d+)?", os.path.splitext(name)[0], re.S)
    return match[1] if match else ""


def find_all(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find the pictures that paths mean, see `find_images`.

    Returns:
      each picture's path, once; a sentence for each of the paths that means none.
    """
    found: dict[str, str] = {}
    skipped: list[str] = []
    for sources in _each(paths, skipped):
        for source in sources:
            found.setdefault(os.path.realpath(source), source)
    return list(found.values()), skipped


def all_failed(skipped: Sequence[str]) -> str:
    """Say in one sentence why, of some pictures, none can be read; a sentence each is given."""
    if len(skipped) == 1:
        return skipped[0]
    return f"none of {len(skipped)} pictures can be read: " + "; ".join(skipped)


def check_sources(paths: Sequence[str]) -> None:
    """Find out, by their names alone, whether paths mean any picture.

    Raises:
      EmotionError: none does.
    """
    skipped: list[str] = []
    if next(_each(paths, skipped), None) is None:
        raise EmotionError(all_failed(skipped))


def _each(paths: Sequence[str], skipped: list[str]) -> Iterator[list[str]]:
    """The pictures of each path in turn; of a path that means none a sentence goes to `skipped`."""
    for path in paths:
        try:
            yield find_images(path)
        except EmotionError as error:
            skipped.append(str(error))


def choose_targets(sources: Sequence[str], output: str | os.PathLike[str]) -> dict[str, str]:
    """Choose where each source's annotated picture goes: no two to one file, none to a source.

    Each keeps its name, so that a row's source tells its picture. Where two share one, all keep
    their folders too, from the deepest that they have in common.

    Args:
      sources: paths of pictures.
      output: the folder of the annotated ones.

    Returns:
      the path for each source; beside sources it is called name-emotions, as no photo there is;
      with a number (name-2, name-3, ...) where that very file is a source, or differs from another
      in case alone. A format that holds no photo adds .png.
    """
    used = {_identity(source) for source in sources}
    folders = {folder_of(source) for source in sources}
    targets = {}
    for source, name in zip(sources, _choose_names(sources), strict=True):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in _KEPT:
            stem, suffix = name, ".png"
        if folder_of(os.path.join(output, name)) in folders:
            stem += _MARK
        target, number = os.path.join(output, stem + suffix), 1
        while _identity(target) in used:
            number += 1
            target = os.path.join(output, f"{stem}-{number}{suffix}")
        used.add(_identity(target))
        targets[source] = target
    return targets


def folder_of(path: str | os.PathLike[str]) -> str:
    """The same string for the files of what may be one folder: links resolved, case ignored."""
    return os.path.dirname(_identity(path))


def _choose_names(sources: Sequence[str]) -> list[str]:
    names = [os.path.basename(source) for source in sources]
    if len(set(names)) == len(names):
        return names
    paths = [os.path.abspath(source) for source in sources]
    return [os.path.relpath(path, os.path.commonpath(paths)) for path in paths]


def _identity(path: str | os.PathLike[str]) -> str:
    """The same string for what may be the same file: links resolved, case ignored."""
    return os.path.realpath(path).casefold()
