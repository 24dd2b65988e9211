"""AffectNet, as people have it: the layout of 2017 (csv) and that of 2021 (npy), flaws and all.

Mollahosseini, Hasani and Mahoor, "AffectNet: A Database for Facial Expression, Valence, and
Arousal Computing in the Wild", arXiv 1708.03985. It is licensed: ask its authors for a copy.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from emotion_jax.data import files
from emotion_jax.data.affectnet_rows import (
    BOX,
    EXPRESSION,
    Row,
    csv_rows,
    npy_rows,
    parse_expression,
    parse_number,
    read_npy,
)
from emotion_jax.data.sources import Example, Target
from emotion_jax.data.tally import DroppedError, Report, Tally, read_picture
from emotion_jax.errors import EmotionError
from emotion_jax.host.manifest import file_sha256
from emotion_jax.image_spec import ImageSpec

if TYPE_CHECKING:  # OpenCV: only who reads pictures waits for it
    from emotion_jax.images import Reduced

LISTS = {"train": "training.csv", "validation": "validation.csv"}
LIST_FOLDERS = (
    "",
    "Manually_Annotated_file_lists",
    "Manually_Annotated/Manually_Annotated_file_lists",
    "Manually_Annotated",
)
IMAGE_FOLDERS = (
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_Images",
    "Manually_Annotated",
)
SETS = {"train": "train_set", "validation": "val_set"}

# A box wider than this many times its picture is a slip; its crop would be mostly border.
MAX_BOX = 2.0
# Pixels of a face, along a side, that a JPEG is decoded to at least, to each that is kept. Crops
# fall on whole pixels of what is decoded: with one and a half, within a third of one that is kept.
SPARE = 1.5


@dataclasses.dataclass(frozen=True)
class AffectNet:
    """Reads a folder with AffectNet in either layout; `report()` counts what was dropped and why.

    Attributes:
      folder: holds `training.csv` and `validation.csv` with `Manually_Annotated_Images`, or
        `train_set` and `val_set`.
      size: side of the faces yielded, in pixels.
      crop_scale: side of the square cut around the given box, in sides of the box's own square;
        the layout of 2021 is cropped already.
      crop_shift: how far the square's centre lies below the box's, in sides of the box's square.
    """

    folder: str
    size: int = 64
    crop_scale: float = ImageSpec.crop_scale
    crop_shift: float = 0.0
    name: ClassVar[str] = "affectnet"
    targets: ClassVar[Target] = "label"
    channels: ClassVar[int] = 3
    extras: ClassVar[tuple[str, ...]] = ("valence", "arousal")
    _tally: Tally = dataclasses.field(default_factory=Tally, init=False, repr=False, compare=False)

    def options(self) -> dict[str, Any]:
        lists, root = self._lists(), self._root()
        # The folder too: another one may have the same lists, and other pictures.
        options = {"version": 2, "size": self.size, "folder": str(root.resolve())}
        if lists:
            pictures = self._image_roots()[0]
            # The pictures' names: what was missing may have been added. Their 420,000 sizes and
            # times would take minutes on a network's disk, at every start.
            return {
                **options,
                "layout": "2017 csv",
                "lists": {split: file_sha256(path) for split, path in lists.items()},
                "pictures": files.listing_sha256(pictures, files.walk(pictures), stat=False),
                "crop_scale": self.crop_scale,
                "crop_shift": self.crop_shift,
            }
        found = {
            split: [
                # Resolved: either may be a link to another disk.
                files.listing_sha256(place, files.walk(place), stat=True)
                for place in ((folder / "images").resolve(), (folder / "annotations").resolve())
            ]
            for split, folder in self._sets().items()
        }
        return {**options, "layout": "2021 npy", "lists": found}

    def splits(self) -> tuple[str, ...]:
        return tuple(self._lists() or self._sets())

    def examples(self, split: str) -> Iterator[Example]:
        if lists := self._lists():
            read = partial(self._read_csv, self._image_roots())
            return self._tally.read(split, csv_rows(lists[split]), read)
        return self._tally.read(split, npy_rows(self._sets()[split]), self._read_npy)

    def report(self) -> Report:
        """What became of the rows of the splits read so far."""
        return self._tally.report()

    def rows(self, split: str) -> int:
        """How many rows a split has; a header or an empty line may count."""
        if lists := self._lists():
            with lists[split].open("rb") as file:
                return sum(1 for _ in file)
        annotations = self._sets()[split] / "annotations"
        return sum(entry.name.endswith(EXPRESSION) for entry in os.scandir(annotations))

    def rows_read(self, split: str) -> int:
        """How many of them have been read so far."""
        return self._tally.rows_read(split)

    def spare(self, side: float) -> float:
        """How many times smaller a picture may be decoded, by the longer side of its face's box."""
        return self.crop_scale * side / (SPARE * self.size)

    def _root(self) -> Path:
        return Path(os.path.expanduser(self.folder))

    def _lists(self) -> dict[str, Path]:
        """The csv lists of the layout of 2017; empty where the layout is that of 2021.

        Raises:
          EmotionError: the folder holds neither layout.
        """
        root = self._root()
        for place in LIST_FOLDERS:
            found = {split: root / place / name for split, name in LISTS.items()}
            found = {split: path for split, path in found.items() if path.is_file()}
            if found:
                return found
        if not self._sets():
            what = "holds no AffectNet" if root.is_dir() else "is no folder"
            raise EmotionError(
                f"data.dir: '{self.folder}' {what}; name the folder with training.csv, "
                "validation.csv and Manually_Annotated_Images, or with train_set and val_set"
            )
        return {}

    def _sets(self) -> dict[str, Path]:
        """The folders of the layout of 2021 that are there."""
        found = {split: self._root() / name for split, name in SETS.items()}
        found = {split: path for split, path in found.items() if (path / "annotations").is_dir()}
        for path in found.values():
            if not (path / "images").is_dir():
                raise EmotionError(
                    f"data.dir: '{path}' has annotations, but no folder 'images'; put the faces "
                    "there"
                )
        return found

    def _image_roots(self) -> list[Path]:
        """Where the paths of the lists may start; a link to another disk counts as inside."""
        places = [self._root() / name for name in IMAGE_FOLDERS]
        found = [place.resolve() for place in places if place.is_dir()]
        return [*found, self._root().resolve()]

    def _read_csv(self, roots: list[Path], row: Row) -> Example:
        if row.flaw:
            raise DroppedError(row.flaw)
        box = [float(row.fields[name]) for name in BOX]
        picture = read_picture(files.locate(roots, row.path), self.spare(max(box[2:])))
        return self._example(
            crop_box(picture, box, self.size, self.crop_scale, self.crop_shift),
            parse_expression(row.fields["expression"]),
            *(parse_number(row.fields.get(name, "")) for name in self.extras),
        )

    def _read_npy(self, row: Row) -> Example:
        place, number = self._root() / row.fields["set"], row.fields["number"]

        def value(kind: str) -> str:
            return read_npy(place / "annotations", f"{number}_{kind}.npy")

        expression = parse_expression(value("exp"))
        extras = []
        for kind in ("val", "aro"):
            there = os.path.exists(place / "annotations" / f"{number}_{kind}.npy")
            extras.append(parse_number(value(kind)) if there else math.nan)
        if not row.path:
            raise DroppedError("missing file")
        files.check_inside(Path(row.path), (place / "images").resolve())
        from emotion_jax.images import resize

        image = resize(read_picture(Path(row.path)).image, self.size, self.size)
        return self._example(image, expression, *extras)

    @staticmethod
    def _example(image: np.ndarray, label: int, valence: float, arousal: float) -> Example:
        return {"image": image, "label": label, "valence": valence, "arousal": arousal}


def crop_box(
    picture: Reduced, box: list[float], size: int, scale: float, shift: float
) -> np.ndarray:
    """Cuts the square around a box as the camera's are cut, see `faces.crop`.

    Args:
      picture: whole or reduced.
      box: x, y, width and height in pixels of the whole; it may leave the picture in part.
      size: side of the result.
      scale: side of the square, in the longer of the box's sides.
      shift: how far its centre lies below the box's, likewise.

    Returns:
      uint8 `[size, size, 3]`.

    Raises:
      DroppedError: no part of the box lies in the picture, or it is too large to be meant.
    """
    from emotion_jax.faces import Face, crop
    from emotion_jax.images import MAX_PIXELS

    (height, width), (x, y, w, h) = picture.size, box
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise DroppedError("box outside the picture")
    side = max(w, h)
    if side > MAX_BOX * max(height, width) or (scale * side) ** 2 > MAX_PIXELS:
        raise DroppedError("box too large")
    left, top, part = x + (w - side) / 2, y + (h - side) / 2, picture.part
    face = Face(left / part, top / part, side / part, side / part, 1.0)
    spec = ImageSpec(size=size, crop_scale=scale, crop_shift=shift)
    return crop(picture.image, [face], spec)[0]
