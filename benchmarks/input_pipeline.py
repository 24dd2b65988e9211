"""How fast faces come from disk, beside the bare decoder and Keras, and what memory it takes.

    python benchmarks/input_pipeline.py

Writes a false AffectNet (drawn faces in noisy JPEGs of 400 pixels), builds it, and then on the same
faces, with one core and with all:

- limit: the build's pixels are read in the same order into eight batches, used in turns, on a
  thread a core; nothing else. The records are not packed, so there is nothing to decode.
- ours: an epoch of the build in random order, in batches, as training streams it.
- png: OpenCV decodes the same faces as PNGs, out of memory, on a thread a core; nothing else.
- keras: `image_dataset_from_directory` on those PNGs as files.

Of building, the limit decodes the JPEGs as finely as ours does, on a thread a core; nothing else.

Every figure is the median of several rounds, taken in turns, and of reading each contestant has
processes of its own: what one leaves running does not slow the others. Needs Linux, and Keras
beside the project: `pip install -e ".[test]"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reading import BATCH, CONTESTANTS

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
    if flags.pictures < BATCH:
        parser.error(f"--pictures: {flags.pictures} fill no batch; use {BATCH} or more")
    cores = sorted(os.sched_getaffinity(0))
    print(f"{machine()}, {len(cores)} cores; batches of {BATCH}, medians of {flags.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        draw_affectnet(Path(folder) / "affectnet", flags.pictures)
        print(f"\nbuilding from {flags.pictures} JPEGs of {SIDE} pixels, images/s")
        print(f"{'size':>6}{'ours':>9}{'limit':>9}   ratio   (limit: decoding alone, all cores)")
        for size in (64, 224):
            found = ask(task="build", folder=folder, size=size, cores=cores, rounds=flags.rounds)
            ours, limit = found["ours"], found["limit"]
            print(f"{size:>6}{ours:>9.0f}{limit:>9.0f}   {ours / limit:.2f}", flush=True)
        print("\nreading, images/s")
        print(
            f"{'size':>6}{'cores':>6}{'ours':>9}{'limit':>9}{'png':>9}{'keras':>9}"
            f"{'ours/limit':>12}{'ours/png':>11}{'ours/keras':>12}"
        )
        for size in (64, 224):
            for some in dict.fromkeys([tuple(cores[:1]), tuple(cores)]):
                found = read(size, some, folder, flags.rounds)
                line = "".join(f"{found[name]:9.0f}" for name in CONTESTANTS)
                line += f"{found['ours'] / found['limit']:>12.2f}"
                line += f"{found['ours'] / found['png']:>11.1f}"
                print(f"{size:>6}{len(some):>6}{line}{found['ours'] / found['keras']:>12.1f}")
        print("\nmemory at 64 pixels, MB resident")
        print(
            f"{'images':>8}{'the set itself':>16}{'building, peak':>16}"
            f"{'epoch: after 20 batches':>25}{'at its end':>12}{'its peak':>10}"
        )
        for count in (5_000, 50_000):
            words = {"folder": folder, "count": count, "cores": cores}
            # In processes of their own: the memory of building would count.
            peak = ask(task="noise", **words)["peak"]
            found = ask(task="memory", **words)
            print(
                f"{count:>8}{count * 64 * 64 * 3 / 1e6:>16.0f}{peak:>16.0f}"
                "{early:>25.0f}{end:>12.0f}{peak:>10.0f}".format(**found),
                flush=True,
            )


def read(size: int, cores: tuple[int, ...], folder: str, rounds: int) -> dict[str, float]:
    """The contestants' median rates, each in processes of its own, in turns."""
    found: dict[str, list[float]] = {who: [] for who in CONTESTANTS}
    words = {"folder": folder, "size": size, "cores": cores}
    for _ in range(rounds):
        for who, rates in found.items():
            # A process starts in seconds: the fast ones are asked three times.
            times = 3 if who in ("ours", "limit") else 1
            rates.append(float(np.median(ask(task="read", who=who, times=times, **words)["rates"])))
    return {who: float(np.median(rates)) for who, rates in found.items()}


def ask(**words: Any) -> dict[str, Any]:
    """Runs a task in a process of its own, on some cores only."""
    command = [sys.executable, __file__, "--worker", json.dumps(words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def work(task: str, cores: list[int], **words: Any) -> dict[str, Any]:
    # Before TensorFlow counts them.
    os.sched_setaffinity(0, cores)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    tasks = {"build": build_task, "read": read_task, "noise": noise_task, "memory": memory_task}
    return tasks[task](**words)


def build_task(folder: str, size: int, rounds: int) -> dict[str, float]:
    from emotion_jax.data.affectnet import AffectNet
    from emotion_jax.data.builds import build
    from emotion_jax.images import read_reduced

    names = sorted(Path(folder, "affectnet").rglob("*.jpg"))
    source = AffectNet(f"{folder}/affectnet", size)
    decode = partial(read_reduced, most=source.spare(SIDE // 2))
    found: dict[str, list[float]] = {"limit": [], "ours": []}

    def make(cache: Path) -> int:
        return sum(map(len, build(source, cache).targets.values()))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for i in range(rounds):
            found["limit"].append(rate(lambda: sum(1 for _ in pool.map(decode, names))))
            cache = Path(folder, "cache" if i == 0 else f"again{size}")
            found["ours"].append(rate(partial(make, cache)))
            if i:
                shutil.rmtree(cache)
    return {name: float(np.median(rates)) for name, rates in found.items()}


def read_task(who: str, folder: str, size: int, times: int) -> dict[str, list[float]]:
    from emotion_jax.data.affectnet import AffectNet
    from emotion_jax.data.builds import build

    built = build(AffectNet(f"{folder}/affectnet", size), f"{folder}/cache")
    run = CONTESTANTS[who](built, Path(folder))
    run()  # what is made or read only once
    return {"rates": [rate(run) for _ in range(times)]}


class Noise:
    """Any number of faces, quickly, no two alike."""

    name, targets, size, channels = "noise", "label", 64, 3

    def __init__(self, count: int):
        self.count = count

    def options(self) -> dict[str, Any]:
        return {"count": self.count}

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def examples(self, split: str) -> Iterator[Any]:
        rng = np.random.default_rng(0)
        for i in range(self.count):
            yield {"image": rng.integers(0, 256, (64, 64, 3), np.uint8), "label": i % 8}


def noise_task(folder: str, count: int) -> dict[str, float]:
    from emotion_jax.data.builds import build

    build(Noise(count), f"{folder}/cache")
    return {"peak": megabytes("VmHWM")}


def memory_task(folder: str, count: int) -> dict[str, float]:
    from emotion_jax.data.builds import build
    from emotion_jax.data.pipeline import Split, epoch_order, make_feed
    from emotion_jax.labels import one_hot
    from emotion_jax.sharding import make_mesh

    built = build(Noise(count), f"{folder}/cache")
    labels, weight = one_hot(built.targets["train"]), np.ones(count, np.float32)
    split = Split(built.pixels("train"), np.arange(count), labels, weight, built.digests["train"])
    feed, early = make_feed("stream", split, make_mesh()), 0.0
    for i, (batch,) in enumerate(feed(epoch_order(0, 0, count, BATCH))):
        batch["image"].block_until_ready()
        if i == 20:
            early = megabytes("VmRSS")
    return {"early": early, "end": megabytes("VmRSS"), "peak": megabytes("VmHWM")}


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


def megabytes(name: str) -> float:
    """Of this process's memory: "VmRSS" what is resident, "VmHWM" the most that ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
