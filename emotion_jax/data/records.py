"""Faces as records: written by TensorFlow Datasets, read at random, streamed by tf.data.

A record is a serialized `tf.train.Example` in a TFRecord file, its pixels as they are. So a face is
read by one call of the system, from where it lies straight to its place in the batch; PNGs take
half the room, and ten times as long or more to decode (docs/performance.md). But for
`affectnet_builder`, this is the only file that imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from emotion_jax.data.sources import Example, Source
from emotion_jax.data.threads import THREADS
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS, VOTES

# Before the import: banners are no news, and TensorFlow only moves bytes here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

try:
    import tensorflow as tf
    import tensorflow_datasets as tfds
except ImportError as error:
    raise EmotionError(
        f"reading this source needs TensorFlow Datasets ({error}); install it, or train from an "
        "array file, which needs neither (python -m emotion_jax.data.arrays makes one)"
    ) from error

NAME, VERSION = "faces", "1.0.0"
# Of a file of records, as TFDS has it: large enough that few are open, small enough to be moved.
SHARD_BYTES = 1 << 30
# An element of tf.data costs 0.2 to 0.4 ms, whatever it holds: as much as reading 40 to 80 faces of
# 64 pixels.
# Batches that are smaller than this travel several at a time.
ELEMENT_BYTES = 8 << 20
# A record in a TFRecord file: its length (8 bytes), a checksum (4), the record, a checksum (4).
_LENGTH, _BEFORE, _AFTER = 8, 12, 4
# The pixels begin within so many bytes of a record: what may stand before them is a label or ten
# votes, and two numbers.
_HEAD = 1024


def features(source: Source) -> tfds.features.FeaturesDict:
    """What TFDS is told of a source's examples."""
    target = (
        tfds.features.ClassLabel(names=EMOTIONS)
        if source.targets == "label"
        else tfds.features.Tensor(shape=(len(VOTES),), dtype=np.uint8)
    )
    image = tfds.features.Tensor(shape=picture_shape(source), dtype=np.uint8, encoding="bytes")
    extras = {name: np.float32 for name in getattr(source, "extras", ())}
    return tfds.features.FeaturesDict({"image": image, source.targets: target, **extras})


def picture_shape(source: Source) -> tuple[int, int, int]:
    """Of a source's pictures: height, width, channels."""
    return source.size, source.size, source.channels


class RecordWriter:
    """Writes a source as a TFDS data set into a folder, in the source's order."""

    def __init__(self, folder: Path, source: Source):
        self._folder, self._shape = folder, picture_shape(source)
        identity = tfds.core.DatasetIdentity(
            name=NAME, version=VERSION, data_dir=str(folder), module_name=__name__
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            features=features(source),
            supervised_keys=("image", source.targets),
            disable_shuffling=True,
        )
        # Not TFDS's builder of generators: without shuffling that holds a whole split in memory.
        self._writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=SHARD_BYTES // math.prod(self._shape)
        )
        with _system_errors():
            self._writer.initialize_splits(list(source.splits()))

    def write(self, split: str, examples: Iterable[Example]) -> np.ndarray:
        """Writes a whole split; returns the places of its pixels, as `RecordPixels` has them."""
        with _system_errors():
            self._writer.add_examples({split: examples})
            self._writer.close_splits([split])
        header, places = _image_header(math.prod(self._shape)), []
        for number, path in enumerate(_shards(self._folder, split)):
            with path.open("rb", buffering=0) as file:
                at = 0
                while head := os.pread(file.fileno(), _HEAD, at):
                    places.append((number, at + head.index(header) + len(header)))
                    at += _BEFORE + int.from_bytes(head[:_LENGTH], "little") + _AFTER
        return np.array(places, np.int64).reshape(-1, 2)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raises what TensorFlow says of a full disk, and of others that fail, as an OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError)
        code = errno.ENOSPC if full else errno.EIO
        reason = os.strerror(code) if full else (error.message.splitlines() or ["failed"])[0]
        raise OSError(code, reason) from error


def _shards(folder: Path, split: str) -> list[Path]:
    return sorted(folder.glob(f"{NAME}-{split}.tfrecord-*"))


def _image_header(size: int) -> bytes:
    """What stands before the pixels in a serialized `tf.train.Example`: a name and lengths."""
    pixels = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(size)]))
    example = tf.train.Example(features=tf.train.Features(feature={"image": pixels}))
    start = example.SerializeToString()[:-size]
    return start[start.index(b"\n\x05image") :]


class _Buffers:
    """Memory for pixels, used again once nobody refers to it: fresh pages take their time."""

    def __init__(self, size: int):
        self._size = size
        self._free: list[mmap.mmap] = []

    def take(self) -> np.ndarray:
        """uint8 `[size]`, whatever stands there; on a page's boundary, as elsewhere TensorFlow and
        JAX would copy it."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = mmap.mmap(-1, self._size)
        array = np.frombuffer(memory, np.uint8)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array


class RecordPixels:
    """The pictures of one split, read by record number through tf.data.

    Attributes:
      places: of each record's pixels, int64 `[N, 2]`: the number of the file and the byte in it.
      shape: of a picture.
    """

    def __init__(self, folder: Path, split: str, places: np.ndarray, shape: tuple[int, ...]):
        """Opens the split's files.

        Raises:
          EmotionError: one is not there.
        """
        self.places, self.shape, self._folder = places, shape, folder
        try:
            self._files = [path.open("rb", buffering=0) for path in _shards(folder, split)]
        except OSError as error:
            raise damaged(folder) from error
        if len(self._files) <= places[:, 0].max(initial=-1):
            raise damaged(folder)

    def __len__(self) -> int:
        return len(self.places)

    def fill(self, images: np.ndarray, numbers: np.ndarray) -> None:
        """Reads records `[B]` into uint8 `[B, H * W * C]`.

        Raises:
          EOFError: one is cut off.
          OSError: one cannot be read.
        """
        numbers_of_files, starts = self.places[numbers].T.tolist()
        files = [file.fileno() for file in self._files]
        for image, file, start in zip(images, numbers_of_files, starts, strict=True):
            # By numbers and not through a map of the file, which would count as memory, and kill
            # the process where the disk fails.
            if os.preadv(files[file], [image], start) != len(image):
                raise EOFError

    def stream(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields uint8 `[B, H, W, C]` for each line of record numbers `[S, B]`, in their order."""
        size = math.prod(self.shape)
        lines = max(1, ELEMENT_BYTES // max(1, rows.shape[1] * size))
        buffers = _Buffers(lines * max(1, rows.shape[1] * size))

        def read(numbers: np.ndarray) -> np.ndarray:
            images = buffers.take()[: numbers.size * size].reshape(-1, size)
            self.fill(images, numbers.ravel())
            return images.reshape(*numbers.shape, *self.shape)

        def load(numbers: tf.Tensor) -> tf.Tensor:
            return tf.numpy_function(read, [numbers], tf.uint8)

        data = tf.data.Dataset.from_tensor_slices(rows.astype(np.int64)).batch(lines)
        # A thread for each core, and two elements more than threads: whoever is done goes on with
        # the next one, and does not wait until somebody has taken away the last.
        options = tf.data.Options()
        options.threading.private_threadpool_size = THREADS
        # Nothing is left to tune: tf.data's own tuning begins with one thread, learns slowly, and
        # takes a fifth of the time for itself.
        options.autotune.enabled = False
        data = data.map(load, THREADS + 2, deterministic=True).prefetch(2).with_options(options)
        try:
            for batches in data.as_numpy_iterator():
                yield from batches
        except tf.errors.OpError as error:  # what `fill` raises
            raise damaged(self._folder) from error


def damaged(folder: Path) -> EmotionError:
    """The error of a build that is not whole."""
    return EmotionError(f"the build '{folder}' is damaged; delete it, and it is built anew")
