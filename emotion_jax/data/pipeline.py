"""From faces to batches on the device: an epoch's order, and the two ways to feed it.

Both feeds yield arguments, and `select`, which belongs inside the jitted step, turns them into
the batch: a stream's arguments are the batch itself, those of a resident set the whole set and
the numbers to pick from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from emotion_jax import sharding
from emotion_jax.errors import EmotionError
from emotion_jax.preprocess import Batch

PADDING = -1
# Of a device's memory, what a resident set may take: the network needs the rest.
MEMORY_SHARE = 1 / 3


class Pixels(Protocol):
    """Pictures by number."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def stream(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields uint8 `[B, H, W, C]` for each line of numbers `[S, B]`, in their order."""


class ArrayPixels:
    """Pictures in memory."""

    def __init__(self, images: np.ndarray):
        self.images, self.shape = images, images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def stream(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        return (self.images[batch] for batch in rows)


@dataclasses.dataclass(frozen=True)
class Split:
    """Faces to train or to evaluate on.

    Attributes:
      pixels: of every record, the unused ones too.
      rows: the records that count, int64 `[N]`.
      labels: their distributions over the emotions, float32 `[N, K]`.
      weight: of each in the loss and the metrics, float32 `[N]`.
      marks: of their pictures, uint64 `[N]`; see `selection.digests`.
    """

    pixels: Pixels
    rows: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    marks: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> np.ndarray:
        """Faces a class, `[K]`, by the largest share of each label."""
        return np.bincount(self.labels.argmax(1), minlength=self.labels.shape[1])

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """The pictures of these places in the split, uint8 `[len(numbers), H, W, C]`."""
        return next(iter(self.pixels.stream(self.rows[numbers][None])))


def epoch_order(seed: int, epoch: int, count: int, batch_size: int) -> np.ndarray:
    """An epoch's batches: a permutation by (seed, epoch) alone, its ragged end left out.

    Returns:
      int32 `[count // batch_size, batch_size]`, places in the split.
    """
    key = jax.random.fold_in(jax.random.key(seed), epoch)
    order = np.asarray(jax.random.permutation(key, count), np.int32)
    steps = count // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def evaluation_order(count: int, batch_size: int) -> np.ndarray:
    """Every face once, in order, the last batch filled up with `PADDING`.

    Returns:
      int32 `[ceil(count / batch_size), batch_size]`, places in the split.
    """
    order = np.full(-(-count // batch_size) * batch_size, PADDING, np.int32)
    order[:count] = np.arange(count)
    return order.reshape(-1, batch_size)


class Stream:
    """Feeds batches one by one as the host decodes them; each process reads its own share."""

    def __init__(self, split: Split, mesh: Mesh):
        self.split, self.mesh = split, mesh

    def __call__(self, order: np.ndarray, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yields the arguments of each step of `order` from step `start` on."""
        share = order.shape[1] // jax.process_count()
        first = share * jax.process_index()
        mine = order[start:, first : first + share]
        if not len(mine):
            return
        # Skipped steps are never decoded; padding shows the first face, with no weight.
        places = np.maximum(mine, 0)
        images = self.split.pixels.stream(self.split.rows[places])
        for numbers, at, image in zip(mine, places, images, strict=True):
            batch = {
                "image": image,
                "label": self.split.labels[at],
                "weight": np.where(numbers == PADDING, 0, self.split.weight[at]),
            }
            yield (sharding.shard_batch(self.mesh, batch),)

    @staticmethod
    def select(batch: Batch) -> Batch:
        """The batch, as it came."""
        return batch


class Resident:
    """Keeps the whole uint8 set on every device and picks each batch from it inside the step."""

    # Pictures decoded at a time while the set is loaded.
    CHUNK = 256

    def __init__(self, split: Split, mesh: Mesh):
        self.split, self.mesh = split, mesh
        order = np.maximum(evaluation_order(len(split), self.CHUNK), 0)
        images = np.empty((order.size, *split.pixels.shape), np.uint8)
        for i, chunk in enumerate(split.pixels.stream(split.rows[order])):
            images[i * self.CHUNK : (i + 1) * self.CHUNK] = chunk
        data = {"image": images[: len(split)], "label": split.labels, "weight": split.weight}
        self.data = sharding.replicate(mesh, data)

    def __call__(self, order: np.ndarray, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yields the arguments of each step of `order` from step `start` on."""
        on_device = sharding.replicate(self.mesh, order)
        for i in range(start, len(order)):
            yield self.data, on_device, np.int32(i)

    def select(self, data: Batch, order: jax.Array, step: jax.Array) -> Batch:
        """Picks the batch of one step, split over the mesh."""
        numbers = jax.lax.with_sharding_constraint(order[step], sharding.batch_sharding(self.mesh))
        batch = {name: x[jnp.maximum(numbers, 0)] for name, x in data.items()}
        return {**batch, "weight": jnp.where(numbers == PADDING, 0, batch["weight"])}


def choose_feed(splits: Iterable[Split], mesh: Mesh) -> str:
    """The feed that `data.feed=auto` means: "resident" where the pictures fit, else "stream"."""
    size = sum(len(split) * math.prod(split.pixels.shape) for split in splits)
    return "resident" if size <= MEMORY_SHARE * sharding.memory(mesh) else "stream"


def make_feed(name: str, split: Split, mesh: Mesh) -> Stream | Resident:
    """Builds the feed "stream" or "resident"."""
    if name not in ("stream", "resident"):
        raise EmotionError(f"data.feed: '{name}'; use stream or resident")
    return Stream(split, mesh) if name == "stream" else Resident(split, mesh)
