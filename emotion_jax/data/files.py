"""Files of a data set on disk: found inside its folder only, and told apart by what they hold."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from emotion_jax.data.tally import DroppedError
from emotion_jax.errors import EmotionError


def walk(folder: Path, *, links: bool = True) -> Iterator[Path]:
    """Every file below a folder that is not hidden, sorted; links to folders are not followed.

    Raises:
      EmotionError: a folder cannot be read or, unless `links`, is a link; left out in silence, its
        faces would be missed.
    """
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place) / name for name in folders):
            if not links and path.is_symlink():
                raise EmotionError(
                    f"data.dir: '{path}' is a link to a folder, which might lead in a circle; "
                    f"link the files in it, or '{folder}' as a whole"
                )
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise EmotionError(
        f"data.dir: the folder '{error.filename}' cannot be read ({error.strerror}); allow it, or "
        "move the folder away"
    ) from error


def listing_sha256(folder: Path, files: Iterator[Path], *, stat: bool) -> str:
    """A hash of the files' names below `folder` and, where `stat`, of their sizes and times."""
    mark = hashlib.sha256()
    for path in files:
        line = path.relative_to(folder).as_posix()
        if stat:
            try:
                found = path.stat()
                line += f"|{found.st_size}|{found.st_mtime_ns}"
            except OSError:  # a link to nothing
                line += "|"
        mark.update(os.fsencode(line) + b"\0")
    return mark.hexdigest()


def clean_path(listed: str) -> str:
    """A path out of a list, relative to a folder and in one spelling.

    Raises:
      DroppedError: it leads out of the folder, or names no file.
    """
    path = listed.strip().replace("\\", "/")
    if not path or "\0" in path:
        raise DroppedError("damaged row")
    path = posixpath.normpath(path)
    drive = path.partition("/")[0].endswith(":")
    if drive or path == ".." or path.startswith(("/", "../")):
        raise DroppedError("path out of the folder")
    return path


def locate(roots: Sequence[Path], path: str) -> Path:
    """The file of a clean path below one of the resolved folders, its suffix in either case.

    Raises:
      DroppedError: there is none, or a link leads out of the folder that it lies in.
    """
    stem, suffix = posixpath.splitext(path)
    for root in roots:
        for name in dict.fromkeys((path, stem + suffix.lower(), stem + suffix.upper())):
            try:
                if (root / name).is_file():
                    check_inside(root / name, root)
                    return root / name
            except OSError:  # a name that the file system cannot have
                continue
    raise DroppedError("missing file")


def check_inside(path: Path, root: Path) -> None:
    """Refuses what a link leads out of a resolved folder.

    Raises:
      DroppedError: it does.
    """
    # Of a link that leads to itself realpath makes something, where resolve() raises.
    if not Path(os.path.realpath(path)).is_relative_to(root):
        raise DroppedError("path out of the folder")
