"""How fast faces come from disk, beside the bare decoder and Keras, and what memory it takes.

    python benchmarks/input_pipeline.py

Writes a false AffectNet (drawn faces in noisy JPEGs of 400 pixels), builds it, and then on the same
faces, with one core and with all:

- limit: array_record unpacks the build's records in the same order and batches, on a thread a
  core, and their bytes are laid side by side; nothing else.
- ours: an epoch of the build in random order, in batches, as training streams it.
- png: OpenCV decodes the same faces as PNGs, out of memory, on a thread a core; nothing else.
- keras: `image_dataset_from_directory` on those PNGs as files.

Every figure is the median of several rounds, taken in turns. Needs Linux, and Keras beside the
project: `pip install -e ".[test]"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 128
SIDE = 400  # AffectNet's pictures have 425 pixels in the mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        print("\n" + json.dumps(work(**json.loads(flags.worker))))
        return
    cores = sorted(os.sched_getaffinity(0))
    print(f"{machine()}, {len(cores)} cores; batches of {BATCH}, medians of {flags.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        draw_affectnet(Path(folder) / "affectnet", flags.pictures)
        print(f"\nbuilding from {flags.pictures} JPEGs of {SIDE} pixels, images/s")
        print(f"{'size':>6}{'ours':>9}{'limit':>9}   ratio   (limit: decoding alone, all cores)")
        for size in (64, 224):
            found = ask(task="build", folder=folder, size=size, cores=cores)
            ours, limit = found["ours"], found["limit"]
            print(f"{size:>6}{ours:>9.0f}{limit:>9.0f}   {ours / limit:.2f}", flush=True)
        print("\nreading, images/s")
        print(
            f"{'size':>6}{'cores':>6}{'ours':>9}{'limit':>9}{'png':>9}{'keras':>9}"
            f"{'ours/limit':>12}{'ours/png':>11}{'ours/keras':>12}"
        )
        for size in (64, 224):
            for some in dict.fromkeys([tuple(cores[:1]), tuple(cores)]):
                words = {"folder": folder, "size": size, "cores": some, "rounds": flags.rounds}
                found = ask(task="read", **words)
                line = "".join(f"{found[name]:9.0f}" for name in ("ours", "limit", "png", "keras"))
                line += f"{found['ours'] / found['limit']:>12.2f}"
                line += f"{found['ours'] / found['png']:>11.1f}"
                print(f"{size:>6}{len(some):>6}{line}{found['ours'] / found['keras']:>12.1f}")
        print("\nmemory of a streamed epoch at 64 pixels, MB resident")
        print(f"{'images':>8}{'after 20 batches':>18}{'at the end':>12}{'the set itself':>16}")
        for times in (1, 10):
            # Twice: the first process builds, and its memory would count.
            _, found = (ask(task="memory", folder=folder, times=times, cores=cores) for _ in "ab")
            print("{images:>8}{early:>18.0f}{peak:>12.0f}{set:>16.0f}".format(**found), flush=True)


def ask(**words: Any) -> dict[str, float]:
    """Runs a task in a process of its own, on some cores only."""
    command = [sys.executable, __file__, "--worker", json.dumps(words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def work(task: str, cores: list[int], **words: Any) -> dict[str, float]:
    # Before TensorFlow counts them.
    os.sched_setaffinity(0, cores)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return {"build": build_task, "read": read_task, "memory": memory_task}[task](**words)


def build_task(folder: str, size: int) -> dict[str, float]:
    from emotion_jax.data.affectnet import AffectNet
    from emotion_jax.data.builds import build
    from emotion_jax.images import read_image

    names = sorted(Path(folder, "affectnet").rglob("*.jpg"))
    with ThreadPoolExecutor() as pool:
        limit = rate(lambda: sum(1 for _ in pool.map(read_image, names)))
    source = AffectNet(f"{folder}/affectnet", size)
    ours = rate(lambda: sum(map(len, build(source, f"{folder}/cache").targets.values())))
    return {"ours": ours, "limit": limit}


def read_task(folder: str, size: int, rounds: int) -> dict[str, float]:
    import cv2
    import keras

    from emotion_jax.data.affectnet import AffectNet
    from emotion_jax.data.builds import RecordPixels, build

    built = build(AffectNet(f"{folder}/affectnet", size), f"{folder}/cache")
    pixels = RecordPixels(built.folder, "train")
    count = len(pixels) // BATCH * BATCH
    labels = built.targets["train"][:count]
    images = np.concatenate(list(pixels.stream(np.arange(count).reshape(-1, BATCH))))
    pngs = [cv2.imencode(".png", image[..., ::-1])[1] for image in images]
    del images
    root = Path(folder, f"png{size}")
    for i, (png, label) in enumerate(zip(pngs, labels, strict=True)):
        place = root / str(label) / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.write_bytes(png.tobytes())
    # AffectNet's epochs are long: its faces several times over, in another order each time.
    times = max(1, (20_000 if size == 64 else 5_000) // count)
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(count) for _ in range(times)]).reshape(-1, BATCH)
    threads = len(os.sched_getaffinity(0))
    shares = [pngs[i::threads] for i in range(threads)]
    dataset = keras.utils.image_dataset_from_directory(
        root, image_size=(size, size), batch_size=BATCH, seed=0, verbose=False
    ).repeat(times)

    def decode(share: list[np.ndarray]) -> int:
        return sum(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB).shape[0] // size for png in share)

    def unpack(batch: np.ndarray) -> int:
        assert b"".join(pixels.records.__getitems__(batch.tolist()))
        return len(batch)

    with ThreadPoolExecutor(threads) as pool:
        contestants: dict[str, Callable[[], int]] = {
            "limit": lambda: sum(pool.map(unpack, order)),
            "png": lambda: sum(pool.map(decode, shares)),
            "ours": lambda: sum(map(len, pixels.stream(order))),
            "keras": lambda: sum(len(images) for images, _ in dataset),
        }
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, run in contestants.items():
                found[name].append(rate(run))
    return {name: float(np.median(rates)) for name, rates in found.items()}


class Repeated:
    """The faces of a source, several times over."""

    def __init__(self, source: Any, times: int):
        self.source, self.times = source, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def options(self) -> dict[str, Any]:
        return {**self.source.options(), "times": self.times}

    def examples(self, split: str) -> Iterator[Any]:
        for _ in range(self.times):
            yield from self.source.examples(split)


def memory_task(folder: str, times: int) -> dict[str, float]:
    from emotion_jax.data.affectnet import AffectNet
    from emotion_jax.data.builds import RecordPixels, build

    repeated = Repeated(AffectNet(f"{folder}/affectnet", 64), times)
    built = build(repeated, f"{folder}/cache")
    pixels = RecordPixels(built.folder, "train")
    count = len(pixels) // BATCH * BATCH
    order = np.random.default_rng(0).permutation(count).reshape(-1, BATCH)
    early = 0.0
    for i, _ in enumerate(pixels.stream(order)):
        if i == 20:
            early = peak_megabytes()
    size = count * 64 * 64 * 3 / 1e6
    return {"images": count, "early": early, "peak": peak_megabytes(), "set": size}


def draw_affectnet(root: Path, count: int) -> None:
    """A false AffectNet in the layout of 2017: noisy pictures, which compress like photographs."""
    from PIL import Image

    from emotion_jax.data.drawing.faces import draw_face

    place, half = root / "Manually_Annotated_Images" / "1", SIDE // 2
    place.mkdir(parents=True)
    faces = [draw_face(i, i % 8, i, size=half) for i in range(64)]

    def write(i: int) -> str:
        rng = np.random.default_rng(i)
        picture = np.full((SIDE, SIDE, 3), 128.0)
        picture[half // 2 : -half // 2, half // 2 : -half // 2] = faces[i % 64]
        picture += rng.normal(0, 4, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(place / f"{i}.jpg", quality=90)
        return f"1/{i}.jpg,{half // 2},{half // 2},{half},{half},,{i % 8},0,0\n"

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(write, range(count)))
    (root / "training.csv").write_text("".join(rows))


def rate(run: Callable[[], int]) -> float:
    begun = time.perf_counter()
    return run() / (time.perf_counter() - begun)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
