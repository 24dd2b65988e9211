"""The contestants of `input_pipeline.py`: each returns a function that reads a build's faces once,
as they are told there, and returns how many."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # TensorFlow counts the cores when it is imported, and they are chosen later
    from emotion_jax.data.builds import Build

BATCH = 128


def epoch(built: Build) -> np.ndarray:
    """As long as AffectNet's epochs are: the faces several times over, each time in another order.

    Record numbers, int `[S, BATCH]`.
    """
    count, rng = len(built.targets["train"]) // BATCH * BATCH, np.random.default_rng(0)
    times = max(1, (200_000 if built.shape[0] == 64 else 40_000) // count)
    return np.concatenate([rng.permutation(count) for _ in range(times)]).reshape(-1, BATCH)


def limit(built: Build, folder: Path) -> Callable[[], int]:
    order, places = epoch(built), built.places["train"].tolist()
    names = sorted(built.folder.glob("faces-train.tfrecord-*"))
    files = [os.open(name, os.O_RDONLY) for name in names]
    size = math.prod(built.shape)
    memory = itertools.cycle([np.empty((BATCH, size), np.uint8) for _ in range(8)])

    def take(batch: np.ndarray) -> int:
        for image, number in zip(next(memory), batch.tolist(), strict=True):
            file, start = places[number]
            os.preadv(files[file], [image], start)
        return len(batch)

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    return lambda: sum(pool.map(take, order))


def ours(built: Build, folder: Path) -> Callable[[], int]:
    order, pixels = epoch(built), built.pixels("train")
    return lambda: sum(map(len, pixels.stream(order)))


def png(built: Build, folder: Path) -> Callable[[], int]:
    import cv2

    threads = len(os.sched_getaffinity(0))
    pngs = [np.fromfile(name, np.uint8) for name in write_pngs(built, folder).rglob("*.png")]

    def decode(share: list[np.ndarray]) -> int:
        return sum(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB) is not None for png in share)

    pool = ThreadPoolExecutor(threads)
    return lambda: sum(pool.map(decode, [pngs[i::threads] for i in range(threads)]))


def keras(built: Build, folder: Path) -> Callable[[], int]:
    from keras.utils import image_dataset_from_directory

    root, size = write_pngs(built, folder), built.shape[:2]
    dataset = image_dataset_from_directory(
        root, image_size=size, batch_size=BATCH, seed=0, verbose=False
    )
    return lambda: sum(len(images) for images, _ in dataset)


def write_pngs(built: Build, folder: Path) -> Path:
    """The faces of whole batches as PNGs in a folder for each class, where they are not there."""
    import cv2

    root, labels = folder / f"png{built.shape[0]}", built.targets["train"]
    if not root.exists():
        for label in set(labels):
            (root / str(label)).mkdir(parents=True)
        numbers = np.arange(len(labels) // BATCH * BATCH).reshape(-1, BATCH)
        batches = built.pixels("train").stream(numbers)
        for i, image in enumerate(itertools.chain.from_iterable(batches)):
            cv2.imwrite(f"{root}/{labels[i]}/{i}.png", image[..., ::-1])
    return root


CONTESTANTS = {"ours": ours, "limit": limit, "png": png, "keras": keras}
