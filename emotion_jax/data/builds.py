"""Builds: a source written once to disk, then read at random; see `records`.

A build lies in `<cache>/<source>-<hash of its options>`. TensorFlow Datasets itself goes by name
and version only and would serve one folder's faces for another's.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from emotion_jax.data.records import RecordPixels, RecordWriter, damaged, picture_shape
from emotion_jax.data.selection import digests
from emotion_jax.data.sources import Example, Source
from emotion_jax.data.tally import UNREADABLE, no_faces, source_report, summary
from emotion_jax.errors import EmotionError
from emotion_jax.host.stopping import say

# Goes up with every change of what a build holds, so that no cache serves the old.
FORMAT = 4
REPORT = "build_report.json"
OPTIONS = "options.json"  # what it was made from
# What the build's arrays hold of each split, see `Build`.
_KINDS = ("targets", "digests", "places")
# Faces between two looks of the progress line: it is redrawn ten times a second, not a thousand.
_EVERY = 16


@dataclasses.dataclass(frozen=True)
class Build:
    """A finished build.

    Attributes:
      folder: where it lies.
      shape: of every picture.
      targets: the labels or votes of every record of every split.
      digests: of every record's pixels, uint64 `[N]`: equal where the faces are.
      places: of every record's pixels, see `RecordPixels`.
    """

    folder: Path
    shape: tuple[int, ...]
    targets: dict[str, np.ndarray]
    digests: dict[str, np.ndarray]
    places: dict[str, np.ndarray]

    def pixels(self, split: str) -> RecordPixels:
        """The pictures of a split, by the number of their record."""
        return RecordPixels(self.folder, split, self.places[split], self.shape)


def build(source: Source, cache: str | Path, options: dict[str, Any] | None = None) -> Build:
    """Returns the source's build, written first where there is none.

    Args:
      source: of the faces.
      cache: the folder of all builds.
      options: `source.options()`, where the caller has them: they may take a walk over a disk.

    Raises:
      EmotionError: the source's files are wrong, or the cache cannot be written.
    """
    options = source.options() if options is None else options
    made_of = {"source": source.name, "format": FORMAT, **options}
    text = json.dumps(made_of, sort_keys=True)
    name = f"{source.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder = Path(os.path.expanduser(cache)) / name
    try:
        if not (folder / "targets.npz").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            # One process writes, the others wait and read.
            with (folder / "lock").open("w") as lock:
                _take(lock, folder)
                if not (folder / "targets.npz").is_file():
                    _write(source, folder, text)
    except OSError as error:
        raise EmotionError(
            f"data.cache_dir: '{folder}' cannot be written ({error.strerror or error}); "
            "name another folder"
        ) from error
    return _open(folder)


def _take(lock: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another process builds {folder}; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _open(folder: Path) -> Build:
    try:
        with np.load(folder / "targets.npz", allow_pickle=False) as file:
            kinds: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in _KINDS}
            for name in file.files:
                kind, _, split = name.partition(".")
                if split:
                    kinds[kind][split] = file[name]
            return Build(folder, tuple(file["shape"].tolist()), **kinds)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise damaged(folder) from error


def _write(source: Source, folder: Path, options: str) -> None:
    for old in folder.iterdir():  # what a killed run left: nobody writes it while we hold the lock
        if old.name != "lock":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    print(f"building {source.name} in {folder} (once)", flush=True)
    arrays: dict[str, Any] = {"shape": np.array(picture_shape(source))}
    counts = {}
    with _progress() as progress:
        writer = RecordWriter(folder, source)
        for split in source.splits():
            targets: list[Any] = []
            marks: list[np.ndarray] = []
            examples = _noted(source, split, targets, marks, progress)
            arrays[f"places.{split}"] = writer.write(split, examples)
            arrays[f"targets.{split}"] = np.array(targets)
            arrays[f"digests.{split}"] = np.concatenate(marks)
            counts[split] = len(targets)
    (folder / OPTIONS).write_text(options)
    report = source_report(source)
    if report is not None:
        (folder / REPORT).write_text(json.dumps(report, indent=1))
    # Last, and whole: a build without it is unfinished.
    with (folder / "targets.tmp").open("wb") as file:
        np.savez(file, **arrays)
    os.replace(folder / "targets.tmp", folder / "targets.npz")
    print(f"built: {', '.join(f'{n} {split}' for split, n in counts.items())}", flush=True)
    if report is not None:
        print(f"{summary(report)}; names in {folder / REPORT}", flush=True)
        if UNREADABLE in report["dropped"]:
            print(f"once you have replaced unreadable ones, delete {folder}", flush=True)


def _noted(
    source: Source, split: str, targets: list[Any], marks: list[np.ndarray], progress: Progress
) -> Iterator[Example]:
    """Yields a split's examples, and notes their targets and the marks of their pixels."""
    total = source.rows(split) if hasattr(source, "rows") else None

    def read() -> int:
        return source.rows_read(split) if hasattr(source, "rows_read") else len(targets)

    line = progress.add_task(split, total=total, of=f" of {total:,}" if total else "")
    for example in _told(source, split):
        targets.append(example[source.targets])
        marks.append(digests(example["image"][None]))
        if len(targets) % _EVERY == 0:
            progress.update(line, completed=read())
        yield example
    if not targets:
        raise no_faces(source, split)
    count = read()  # it was about as many as were said
    progress.update(line, completed=count, total=count, of=f" of {count:,}")


def _told(source: Source, split: str) -> Iterator[Example]:
    """A split's examples; where the source cannot be read, the cache is not to blame."""
    try:
        yield from source.examples(split)
    except OSError as error:
        raise EmotionError(
            f"data.dir: '{error.filename or source.name}' cannot be read "
            f"({error.strerror or error}); try again once it can"
        ) from error


def _progress() -> Progress:
    """A bar for each split on a terminal, nothing elsewhere."""
    console = Console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}{task.fields[of]} rows"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
