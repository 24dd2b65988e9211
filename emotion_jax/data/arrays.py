"""Array files: a whole data set in one `.npz`, for machines without TensorFlow.

    python -m emotion_jax.data.arrays --config=configs/ferplus_narrow.py --output=ferplus.npz

Such a file holds `images` uint8 `[N, H, W, C]`, or the same pictures losslessly compressed
(`pictures` uint8, their bytes end to end, `offsets` int64 `[N + 1]`, and `channels`, 1 or 3 if
it is not there); `labels` int `[N]`, or `votes` `[N, 8]` or `[N, 10]` (the orders of
`labels.EMOTIONS` and `labels.VOTES`); and `split` int `[N]`: 0 train, 1 validation, 2 test.
Without `split` all are to train on, and a tenth of them is held out unless `data.holdout` says
otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emotion_jax.data.sources import Source
from emotion_jax.data.tally import source_report, summary
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS, VOTES

SPLITS = ("train", "validation", "test")
# Faces in memory take at most so many times what the file does, once they take much at all: a file
# of a few kilobytes may claim, or unpack into, more than any machine has.
MAX_RATIO, MUCH = 100, 1 << 28


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Faces in memory.

    Attributes:
      images: uint8 `[N, H, W, C]`, C 1 or 3 (RGB).
      split: the place of each face's split in `SPLITS`, `[N]`.
      labels: codes of emotions, int `[N]`; or else
      votes: `[N, 8]` or `[N, 10]`.
    """

    images: np.ndarray
    split: np.ndarray
    labels: np.ndarray | None = None
    votes: np.ndarray | None = None


def collect(source: Source) -> Arrays:
    """Reads a whole source into memory.

    Raises:
      EmotionError: its files are wrong, or hold no faces.
    """
    images, targets, split = [], [], []
    for name in source.splits():
        for example in source.examples(name):
            images.append(example["image"])
            targets.append(example[source.targets])
            split.append(SPLITS.index(name))
    if not images:
        raise EmotionError(f"the source '{source.name}' has no faces; are its files whole?")
    return Arrays(
        images=np.stack(images),
        split=np.array(split, np.uint8),
        **{"labels" if source.targets == "label" else "votes": np.array(targets)},
    )


def save_arrays(path: str | Path, arrays: Arrays, *, compress: bool = False) -> None:
    """Writes an array file, whole or not at all; `compress` stores lossless WebP."""
    content: dict[str, Any] = {"split": arrays.split}
    if arrays.labels is not None:
        content["labels"] = arrays.labels
    if arrays.votes is not None:
        content["votes"] = arrays.votes
    if compress:
        pictures = [_encode(image) for image in arrays.images]
        content["pictures"] = np.frombuffer(b"".join(pictures), np.uint8)
        content["offsets"] = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
        content["channels"] = np.array(arrays.images.shape[-1])
    else:
        content["images"] = arrays.images
    with _half_written(path) as half:
        with half.open("wb") as file:
            np.savez(file, **content)
        os.replace(half, os.path.expanduser(path))


@contextlib.contextmanager
def _half_written(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write first; it is gone at the end.

    Raises:
      EmotionError: what is done with it fails for the system's reasons.
    """
    path = Path(os.path.expanduser(path))
    half = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield half
        finally:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise EmotionError(
            f"'{path}' cannot be written ({error.strerror or error}); name another file"
        ) from error


def _check_writable(path: str) -> None:
    """Finds out before a whole source is read whether its array file can be written."""
    with _half_written(path) as half:
        half.touch()


def load_arrays(path: str | Path) -> Arrays:
    """Reads an array file and checks it; without `split` all faces are to train on.

    Raises:
      EmotionError: no such file, not an array file, or arrays that do not belong together.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise EmotionError(
            f"data.dir: no array file '{path}'; python -m emotion_jax.data.arrays makes one"
        )
    try:
        with zipfile.ZipFile(path) as archive:  # np.load would take a single .npy file, too
            _check_bytes(path, sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as file:
            # What is no array in the archive comes out as its bytes.
            content = {name: x for name in file.files if isinstance(x := file[name], np.ndarray)}
    except EmotionError:
        raise
    except Exception as error:  # a damaged file raises whatever its reader trips over
        raise EmotionError(
            f"'{path}' is not a whole .npz file of plain arrays ({error}); make it anew"
        ) from error
    has = ", ".join(content) or "none"
    if not ("images" in content or {"pictures", "offsets"} <= set(content)):
        raise EmotionError(
            f"'{path}': no array 'images', nor 'pictures' with 'offsets'; its arrays are: {has}"
        )
    if ("labels" in content) == ("votes" in content):
        raise EmotionError(f"'{path}' needs either 'labels' or 'votes'; its arrays are: {has}")
    images = content["images"] if "images" in content else _decode(path, content)
    split = content.get("split", np.zeros(images.shape[:1], np.uint8))
    arrays = Arrays(images, split, content.get("labels"), content.get("votes"))
    _check(path, arrays)
    return arrays


def _check_bytes(path: Path, needed: int) -> None:
    """Refuses what would take far more memory than the file has bytes."""
    if needed > max(MUCH, MAX_RATIO * path.stat().st_size):
        raise EmotionError(
            f"'{path}' would take {needed / 1e9:.1f} GB, far more than faces of such a file do; "
            "make it anew"
        )


def _check(path: Path, a: Arrays) -> None:
    """Raises an EmotionError where the arrays cannot be what they should."""
    n = len(a.images) if a.images.ndim else 0
    _must(
        path,
        a.images,
        "images",
        "uint8 [N, H, W, 1 or 3], none of them 0",
        a.images.dtype == np.uint8
        and a.images.ndim == 4
        and a.images.shape[3] in (1, 3)
        and 0 not in a.images.shape,
    )
    _must(
        path,
        a.split,
        "split",
        f"[{n}], each 0 (train), 1 (validation) or 2 (test)",
        a.split.shape == (n,) and a.split.dtype.kind in "iu" and _within(a.split, 0, len(SPLITS)),
    )
    if a.labels is not None:
        _must(
            path,
            a.labels,
            "labels",
            f"[{n}] whole numbers from 0 ({EMOTIONS[0]}) to {len(EMOTIONS) - 1} ({EMOTIONS[-1]})",
            a.labels.shape == (n,)
            and a.labels.dtype.kind in "iu"
            and _within(a.labels, 0, len(EMOTIONS)),
        )
    if a.votes is not None:
        _must(
            path,
            a.votes,
            "votes",
            f"[{n}, {len(EMOTIONS)}] or [{n}, {len(VOTES)}] finite numbers of 0 and above; "
            f"of {len(VOTES)}, counts",
            a.votes.shape in ((n, len(EMOTIONS)), (n, len(VOTES)))
            and a.votes.dtype.kind in "iuf"
            and _within(a.votes, 0, np.inf)
            # Of ten votes single ones are dropped: of shares nothing would be left.
            and (a.votes.shape[1] == len(EMOTIONS) or a.votes.max(initial=0) > 1),
        )


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return bool(((values >= low) & (values < high)).all())


def _must(path: Path, array: np.ndarray, name: str, be: str, fits: bool) -> None:
    if not fits:
        is_ = f"{array.dtype} {list(array.shape)}"
        if array.size and array.dtype.kind in "iuf":
            is_ += f" from {array.min()} to {array.max()}"
        raise EmotionError(f"'{path}': {name} must be {be}; they are {is_}")


def _encode(image: np.ndarray) -> bytes:
    import cv2

    # A WebP quality above 100 is OpenCV's word for lossless.
    ok, data = cv2.imencode(
        ".webp",
        np.repeat(image, 3, 2) if image.shape[2] == 1 else image[..., ::-1],
        [cv2.IMWRITE_WEBP_QUALITY, 101],
    )
    if not ok:
        raise EmotionError("OpenCV cannot write WebP here; leave --compress out")
    return data.tobytes()


def _decode(path: Path, content: dict[str, np.ndarray]) -> np.ndarray:
    from emotion_jax.images import decode_image

    data, ends = content["pictures"], content["offsets"]
    channels = content.get("channels", np.array(3))
    if (
        data.dtype != np.uint8
        or data.ndim != 1
        or ends.dtype.kind not in "iu"
        or ends.ndim != 1
        or len(ends) < 2
        or ends[0] != 0
        or ends[-1] != len(data)
        or (ends[1:] <= ends[:-1]).any()
        or channels.shape != ()
        or channels.dtype.kind not in "iu"
        or channels not in (1, 3)
    ):
        raise EmotionError(f"'{path}': pictures, offsets and channels do not fit; make it anew")
    images = np.empty(0, np.uint8)
    for i, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        image = decode_image(data[start:end].tobytes(), f"{path}, picture {i}")[..., :channels]
        if i == 0:
            _check_bytes(path, (len(ends) - 1) * image.size)
            images = np.empty((len(ends) - 1, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise EmotionError(
                f"'{path}': picture {i} is {_size(image)}, the first {_size(images[0])}; all must "
                "be of one size"
            )
        images[i] = image
    return images


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def main() -> None:
    """Turns the data of a config into an array file."""
    from absl import flags

    from emotion_jax import command_line
    from emotion_jax.config_check import check_config

    holder = command_line.define_config()
    output = flags.DEFINE_string("output", None, "the .npz file to write", command_line.FLAGS)
    compress = flags.DEFINE_boolean("compress", False, "store lossless WebP", command_line.FLAGS)
    command_line.parse_flags("python -m emotion_jax.data.arrays", __doc__)
    if not Path(output.value or "").name:
        raise EmotionError("no --output; name the .npz file to write, --output=FILE.npz")
    from emotion_jax.data import make_source

    check_config(holder.value)
    _check_writable(output.value)
    source = make_source(holder.value)
    arrays = collect(source)
    save_arrays(output.value, arrays, compress=compress.value)
    counts = {name: int((arrays.split == i).sum()) for i, name in enumerate(SPLITS)}
    print(f"wrote {output.value}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))
    if report := source_report(source):
        print(summary(report))


if __name__ == "__main__":
    from emotion_jax.errors import run

    raise SystemExit(run(main, debug="--debug" in sys.argv))
