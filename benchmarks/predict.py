"""A film read by predict.py and by the package `fer`, from the shell to the last row.

    python benchmarks/predict.py FILM --peer=OTHER/bin/python

OTHER is an environment of its own with `fer` (`pip install fer 'opencv-contrib-python<5'
'setuptools<81'`: OpenCV 5 has no Haar cascades, and it imports pkg_resources). Both programs read
every frame, find its faces, read their emotions, draw them, and write a table and a film; ours also
tells people apart, keeps the sound and plots a timeline. They take turns, and the medians count:
seconds from the start of the process to the first row, frames a second from there to the end of the
process, and the most memory it held. "first start" is ours where nothing was compiled before. Then
what each stage of ours takes, alone: most frames are searched for the faces known alone ("detect
known"), and the timeline is drawn once, at the end.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from emotion_jax.errors import EmotionError, run

ROOT = Path(__file__).resolve().parents[1]

# What fer's own README does with a picture, for each frame: TensorFlow Lite and the Haar cascade.
PEER = """
import csv, os, sys
import cv2
from fer.fer import FER
film, output = sys.argv[1:]
detector = FER()
reader = cv2.VideoCapture(film)
size = [int(reader.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
code, rate = cv2.VideoWriter_fourcc(*"mp4v"), reader.get(cv2.CAP_PROP_FPS)
writer = cv2.VideoWriter(os.path.join(output, "film.mp4"), code, rate, size)
with open(os.path.join(output, "predictions.csv"), "w") as file:
    table = csv.writer(file)
    table.writerow(["frame", "x", "y", "width", "height"])
    file.flush()
    frame, number = reader.read()[1], 0
    while frame is not None:
        for face in detector.detect_emotions(frame):
            x, y, width, height = map(int, face["box"])
            table.writerow([number, x, y, width, height, *face["emotions"].values()])
            cv2.rectangle(frame, (x, y), (x + width, y + height), (0, 255, 0), 2)
            for i, (name, value) in enumerate(face["emotions"].items()):
                line = f"{name} {value:.2f}"
                at = (x + width + 5, y + 15 * i)
                cv2.putText(frame, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 255, 0))
        file.flush()
        writer.write(frame)
        frame, number = reader.read()[1], number + 1
writer.release()
"""


def main() -> None:
    """Run both in turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("film", type=Path)
    parser.add_argument("--peer", help="the Python of an environment with fer")
    parser.add_argument("--model", help="as of predict.py")
    parser.add_argument("--runs", type=int, default=5)
    flags = parser.parse_args()
    model = [f"--model={flags.model}"] if flags.model else []
    ours = [sys.executable, str(ROOT / "predict.py"), f"--video={flags.film}", *model]
    commands = {
        "predict.py": lambda output: [*ours, f"--output={output}"],
        "first start": lambda output: [
            *("env", f"XDG_CACHE_HOME={output}/cache"),
            *(*ours, f"--output={output}"),
        ],
    }
    measure(commands["predict.py"])  # compiled
    if flags.peer:
        commands["fer"] = lambda output: [flags.peer, "-c", PEER, str(flags.film), output]
    runs: dict[str, list[tuple[float, ...]]] = {name: [] for name in commands}
    for _ in range(flags.runs):
        for name, command in commands.items():
            runs[name].append(measure(command))
    print(
        f"{flags.film.name}; {platform.machine()}, {os.cpu_count()} cores; {flags.runs} runs each"
    )
    print(f"{'':12}{'first row':>12}{'frames/s':>10}{'whole':>9}{'memory':>10}{'with a face':>14}")
    for name, results in runs.items():
        first, rate, whole, memory, frames = map(statistics.median, zip(*results, strict=True))
        print(
            f"{name:12}{first:>10.2f} s{rate:>10.1f}{whole:>7.2f} s{memory:>7.0f} MB{frames:>14.0f}"
        )
    print("\nms a frame, each stage alone: " + ", ".join(time_stages(flags.film, flags.model)))


def measure(command: Callable[[str], list[str]]) -> tuple[float, ...]:
    """Run a program; seconds to the first row, frames/s, seconds in all, MB, frames with a face."""
    with tempfile.TemporaryDirectory() as output:
        table, start, first = Path(output) / "predictions.csv", time.perf_counter(), 0.0
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command(output), stdout=said, stderr=said)
            status = pid = 0
            while not pid:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if not first and table.exists() and table.read_bytes().count(b"\n") > 1:
                    first = time.perf_counter() - start
                time.sleep(0.01)
            whole = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode or not first:
                said.seek(0)
                raise EmotionError(f"{command(output)[0]}: {said.read().decode()[-500:]}")
        rows = list(csv.DictReader(table.read_text().splitlines()))
        frames = len({row["frame"] for row in rows})
        last = max(int(row["frame"]) for row in rows)
        memory = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
        return first, last / (whole - first), whole, memory, frames


def time_stages(film: Path, model: str | None) -> Iterable[str]:
    """The milliseconds a frame of reading, detecting, classifying, drawing and writing."""
    import emotion_jax as ej
    from emotion_jax import draw
    from emotion_jax.prediction.film import choose_min_face
    from emotion_jax.prediction.timeline import Timeline, plot_timeline
    from emotion_jax.video import FilmReader, FilmWriter
    from emotion_jax.weights import FAST

    predictor, reader = ej.load_predictor(model or FAST), FilmReader(str(film))
    timeline = Timeline()
    predictor(np.zeros((1, 64, 64, 3), np.uint8))  # compiled
    finder = ej.Finder(min_face=choose_min_face(reader.size))
    spent: dict[str, float] = {}

    def timed(stage: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - start
        return result

    frames, count = iter(reader.frames()), 0
    with tempfile.TemporaryDirectory() as folder:
        with FilmWriter(os.path.join(folder, "film.mp4"), rate_hint=reader.rate) as writer:
            while frame := timed("read", next, frames, None):
                found = timed("detect", finder.detect, frame.image)
                timed("detect known", finder.narrow(found).detect, frame.image)
                crops = timed("crop", finder.crop, frame.image, found, predictor.spec)
                answers = timed("classify", predictor, crops)
                drawn = timed("draw", draw.annotate, frame.image, found, answers)
                timed("write", writer.write, drawn, frame.time_s)
                timeline.add(range(len(found)), answers, frame.time_s)
                count += 1
        stages = [f"{stage} {1000 * seconds / count:.1f}" for stage, seconds in spent.items()]
        if timeline.people():
            timed("timeline", plot_timeline, timeline, os.path.join(folder, "timeline.png"))
            stages.append(f"the timeline, once, {1000 * spent['timeline']:.0f}")
    return stages


if __name__ == "__main__":
    sys.exit(run(main))
