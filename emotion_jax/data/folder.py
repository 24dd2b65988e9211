"""A folder of faces, a subfolder for each emotion: your own, or AffectNet's re-packings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from emotion_jax.data import files
from emotion_jax.data.sources import Example, Target
from emotion_jax.data.tally import DroppedError, Report, Tally, read_picture
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS, emotion_code

# The spellings of each split, in any case; "test" validates where nothing else does.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}


# Another data set's numbers, which would all be taken for other emotions.
RAF_DB = set(range(1, 8))


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file and what its folder says of it."""

    name: str  # relative to the data's folder
    path: Path
    label: int


@dataclasses.dataclass(frozen=True)
class Folder:
    """Reads `train/<emotion>/*` and `val/<emotion>/*`, the whole pictures.

    An emotion's folder has its name in any common spelling (`labels.emotion_code`), or its number
    in AffectNet's order, 0..7. What cannot be read is skipped; `report()` counts it. A picture that
    is not square is squeezed into one. Emotions' folders without a split around them all train;
    `data.holdout` then makes a validation split.

    Attributes:
      folder: holds `train` and one of `val`, `valid`, `validation` and `test`; with both kinds,
        `test` is the test split.
      size: side of the faces yielded, in pixels.
    """

    folder: str
    size: int = 64
    name: ClassVar[str] = "folder"
    targets: ClassVar[Target] = "label"
    channels: ClassVar[int] = 3
    _tally: Tally = dataclasses.field(default_factory=Tally, init=False, repr=False, compare=False)

    def options(self) -> dict[str, Any]:
        # Sizes and times too: own pictures are exchanged at times. The place, for two folders may
        # agree in all of these.
        root = self._root()
        found = {
            split: {
                # By the place: two of them may have one emotion, "happy" and "joy".
                place.name: [label, files.listing_sha256(root, _files(place), stat=True)]
                for place, label in self._classes(split)
            }
            for split in self.splits()
        }
        return {"version": 1, "size": self.size, "folder": str(root.resolve()), "files": found}

    def splits(self) -> tuple[str, ...]:
        return tuple(self._folders())

    def examples(self, split: str) -> Iterator[Example]:
        return self._tally.read(split, self._pictures(split), self._read)

    def report(self) -> Report:
        """What became of the pictures of the splits read so far."""
        return self._tally.report()

    def rows(self, split: str) -> int:
        """How many files a split has."""
        return sum(1 for _ in self._pictures(split))

    def rows_read(self, split: str) -> int:
        """How many of them have been read so far."""
        return self._tally.rows_read(split)

    def _root(self) -> Path:
        return Path(os.path.expanduser(self.folder))

    def _folders(self) -> dict[str, Path]:
        """The folder of each split.

        Raises:
          EmotionError: there is none to train on, or a split has two.
        """
        root = self._root()
        inside = [path for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []
        found: dict[str, Path] = {}
        for split, names in SPLITS.items():
            for path in (path for path in inside if path.name.lower() in names):
                if found.setdefault(split, path) != path:
                    raise EmotionError(
                        f"data.dir: '{found[split]}' and '{path}' are both the {split} split; put "
                        "what they hold into one"
                    )
        emotions = [path for path in inside if _is_emotion(path)]
        if emotions and not found:
            return {"train": root}
        if emotions:
            raise EmotionError(
                f"data.dir: '{emotions[0]}' lies beside '{found.popitem()[1].name}', so that its "
                "faces would be in no split; move it into one, or out of the folder"
            )
        if "train" not in found:
            what = "has no folder 'train'" if root.is_dir() else "is no folder"
            raise EmotionError(
                f"data.dir: '{self.folder}' {what}; name one that holds train/<emotion> and "
                f"val/<emotion>, such as train/{EMOTIONS[0]}"
            )
        if "test" in found and "validation" not in found:
            found["validation"] = found.pop("test")
        return found

    def _classes(self, split: str) -> list[tuple[Path, int]]:
        """The folders of a split's emotions with their codes, by code.

        Raises:
          EmotionError: one is no emotion's; left out in silence, its faces would be missed.
        """
        place = self._folders()[split]
        inside = [path for path in sorted(place.iterdir()) if not path.name.startswith(".")]
        codes = [(path, _code(path)) for path in inside if path.is_dir()]
        if not codes:
            raise EmotionError(
                f"data.dir: '{place}' has no folder of an emotion; put each face into the one of "
                f"its emotion: {', '.join(EMOTIONS)}"
            )
        if self._numbers() == RAF_DB:
            raise EmotionError(
                f"data.dir: '{place}' has the folders 1 to 7, as RAF-DB counts them, from surprise "
                "to neutral; AffectNet counts from 0 (neutral), so name them by their emotions"
            )
        return sorted(codes, key=lambda item: item[1])

    def _numbers(self) -> set[int]:
        """The numbers that folders of emotions are called by, in any split."""
        names = (
            path.name.strip() for place in self._folders().values() for path in place.iterdir()
        )
        return {int(name) for name in names if name.isdecimal() and name.isascii()}

    def _pictures(self, split: str) -> Iterator[Picture]:
        root = self._root()
        for place, label in self._classes(split):
            for path in _files(place):
                yield Picture(path.relative_to(root).as_posix(), path, label)

    def _read(self, picture: Picture) -> Example:
        from emotion_jax.images import SUFFIXES, resize

        if not picture.name.lower().endswith(SUFFIXES):
            raise DroppedError("no picture")
        image = resize(read_picture(picture.path).image, self.size, self.size)
        return {"image": image, "label": picture.label}


def _files(place: Path) -> Iterator[Path]:
    return files.walk(place, links=False)


def _is_emotion(folder: Path) -> bool:
    try:
        return folder.is_dir() and _code(folder) >= 0
    except EmotionError:
        return False


def _code(folder: Path) -> int:
    """The code of the emotion that a folder is called by."""
    name = folder.name.strip()
    if name.isdecimal() and name.isascii() and int(name) < len(EMOTIONS):
        return int(name)
    try:
        return emotion_code(name)
    except EmotionError as error:
        raise EmotionError(
            f"data.dir: '{folder}' is called by no emotion; name it 0..{len(EMOTIONS) - 1} or one "
            f"of {', '.join(EMOTIONS)}, or move it out of '{folder.parent.name}'"
        ) from error
