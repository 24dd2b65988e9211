"""The rows of AffectNet's lists, csv or npy: each with a face, or with why it has none."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emotion_jax.data import files
from emotion_jax.data.tally import DroppedError
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS

COLUMNS = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
    "expression,valence,arousal"
).split(",")
EXPRESSION = "_exp.npy"  # ends the name of each annotation of an expression
BOX = COLUMNS[1:5]
# The codes after the eight emotions: these faces are dropped.
NOT_EMOTIONS = ("none", "uncertain", "no face")

# A true annotation has about 150 bytes, landmarks apart, which are not read.
MAX_NPY_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Row:
    """A face as the lists name it, before its picture is opened.

    Attributes:
      name: of the report: the path in the csv, or the folder and number of an npy face.
      path: of the picture: in the csv clean and relative, else that of the file, if any.
      fields: of the csv, by column.
      flaw: why it is dropped at once; "" if it is not.
    """

    name: str
    path: str = ""
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    flaw: str = ""


def read_npy(folder: Path, name: str) -> str:
    """The one value in a `.npy` file, as text; a pickled one, which could run code, is refused.

    Raises:
      DroppedError: it is missing, elsewhere, pickled, or not one value.
    """
    path = folder / name
    if not os.path.isfile(path):  # a name may be too long for one, where is_file() raises
        raise DroppedError("no annotation")
    files.check_inside(path, folder.resolve())
    try:
        if path.stat().st_size > MAX_NPY_BYTES:
            raise DroppedError("damaged annotation")
        data = path.read_bytes()
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        return str(array.item())
    except DroppedError:
        raise
    except Exception as error:  # a damaged header raises whatever NumPy trips over
        # A bare pickle starts with this byte; one inside a .npy is named by NumPy.
        pickled = "pickle" in str(error) or data[:1] == b"\x80"
        raise DroppedError("pickled annotation" if pickled else "damaged annotation") from error


def parse_expression(text: str) -> int:
    """The code of an emotion, 0..7.

    Raises:
      DroppedError: it is none of the eight.
    """
    code = parse_number(text)
    if code in range(len(EMOTIONS)):
        return int(code)
    if code - len(EMOTIONS) in range(len(NOT_EMOTIONS)):
        return _no_emotion(int(code))
    raise DroppedError("bad expression")


def _no_emotion(code: int) -> int:
    raise DroppedError(NOT_EMOTIONS[code - len(EMOTIONS)])


def parse_number(text: str) -> float:
    """A finite number; NaN for anything else, such as NULL."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def csv_rows(path: Path) -> Iterator[Row]:
    """The rows of a list, with a header or without, each checked as far as a list allows."""
    columns, seen, first = COLUMNS, set[str](), True
    try:
        # "-sig": spreadsheets put a mark of three bytes first.
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            for line, text in enumerate(file):
                if not text.strip():
                    continue
                # A line at a time: a stray quote must not swallow the lines that follow.
                try:
                    cells = [cell.strip() for cell in next(csv.reader([text.rstrip("\r\n")]))]
                except csv.Error:
                    cells = []
                names, first = _header(path, cells) if first else [], False
                if names:
                    columns = names
                elif len(cells) < len(columns):
                    name = cells[0] if cells else ""
                    yield Row(name or f"{path.name}, line {line + 1}", flaw="damaged row")
                else:
                    yield _csv_row(path, line, dict(zip(columns, cells, strict=False)), seen)
    except OSError as error:
        raise EmotionError(f"{path} cannot be read ({error}); fetch it anew") from error


def _header(path: Path, cells: list[str]) -> list[str]:
    """The columns that a first line names; [] where it names none."""
    known = {name.lower(): name for name in COLUMNS}
    names = [known.get(cell.lower(), cell) for cell in cells]
    if len(set(names) & set(COLUMNS)) < 2:
        return []
    if missing := [name for name in (COLUMNS[0], *BOX, "expression") if name not in names]:
        raise EmotionError(
            f"{path}: no column '{missing[0]}'; its first line must name {', '.join(COLUMNS)}, or "
            "be a row of these"
        )
    return names


def _csv_row(path: Path, line: int, fields: dict[str, str], seen: set[str]) -> Row:
    name = fields[COLUMNS[0]] or f"{path.name}, line {line + 1}"
    try:
        clean = files.clean_path(fields[COLUMNS[0]])
        parse_expression(fields["expression"])
        box = [parse_number(fields[key]) for key in BOX]
        if any(map(math.isnan, box)):
            raise DroppedError("no box")
        if min(box[2:]) <= 0:
            raise DroppedError("empty box")
        if clean in seen:
            raise DroppedError("duplicate")
    except DroppedError as reason:
        return Row(name, flaw=str(reason))
    seen.add(clean)
    return Row(name, clean, fields)


def npy_rows(place: Path) -> Iterator[Row]:
    """A row for every picture and every annotated number of a set, by number."""
    pictures: dict[str, str] = {}
    if (place / "images").is_dir():
        for path in sorted((place / "images").iterdir(), reverse=True):
            if not path.name.startswith("."):
                pictures[path.stem] = str(path)
    annotated = {
        path.name[: -len(EXPRESSION)] for path in (place / "annotations").glob(f"*{EXPRESSION}")
    }
    for number in sorted(annotated | pictures.keys(), key=lambda name: (len(name), name)):
        fields = {"set": place.name, "number": number}
        yield Row(f"{place.name}/{number}", pictures.get(number, ""), fields)
