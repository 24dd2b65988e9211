"""Faces a second for a great many crops: the predictor, in float32 and bfloat16.

    python benchmarks/bulk_inference.py [--faces=4096] [--pictures=4096] [--model=RUN] [--width=1]
        [--output=FILE.json]

From uint8 crops in memory, of the network's own size, to probabilities in memory. Without `--model`
it is a SimpleNetV2 of that width at 64 pixels that has seen nothing: the time is the same. Beside
the predictor: the bare network, its crops already on the device, in batches of the sizes given.
With `--pictures`, a folder of so many JPEGs of 112 pixels, too, a thousand of them and these again
under other names: `predict.py --cropped` from there to a table in a file, and as many threads as it
has that do nothing but decode. Medians of the rounds, taken in turns; each is printed once its last
is over. With `--output`, those of the rounds so far are in a JSON file from the first round on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import commit, device_name, save_table

import emotion_jax as ej
from emotion_jax.errors import run
from emotion_jax.images import read_image, write_image
from emotion_jax.inference import Predictor, make_meta
from emotion_jax.prediction.crops import WORKERS, analyze_crops

# Decoding one a thousand times would find it in the processor's cache; more take long to write.
DISTINCT = 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a workdir, a checkpoint or the name of shipped weights")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--faces", type=int, default=4096)
    parser.add_argument("--pictures", type=int, default=0)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--output", type=Path, help="a JSON file for the medians")
    flags = parser.parse_args()
    given = ej.load_predictor(flags.model) if flags.model else make_predictor(flags.width)
    size = given.spec.size
    faces = np.random.default_rng(0).integers(0, 256, (flags.faces, size, size, 3), np.uint8)
    readers: dict[str, Callable[[], Any]] = {}
    for dtype in flags.dtype:
        model = given.model.clone(dtype=getattr(jnp, dtype))
        predictor = Predictor(model, given.variables, given.spec, meta=given.meta)
        readers[f"predictor, {dtype}"] = partial(predictor, faces)
        for batch in flags.batch:
            if batch <= flags.faces:
                name = f"network alone, {dtype}, batches of {batch}"
                readers[name] = network_alone(predictor, faces, batch)
    name = device_name()
    print(f"{name}; {flags.faces} faces of {size} pixels, medians of {flags.rounds}, faces/s")
    about = {
        "device": name,
        "faces": flags.faces,
        "pixels": size,
        "commit": commit(),
        "versions": {name: version(name) for name in ("jax", "flax")},
    }
    with tempfile.TemporaryDirectory() as folder:
        if flags.pictures:
            readers |= folder_readers(given, Path(folder), flags.pictures)
        measure(readers, flags, about)


def measure(
    readers: dict[str, Callable[[], Any]], flags: argparse.Namespace, about: dict[str, Any]
) -> None:
    """Take the times in turns; print each reader's median as its last round ends."""
    for read in readers.values():
        read()  # compiles
    spent: dict[str, list[float]] = {name: [] for name in readers}
    rates: dict[str, float] = {}
    for left in reversed(range(flags.rounds)):
        for name, read in readers.items():
            begun = time.perf_counter()
            read()
            spent[name].append(time.perf_counter() - begun)
            rates[name] = count_faces(name, flags) / statistics.median(spent[name])
            if not left:
                print(f"{name:<44}{rates[name]:>10.0f}", flush=True)
        if flags.output:
            done = {**about, "rounds": flags.rounds - left, "faces_per_s": rates}
            save_table(done, flags.output)
    first, *others = (read() for name, read in readers.items() if name.startswith("predictor"))
    for other in others:
        print(f"largest difference of a probability: {np.abs(other - first).max():.4f}")


def count_faces(name: str, flags: argparse.Namespace) -> int:
    """How many a reader reads in a call."""
    if "pictures" in name:
        return flags.pictures
    if "batches of" in name:
        batch = int(name.split()[-1])
        return flags.faces // batch * batch
    return flags.faces


def folder_readers(predictor: Predictor, folder: Path, count: int) -> dict[str, Callable[[], Any]]:
    """From a folder of JPEGs, written here, to a table; and their decoding alone."""
    names = write_pictures(folder / "faces", count)
    pool = ThreadPoolExecutor(WORKERS)

    def label() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its summary
            analyze_crops([str(folder / "faces")], predictor, output=folder)

    return {
        f"{count} pictures to a table": label,
        f"{count} pictures decoded alone": lambda: sum(1 for _ in pool.map(read_image, names)),
    }


def write_pictures(folder: Path, count: int) -> list[str]:
    """Write JPEGs, `DISTINCT` of them and then links to these; return their paths."""
    rng, smooth = np.random.default_rng(0), np.ones((16, 16, 1))
    names = [str(folder / f"{i}.jpg") for i in range(count)]
    # Blocks and a little noise: they compress like photographs.
    for name in names[:DISTINCT]:
        image = np.kron(rng.integers(0, 256, (7, 7, 3)), smooth) + rng.normal(0, 4, (112, 112, 3))
        write_image(name, image.clip(0, 255).astype(np.uint8))
    for i, name in enumerate(names[DISTINCT:]):
        os.link(names[i % DISTINCT], name)
    return names


def make_predictor(width: float) -> Predictor:
    """A SimpleNetV2 whose parameters are drawn by chance."""
    model, spec = ej.SimpleNetV2(width=width), ej.ImageSpec(size=64)
    image = jnp.zeros((1, spec.size, spec.size, spec.channels))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), image)
    meta = make_meta("simplenet", {"width": width}, spec)
    return Predictor(model, variables, spec, meta=meta)


def network_alone(predictor: Predictor, faces: np.ndarray, size: int) -> Callable[[], Any]:
    """The network over whole batches that lie on the device; the ragged end is left out."""
    whole = len(faces) // size
    batches = jax.device_put(list(faces[: whole * size].reshape(whole, size, *faces.shape[1:])))
    network = jax.jit(partial(ej.predict_probs, model=predictor.model, spec=predictor.spec))

    def read() -> Any:
        return jax.block_until_ready([network(predictor.variables, batch) for batch in batches])

    return read


if __name__ == "__main__":
    sys.exit(run(main))
