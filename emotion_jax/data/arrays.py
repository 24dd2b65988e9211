"""Array files: a whole data set in one `.npz`, for machines without TensorFlow.

    python -m emotion_jax.data.arrays --config=configs/ferplus_narrow.py --output=ferplus.npz

Such a file holds `images` uint8 `[N, H, W, C]`, or the same pictures losslessly compressed
(`pictures` uint8, their bytes end to end, and `offsets` int64 `[N + 1]`); `labels` int `[N]`
or `votes` `[N, 8]` or `[N, 10]` (the orders of `labels.EMOTIONS` and `labels.VOTES`); and,
where it is not one single split, `split` `[N]`: 0 train, 1 validation, 2 test.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emotion_jax.data.sources import Source
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS, VOTES

SPLITS = ("train", "validation", "test")
# A file without `split` is divided by this rule: every tenth face, in a drawn order, validates.
HELD_OUT = 0.1


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Faces in memory: images uint8 `[N, H, W, C]`, labels int `[N]` or votes `[N, K]`, split `[N]`."""

    images: np.ndarray
    split: np.ndarray
    labels: np.ndarray | None = None
    votes: np.ndarray | None = None


def collect(source: Source) -> Arrays:
    """Reads a whole source into memory."""
    examples = [
        (i, e)
        for i, name in enumerate(SPLITS)
        if name in source.splits()
        for e in source.examples(name)
    ]
    if not examples:
        raise EmotionError(f"the source '{source.name}' has no faces")
    targets = np.array([e[source.targets] for _, e in examples])
    return Arrays(
        images=np.stack([e["image"] for _, e in examples]),
        split=np.array([i for i, _ in examples], np.uint8),
        **{"labels" if source.targets == "label" else "votes": targets},
    )


def save_arrays(path: str | Path, arrays: Arrays, *, compress: bool = False) -> None:
    """Writes an array file, whole or not at all; `compress` stores lossless WebP."""
    content: dict[str, np.ndarray] = {"split": arrays.split}
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
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **content)
        os.replace(file.name, path)
    except OSError as error:
        raise EmotionError(
            f"'{path}' cannot be written ({error.strerror}); name another --output"
        ) from error


def load_arrays(path: str | Path) -> Arrays:
    """Reads an array file and checks it; a file without `split` gets a seeded one.

    Raises:
      EmotionError: no such file, not an array file, or arrays that do not belong together.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise EmotionError(
            f"data.dir: no array file '{path}'; python -m emotion_jax.data.arrays makes one"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, AttributeError) as error:
        raise EmotionError(f"'{path}' is not an .npz file of plain arrays ({error})") from error
    if not ("images" in content or {"pictures", "offsets"} <= set(content)):
        raise EmotionError(f"'{path}': no array 'images'; it has {', '.join(content) or 'none'}")
    if ("labels" in content) == ("votes" in content):
        raise EmotionError(
            f"'{path}': needs either 'labels' or 'votes'; it has {', '.join(content)}"
        )
    images = content["images"] if "images" in content else _decode(path, content)
    arrays = Arrays(
        images, _split(content, len(images)), content.get("labels"), content.get("votes")
    )
    _check(path, arrays)
    return arrays


def _split(content: dict[str, np.ndarray], count: int) -> np.ndarray:
    if "split" in content:
        return content["split"]
    order = np.random.default_rng(0).permutation(count)
    split = np.zeros(count, np.uint8)
    split[order[: round(count * HELD_OUT)]] = SPLITS.index("validation")
    return split


def _check(path: Path, a: Arrays) -> None:
    n, shape = len(a.images), a.images.shape
    if a.images.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or not n:
        raise EmotionError(
            f"'{path}': images must be uint8 [N, H, W, 1 or 3], not {a.images.dtype} {shape}"
        )
    if a.split.shape != (n,) or not np.isin(a.split, range(len(SPLITS))).all():
        raise EmotionError(
            f"'{path}': split must hold 0 (train), 1 (validation) or 2 (test) for each of {n} faces"
        )
    if a.labels is not None and (
        a.labels.shape != (n,)
        or not np.issubdtype(a.labels.dtype, np.integer)
        or a.labels.min() < 0
        or a.labels.max() >= len(EMOTIONS)
    ):
        raise EmotionError(
            f"'{path}': labels must be {n} whole numbers, 0 ({EMOTIONS[0]}) to 7 ({EMOTIONS[-1]})"
        )
    if a.votes is not None and (
        a.votes.ndim != 2
        or len(a.votes) != n
        or a.votes.shape[1] not in (len(EMOTIONS), len(VOTES))
        or not np.issubdtype(a.votes.dtype, np.number)
        or not np.isfinite(a.votes).all()
        or a.votes.min() < 0
    ):
        raise EmotionError(
            f"'{path}': votes must be numbers >= 0 of the shape [{n}, 8] or [{n}, 10], not {a.votes.shape}"
        )


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
    if (
        ends.ndim != 1
        or len(ends) < 2
        or ends[0] != 0
        or ends[-1] != len(data)
        or (np.diff(ends) <= 0).any()
    ):
        raise EmotionError(f"'{path}': offsets do not fit pictures; write the file anew")
    channels = int(content.get("channels", 3))

    def pictures() -> Iterator[np.ndarray]:
        for i, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
            yield decode_image(data[start:end].tobytes(), f"{path}, picture {i}")[..., :channels]

    first, *rest = pictures()
    if any(image.shape != first.shape for image in rest):
        raise EmotionError(f"'{path}': its pictures differ in size; write the file anew")
    return np.stack([first, *rest])


def main() -> None:
    """Turns the data of a config into an array file."""
    from absl import flags

    from emotion_jax.config import define_config, parse_flags
    from emotion_jax.data import make_source

    config = define_config()
    output = flags.DEFINE_string("output", None, "the .npz file to write", required=True)
    compress = flags.DEFINE_boolean("compress", False, "store lossless WebP: a third smaller")
    parse_flags("python -m emotion_jax.data.arrays --config=FILE --output=FILE.npz")
    arrays = collect(make_source(config.value))
    save_arrays(output.value, arrays, compress=compress.value)
    counts = {name: int((arrays.split == i).sum()) for i, name in enumerate(SPLITS)}
    print(f"wrote {output.value}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))


if __name__ == "__main__":
    from emotion_jax.errors import run

    raise SystemExit(run(main))
