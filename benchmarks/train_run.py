"""How much of the bare step's speed a whole run keeps, streamed and resident.

    python benchmarks/train_run.py [--config=configs/quickstart.py] [--faces=20480]
        [--set KEY=VALUE ...] [--output=FILE_OR_FOLDER]

Trains through the same function as `launch.py`, augmentation, evaluation and checkpoints included,
a process for each feed. Beside it, the bare step: the same compiled function on one batch that
stays on the device. Columns, faces/s: the bare step; the run's training alone, as its log says;
epochs from end to end, evaluation and checkpoint included. The first epoch, which compiles, is left
out.

With TensorFlow the faces are drawn people in a build, read from its records as they stream. Without
it they are noise in an array file, and streaming only carries them to the device.

The rows are written to `--output` as they come, by default
`benchmarks/results/train_run-<device>.json`, with the versions and the commit; outside a checkout
the environment's COMMIT names the code.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measuring import commit, device_name, results_path, save_table, serve, time_steps
from running import parse_overrides

from emotion_jax.errors import run

HERE = Path(__file__).parent
# Every drawn person has eight faces, in both splits, and one is an eighth of the other.
MULTIPLE = 64
# What this script says itself: by its flags, by the two feeds, and of the faces that it makes.
FACES = {"holdout": 0.0, "train_images": 0, "class_cap": 0, "num_classes": 8}
OWN = {"num_epochs"} | {
    f"data.{key}"
    for key in ("feed", "source", "dir", "cache_dir", "train_faces", "val_faces", *FACES)
}


def main() -> int:
    """Measure both feeds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(HERE.parent / "configs" / "quickstart.py"))
    parser.add_argument("--faces", type=int, default=20_480, help="to train on; an eighth more")
    parser.add_argument("--epochs", type=int, default=3, help="the first is not counted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    default = HERE / "results"
    parser.add_argument(
        "--output", type=Path, default=default, help="a .json file, or a folder for it"
    )
    flags = parser.parse_args()
    if flags.epochs < 2:
        parser.error("--epochs: the first is not counted; give 2 or more")
    if flags.faces < MULTIPLE or flags.faces % MULTIPLE:
        parser.error(f"--faces: people are drawn in full; give a multiple of {MULTIPLE}")
    # What is wrong in them is told at once.
    for key in parse_overrides(flags.changes, flags.config, "--set").keys() & OWN:
        parser.error(f"--set {key}: this script sets it itself, the numbers by --faces, --epochs")
    rows: list[dict[str, Any]] = []
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        words = {"config": flags.config, "faces": flags.faces, "epochs": flags.epochs}
        for feed in ("resident", "stream"):
            request = json.dumps({**words, "changes": flags.changes, "feed": feed, "at": folder})
            command = [sys.executable, __file__, request]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                status = done.returncode
                break
            rows.append({"feed": feed, **json.loads(done.stdout.splitlines()[-1])})
            # At once: what comes next may fail, or be stopped.
            save(rows, flags)
            show(rows[-1], head=len(rows) == 1)
    return status


def save(rows: list[dict[str, Any]], flags: argparse.Namespace) -> None:
    """Writes the rows so far, and what they are of."""
    path = results_path(flags.output, "train_run", rows[0]["device"])
    table = {
        "device": rows[0]["device"],
        "config": Path(flags.config).name,
        "changes": flags.changes,
        "commit": commit(),
        "versions": {name: version(name) for name in ("jax", "flax", "optax")},
        "rows": rows,
    }
    save_table(table, path)


def show(row: dict[str, Any], *, head: bool) -> None:
    """Prints a line of the table, after its head if that is wanted."""
    if head:
        print(f"{row['device']}; {row['faces']}, batches of {row['batch']}; faces/s")
        print(f"{'feed':<10}{'bare step':>11}{'training':>11}{'kept':>7}{'epochs':>11}{'kept':>7}")
    line = f"{row['feed']:<10}{row['step']:>11.0f}"
    for key in ("training", "epochs"):
        line += f"{row[key]:>11.0f}{row[key] / row['step']:>7.2f}"
    print(line, flush=True)


def work(
    config: str, faces: int, epochs: int, changes: list[str], feed: str, at: str
) -> dict[str, Any]:
    """One feed, in a process of its own."""
    from emotion_jax import train
    from emotion_jax.training.experiment import make_experiment

    settings = runpy.run_path(config)["get_config"]()
    settings.update({"num_epochs": epochs, "data": {"feed": feed}})
    settings.update_from_flattened_dict(parse_overrides(changes, config))
    described = make_faces(settings, faces, at)
    experiment = make_experiment(settings)
    counted = (settings.num_epochs - 1) * experiment.steps_per_epoch * settings.batch_size
    step = bare_step(experiment)
    del experiment  # the run makes its own
    ends = [time.perf_counter()]

    class Log(train.MetricsLog):
        """The run's own, which also looks at the clock at each epoch's end."""

        def write(self, row: Any) -> None:
            super().write(row)
            ends.append(time.perf_counter())

    train.MetricsLog = Log  # type: ignore[misc]
    workdir = Path(at, feed)
    train.train_and_evaluate(settings, workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    trained = [json.loads(line)["images_per_s"] for line in lines][1:]
    return {
        "step": step,
        "training": float(np.median(trained)),
        "epochs": counted / (ends[-1] - ends[1]),
        "batch": settings.batch_size,
        "faces": described,
        "device": device_name(),
    }


def make_faces(config: Any, count: int, at: str) -> str:
    """Points the config to `count` faces, an eighth more to evaluate on; says what they are."""
    more = count // 8
    # They are as many as is said, and all of them train.
    config.data.update(FACES)
    if importlib.util.find_spec("tensorflow"):
        drawn = {"source": "drawn_faces", "train_faces": count, "val_faces": more, "cache_dir": at}
        config.data.update(drawn)
        return f"{count} drawn faces of {config.image_size} pixels"
    from emotion_jax.data.arrays import Arrays, save_arrays

    path = Path(at, "faces.npz")
    if not path.exists():
        rng = np.random.default_rng(0)
        shape = (count + more, config.image_size, config.image_size, 3)
        split = np.repeat([0, 1], [count, more]).astype(np.uint8)
        labels = rng.integers(0, 8, count + more)
        save_arrays(path, Arrays(rng.integers(0, 256, shape, np.uint8), split, labels=labels))
    config.data.update({"source": "arrays", "dir": str(path)})
    return f"{count} faces of noise of {config.image_size} pixels"


def bare_step(experiment: Any) -> float:
    """Faces/s of the run's own compiled step, on one batch over and over."""
    import jax

    from emotion_jax.data.pipeline import make_feed

    feed = make_feed("stream", experiment.splits["train"], experiment.mesh)
    state, key = experiment.init_state(), jax.random.key(0)
    compiled = experiment.compile_train_step(feed)
    arguments = next(iter(feed(experiment.epoch_order(0)[:1])))

    def step() -> Any:
        nonlocal state
        state, measured = compiled(state, arguments, key)
        return measured

    timed = time_steps(step, jax.block_until_ready, seconds=5.0)
    return experiment.config.batch_size / timed["step_s"]


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        serve(work)
    else:
        sys.exit(run(main))
