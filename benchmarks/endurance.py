"""Films, a camera and training for as long as people leave them on: does anything pile up?

    python benchmarks/endurance.py film --clip=FILM --minutes=60 --output=film.json
    python benchmarks/endurance.py camera --clip=FILM --minutes=60 --output=camera.json
    python benchmarks/endurance.py training --steps=10000 --output=training.json
    python benchmarks/endurance.py draw film.json camera.json training.json --picture=curves.png

`film` is `predict.py --video`, writing rows and the labelled film; `camera` is `predict.py
--camera` at the film's own pace, recording; both are given a short clip, which ffmpeg repeats
without encoding it anew. `training` is `launch.py` with a narrow network and small batches, a
checkpoint every 50 steps and an evaluation every 100. Every two seconds the system is asked for the
process's resident memory, threads, open handles and child processes. Prints how they changed after
the first tenth of the run, and whether a process was left behind; Linux alone has what is read.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import processor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from emotion_jax.data.arrays import Arrays, save_arrays  # noqa: E402
from emotion_jax.figures import INK, VAL, make_figure, save_figure, style  # noqa: E402

EVERY_S = 2.0
# The share of a run in which libraries are loaded, programs compiled and caches filled.
WARM_UP = 0.1
BATCH, STEPS_PER_EPOCH, CHECKPOINT_EVERY, SIDE = 8, 100, 50, 28
# Of prctl(2): orphans become children of this process, so that none is overlooked.
SUBREAPER = 36

Sample = dict[str, float]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("film", "camera"):
        command = commands.add_parser(name)
        command.add_argument("--clip", type=Path, required=True, help="repeated for as long")
        command.add_argument("--minutes", type=float, default=60.0)
    commands.add_parser("training").add_argument("--steps", type=int, default=10_000)
    for command in commands.choices.values():
        command.add_argument("--output", type=Path, required=True, help="JSON file")
    draw = commands.add_parser("draw")
    draw.add_argument("runs", type=Path, nargs="+", help="JSON files")
    draw.add_argument("--picture", type=Path, required=True, help="PNG file")
    flags = parser.parse_args()
    if flags.command == "draw":
        runs = [json.loads(path.read_text()) for path in flags.runs]
        print("\n".join(map(describe, runs)))
        draw_curves(runs, flags.picture)
        return 0
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        if flags.command == "training":
            run = train(Path(folder), flags.steps)
        else:
            run = watch(Path(folder), flags.clip, flags.minutes, camera=flags.command == "camera")
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_text(json.dumps(run) + "\n")
    print(describe(run))
    return run["status"] or run["left_behind"]


def watch(folder: Path, clip: Path, minutes: float, *, camera: bool) -> dict[str, Any]:
    """Follows `predict.py` through a clip that is repeated for so many minutes."""
    film, output = folder / "long.mp4", folder / "output"
    words = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(clip), "-c", "copy"]
    subprocess.run([*words, "-t", str(60 * minutes), str(film)], check=True)
    program, source = str(ROOT / "predict.py"), [f"--video={film}"]
    if camera:
        source = ["--camera", f"--device={film}", "--noshow"]
    rows = output / "predictions.csv"
    return {
        "name": "camera" if camera else "film",
        "unit": "minutes",
        **follow([program, *source, f"--output={output}"], lambda: _minutes(_last(rows))),
    }


def train(folder: Path, steps: int) -> dict[str, Any]:
    """Follows `launch.py` through so many steps on noise."""
    rng = np.random.default_rng(0)
    count = STEPS_PER_EPOCH * BATCH + 64
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    split = (np.arange(count) >= STEPS_PER_EPOCH * BATCH).astype(np.uint8)
    faces, workdir = folder / "faces.npz", folder / "run"
    save_arrays(faces, Arrays(images, split, labels=rng.integers(0, 8, count)))
    changes = {
        "data.source": "arrays",
        "data.dir": faces,
        "data.feed": "stream",
        "image_size": SIDE,
        "model.width": 1 / 16,
        "batch_size": BATCH,
        "num_epochs": steps // STEPS_PER_EPOCH,
        "checkpoint_every": CHECKPOINT_EVERY,
        "ema_decay": 0.99,
    }
    words = [f"--config.{key}={value}" for key, value in changes.items()]
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    log = workdir / "metrics.jsonl"
    return {
        "name": "training",
        "unit": "steps",
        **follow(
            [str(ROOT / "launch.py"), config, f"--workdir={workdir}", *words],
            lambda: float(json.loads(_last(log) or '{"step": 0}')["step"]),
        ),
    }


def follow(words: list[str], progress: Callable[[], float]) -> dict[str, Any]:
    """Runs a Python program to its end, with a look at it now and then.

    Args:
      words: the program and its flags.
      progress: how far it has come.

    Returns:
      samples, as `look` gives them with `done` and `seconds`; the exit status; how many processes
      it left behind; the machine.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    # This very checkout, wherever it is called from.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, "PYTHONPATH": path})
    samples, begun = list[Sample](), time.monotonic()
    while process.poll() is None:
        if seen := look(process.pid):
            seconds = round(time.monotonic() - begun, 1)
            samples.append({"seconds": seconds, "done": progress(), **seen})
        time.sleep(EVERY_S)
    return {
        "samples": samples,
        "status": process.returncode,
        "left_behind": count_children(os.getpid()),
        "machine": f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


def look(pid: int) -> Sample:
    """A process's MB, threads, open handles and children; {} once it is gone.

    `memory` is what is resident, `allocated` without files that are mapped, such as libraries.
    """
    place = Path(f"/proc/{pid}")
    try:
        lines = [line.split(":", 1) for line in (place / "status").read_text().splitlines()]
        status = {key: value.split()[0] for key, value in lines if value.strip()}
        return {
            "memory": round(int(status["VmRSS"]) * 1024 / 1e6, 2),
            "allocated": round(int(status["RssAnon"]) * 1024 / 1e6, 2),
            "threads": int(status["Threads"]),
            "handles": len(os.listdir(place / "fd")),
            "children": count_children(pid),
        }
    except (FileNotFoundError, ProcessLookupError, KeyError):  # a zombie has no memory
        return {}


def count_children(pid: int) -> int:
    """How many processes a process has started that are still there."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(len((thread / "children").read_text().split()) for thread in threads)


def _last(path: Path) -> str:
    """The last whole line of a file that grows; nothing before there is one."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return whole[-1] if whole else ""


def _minutes(row: str) -> float:
    """The time of a row of `predictions.csv`; none of it is quoted but, perhaps, its source."""
    cells = row.rsplit(",", 17)
    return float(cells[1]) / 60 if len(cells) == 18 and cells[1] != "time_s" else 0.0


def steady(run: dict[str, Any]) -> list[Sample]:
    """The samples after the warm-up."""
    samples = run["samples"]
    return [sample for sample in samples if sample["done"] > WARM_UP * samples[-1]["done"]]


def slope(run: dict[str, Any]) -> float:
    """MB a unit, by least squares over what is steady."""
    done, memory = zip(*((x["done"], x["memory"]) for x in steady(run)), strict=True)
    return statistics.linear_regression(done, memory).slope


def describe(run: dict[str, Any]) -> str:
    """What changed over a run, in a few words."""
    samples, unit = steady(run), run["unit"]
    tenth = max(1, len(samples) // 10)
    first, last = (
        statistics.mean(sample["memory"] for sample in part)
        for part in (samples[:tenth], samples[-tenth:])
    )
    per = {"minutes": 60, "steps": 1000}[unit]
    counts = "; ".join(
        f"{name} {min(values):.0f} to {max(values):.0f}"
        for name in ("threads", "handles", "children")
        for values in [[sample[name] for sample in samples]]
    )
    took = samples[-1]["seconds"] / 60
    return (
        f"{run['name']}: {samples[-1]['done']:.0f} {unit} in {took:.0f} min; "
        f"{first:.0f} MB in the first tenth after warm-up, {last:.0f} MB in the last, "
        f"{per * slope(run):+.2f} MB per {per} {unit}; {counts}; "
        f"{run['left_behind']} processes left behind; status {run['status']}; {run['machine']}"
    )


def draw_curves(runs: list[dict[str, Any]], path: Path) -> None:
    """Memory over the whole of each run, side by side on one scale."""
    figure = make_figure(3.6 * len(runs), 2.6, dpi=80)
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    top = 1.15 * max(sample["memory"] for run in runs for sample in run["samples"])
    for ax, run in zip(axes, runs, strict=True):
        style(ax, run["name"])
        done, memory = zip(*((x["done"], x["memory"]) for x in run["samples"]), strict=True)
        ax.plot(done, memory, color=VAL, lw=1.2)
        ax.set(ylim=(0, top), xlim=(0, max(done)))
        ax.set_xlabel(run["unit"], color=INK, fontsize=9)
    axes[0].set_ylabel("resident memory, MB", color=INK, fontsize=9)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
