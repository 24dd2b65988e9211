"""FER+: the faces of FER2013 with the votes of ten people each.

Goodfellow et al., "Challenges in Representation Learning", arXiv 1307.0414 (`fer2013.csv`);
Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", arXiv 1608.01041 (`fer2013new.csv`).
"""

from __future__ import annotations

import csv
import dataclasses
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from emotion_jax.data.sources import Example, Target
from emotion_jax.errors import EmotionError
from emotion_jax.host.manifest import file_sha256
from emotion_jax.labels import FERPLUS_COLUMNS, VOTES

SIDE = 48
USAGE = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
FACES, VOTE_FILE = "fer2013.csv", "fer2013new.csv"
# The whole of FER2013 has 35,887 faces; a face takes at most 9,216 characters.
MAX_LINES, MAX_CHARACTERS = 1 << 20, 1 << 16


@dataclasses.dataclass(frozen=True)
class FerPlus:
    """Reads a folder with `fer2013.csv` and `fer2013new.csv`, each plain or `.xz`.

    Every row is kept; which faces train and count is decided from their votes, later, by
    `labels.vote_targets`. The test split is there where the PrivateTest rows are.

    Attributes:
      folder: holds the two files.
      size: side of the faces yielded, in pixels; enlarged from 48.
    """

    folder: str
    size: int = SIDE
    name: ClassVar[str] = "ferplus"
    targets: ClassVar[Target] = "votes"
    channels: ClassVar[int] = 1

    def options(self) -> dict[str, Any]:
        files = {name: file_sha256(self._path(name)) for name in (FACES, VOTE_FILE)}
        return {"version": 1, "size": self.size, "files": files}

    def splits(self) -> tuple[str, ...]:
        votes, faces = self._votes(), self._path(FACES)
        if USAGE["test"] in votes:  # of both files, either may come without these rows
            rows = _columns(faces, ("Usage",))
            if all(usage != USAGE["test"] for _, (usage,) in rows):
                del votes[USAGE["test"]]
        return tuple(split for split, usage in USAGE.items() if usage in votes)

    def examples(self, split: str) -> Iterator[Example]:
        from emotion_jax.images import resize

        usage, path, count = USAGE[split], self._path(FACES), 0
        votes = self._votes().get(usage, np.zeros((0, len(VOTES)), np.uint8))
        for line, (pixels, of) in _columns(path, ("pixels", "Usage")):
            if of != usage:
                continue
            # Joined by the row's place among those of its usage: the image names in the file of
            # votes drift, and copies without the PrivateTest rows are about.
            if count < len(votes):
                face = _face(pixels, f"{path}, line {line}")
                yield {"image": resize(face, self.size, self.size), "votes": votes[count]}
            count += 1
        if count != len(votes):
            raise EmotionError(
                f"{path} has {count} {usage} rows, {self._path(VOTE_FILE)} has {len(votes)}; both "
                "files must be whole, in their original order"
            )

    def _path(self, name: str) -> Path:
        folder = Path(os.path.expanduser(self.folder))
        for path in (folder / name, folder / f"{name}.xz"):
            if path.is_file():
                return path
        raise EmotionError(
            f"data.dir: no {name} or {name}.xz in '{self.folder}'; name the folder that holds "
            f"{FACES} (FER2013) and {VOTE_FILE} (FER+)"
        )

    def _votes(self) -> dict[str, np.ndarray]:
        """Counts uint8 `[N, 10]` in the order of `VOTES`, for each usage."""
        path = self._path(VOTE_FILE)
        header = ("Usage", *("NF" if name == "no face" else name for name in FERPLUS_COLUMNS))
        order = [FERPLUS_COLUMNS.index(name) for name in VOTES]
        votes: dict[str, list[list[int]]] = {}
        for line, (usage, *counts) in _columns(path, header):
            for name, count in zip(header[1:], counts, strict=True):
                if not count.isdecimal() or len(count) > 3 or int(count) > 255:
                    raise EmotionError(
                        f"{path}, line {line}: '{name}' is '{count[:20]}'; votes are whole numbers "
                        "from 0 to 255, fetch the file anew"
                    )
            votes.setdefault(usage, []).append([int(counts[i]) for i in order])
        return {usage: np.array(rows, np.uint8) for usage, rows in votes.items()}


def _open(path: Path) -> IO[str]:
    # "-sig": spreadsheets put a mark of three bytes first.
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(file: IO[str]) -> Iterator[list[str]]:
    """The cells of each line; a packed file of a few kilobytes may unpack into endless ones."""
    for _ in range(MAX_LINES):
        text = file.readline(MAX_CHARACTERS)
        if len(text) == MAX_CHARACTERS:
            raise csv.Error(f"a line of {MAX_CHARACTERS} characters and more")
        if not text:
            return
        # A line at a time: no cell holds a line's end, and a stray quote must not swallow more.
        yield next(csv.reader([text.rstrip("\r\n")], skipinitialspace=True), [])
    raise csv.Error(f"more than {MAX_LINES} lines")


def _columns(path: Path, names: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The named columns of a csv file, each row with the number of its line."""
    try:
        with _open(path) as file:
            rows = _rows(file)
            header = [name.strip() for name in next(rows, [])]
            if missing := [name for name in names if name not in header]:
                raise EmotionError(
                    f"{path}: no column '{missing[0]}'; its first line must name {', '.join(names)}"
                )
            places = [header.index(name) for name in names]
            for line, row in enumerate(rows, start=2):
                if not row:
                    continue
                if len(row) != len(header):
                    raise EmotionError(
                        f"{path}, line {line}: {len(row)} columns, the header has "
                        f"{len(header)}; if the file is cut short, fetch it anew"
                    )
                yield line, [row[i] for i in places]
    except (OSError, EOFError, MemoryError, lzma.LZMAError, UnicodeError, csv.Error) as error:
        raise EmotionError(f"{path} cannot be read ({error}); fetch it anew") from error


def _face(pixels: str, place: str) -> np.ndarray:
    """The grey face uint8 `[48, 48, 1]` written as 2304 numbers."""
    # Four times as fast as int() of each word, but it stops in silence at what is no number.
    stray = pixels.encode().translate(None, b"0123456789 ")
    values = np.fromstring("" if stray else pixels, np.int64, sep=" ")
    if values.size != SIDE * SIDE or values.min() < 0 or values.max() > 255:
        raise EmotionError(
            f"{place}: 'pixels' must be {SIDE * SIDE} numbers from 0 to 255; fetch the file anew"
        )
    return values.astype(np.uint8).reshape(SIDE, SIDE, 1)
