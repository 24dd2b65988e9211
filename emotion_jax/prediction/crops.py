"""Pictures that are faces already, cut out: any number of them to a table."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Sequence

import numpy as np

from emotion_jax import images
from emotion_jax.classifying import Predictor
from emotion_jax.errors import EmotionError
from emotion_jax.faces import Face
from emotion_jax.host.threads import CORES, batched, map_ahead
from emotion_jax.prediction.paths import all_failed, find_all
from emotion_jax.prediction.pictures import Summary, keep_readable
from emotion_jax.rows import Row, RowWriter, make_row

# Faces in a call of the network and in a write: enough to fill a GPU, and on two cores of a CPU a
# second of a narrow network.
BATCH = 256
# Pictures that are read at a time.
WORKERS = min(CORES, 16)


@dataclasses.dataclass(frozen=True)
class Crop:
    """A face that is a picture.

    Attributes:
      source: its path.
      size: height and width of the picture.
      pixels: uint8 `[S, S, 3]`, RGB, as large as the network wants it.
    """

    source: str
    size: tuple[int, int]
    pixels: np.ndarray

    def row(self, probabilities: np.ndarray) -> Row:
        """Make its row: the box is the whole picture, and nobody detected it."""
        face = Face(0, 0, self.size[1], self.size[0], math.nan)
        return make_row(face, probabilities, source=self.source, size=self.size, index=0)


def analyze_crops(
    paths: Sequence[str],
    predictor: Predictor,
    *,
    output: str | os.PathLike[str] | None = None,
    format: str = "csv",
) -> Summary:
    """Read the emotions of many faces that are cut out already, a row each.

    A picture is squeezed to the network's square, as a folder's pictures are for training. While
    one batch is classified the next is read. A file that cannot be read is skipped. A summary, with
    what was skipped and why, goes to standard error.

    Args:
      paths: files, folders and globs; see `paths.find_images`. What is met twice is read once.
      predictor: from `load_predictor`; called once for every `BATCH` faces.
      output: a folder, made if need be, for `predictions.csv` (or .jsonl). Without it rows go to
        standard output, and nothing else does.
      format: of the rows: "csv" or "jsonl".

    Returns:
      the counts.

    Raises:
      EmotionError: nothing could be read, or something cannot be written.
    """
    sources, skipped = find_all(paths)
    read = functools.partial(_read, size=predictor.spec.size)
    table = None if output is None else os.path.join(output, f"predictions.{format}")
    written = 0
    ahead = 2 * BATCH
    with contextlib.closing(map_ahead(read, sources, threads=WORKERS, ahead=ahead)) as results:
        readable = keep_readable((result() for result in results), skipped)
        batches = batched(readable, BATCH)
        first = next(batches, None)
        if first is None:  # before any file is opened for writing: what an earlier run left stays
            raise EmotionError(all_failed(skipped))
        with RowWriter(table, format=format) as writer:
            for crops in itertools.chain([first], batches):
                probabilities = predictor(np.stack([crop.pixels for crop in crops]))
                pairs = zip(crops, probabilities, strict=True)
                writer.write([crop.row(answer) for crop, answer in pairs])
                written += len(crops)
                if not writer.wanted:
                    break
    summary = Summary(written, written, 0, tuple(skipped))
    summary.tell(output)
    return summary


def _read(source: str, *, size: int) -> Crop | EmotionError:
    try:
        image = images.read_image(source)
    except EmotionError as error:
        return error
    return Crop(source, image.shape[:2], images.resize(image, size, size))
