"""Kills a training run again and again, and damages its checkpoints: does it end in the same bits?

    python benchmarks/chaos.py --kills=40 --builds=10

A tiny network is trained on the CPU: once undisturbed, and once killed with SIGKILL at random
moments and started again by the same call each time, until it is finished. A second pair of runs
draws and builds its data set first, and is killed within the build. Then a file of the newest
checkpoint is flipped, cut short, emptied or removed, and the run is started once more. Prints where
the kills fell, the starts that failed, the steps of all starts together over those of one run, and
whether the states are equal bit by bit. Every start is a fork of a process that has imported
everything and run nothing; what is compiled is kept between them.
"""

from __future__ import annotations

import argparse
import collections
import json
import mmap
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import numpy as np

from emotion_jax import errors, train
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.config import default_config
from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.training.experiment import Experiment, make_experiment

PHASES = ("start", "build", "step", "checkpoint", "evaluation", "end")
# Seconds that a phase lasts, about.
LASTS = {"build": 3.0, "step": 0.005}
SIDE, STEPS_PER_EPOCH, BATCH = 28, 16, 16


def make_config(source: str, folder: Path, epochs: int) -> Any:
    """A small network, with everything on that keeps a state of its own."""
    config = default_config()
    config.data.update({"source": source, "cache_dir": str(folder / "cache")})
    config.data.update({"train_faces": STEPS_PER_EPOCH * BATCH, "val_faces": 64})
    if source == "arrays":
        config.data.dir = str(folder / "faces.npz")
    config.update({"image_size": SIDE, "batch_size": BATCH, "eval_batch_size": 32})
    config.update({"num_epochs": epochs, "checkpoint_every": 4, "ema_decay": 0.9})
    config.model.update({"width": 1 / 16, "dropout": (0.1, 0.1)})
    config.augment.update({"flip": 0.5, "rotate": 5.0})
    return config


def write_faces(path: Path) -> None:
    """Noise in which each class has a brightness of its own."""
    rng = np.random.default_rng(0)
    count = STEPS_PER_EPOCH * BATCH + 64
    labels = rng.integers(0, 8, count)
    images = 28 * labels[:, None, None, None] + rng.integers(0, 30, (count, SIDE, SIDE, 3))
    split = (np.arange(count) >= STEPS_PER_EPOCH * BATCH).astype(np.uint8)
    save_arrays(path, Arrays(images.astype(np.uint8), split, labels=labels))


class Run:
    """One workdir, and the same call again and again. `board` is shared: phase, steps done."""

    def __init__(self, config: Any, workdir: Path):
        self.config, self.workdir = config, workdir
        self.said = workdir.with_suffix(".log")
        self.board = np.frombuffer(mmap.mmap(-1, 16), np.int64)
        self.kills: collections.Counter[str] = collections.Counter()
        self.failed = 0

    def fork(self, function: Callable[[], Any]) -> int:
        """Calls the function in a process of its own; what it says goes to the log."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            log = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1), os.dup2(log, 2)
            status = errors.run(function)
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(status)

    def start(self) -> int:
        self.board[0] = 0

        def call() -> None:
            watch(self.board)
            train.train_and_evaluate(self.config, self.workdir)

        return self.fork(call)

    def finish(self) -> int:
        """Starts once and waits; returns the exit status."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.start(), 0)[1])
        self.failed += status != 0
        return status

    def kill_once(self, rng: random.Random, phases: tuple[str, ...], steps: int) -> bool:
        """Starts and kills, at a random moment of a random phase; False where it ended before."""
        pid = self.start()
        phase, after = PHASES.index(rng.choice(phases)), self.board[1] + rng.randint(0, steps)
        while not (self.board[0] == phase and (phase < 2 or self.board[1] >= after)):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.failed += os.waitstatus_to_exitcode(status) != 0
                return False
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, LASTS.get(PHASES[phase], 0.1)))
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.failed += status not in (0, -signal.SIGKILL)
        self.kills[PHASES[self.board[0]]] += status == -signal.SIGKILL
        return status == -signal.SIGKILL

    def result(self) -> tuple[Any, list[Any]]:
        """The bytes of the last state, and the rows of metrics but for their speed."""
        path = self.workdir.with_suffix(".npz")

        def call() -> None:
            with Checkpoints(self.workdir / "checkpoints", read_only=True) as checkpoints:
                state, _ = checkpoints.restore(make_experiment(self.config).init_state())
            np.savez(path, *(np.asarray(x) for x in jax.tree.leaves(state)))

        if os.waitstatus_to_exitcode(os.waitpid(self.fork(call), 0)[1]):
            raise SystemExit(self.said.read_text())
        with np.load(path) as file:
            state = [file[name].tobytes() for name in file.files]
        rows = map(json.loads, (self.workdir / "metrics.jsonl").read_text().splitlines())
        return state, [{k: v for k, v in row.items() if k != "images_per_s"} for row in rows]


def watch(board: np.ndarray) -> None:
    """Lets this process say on the board what it is at."""

    def during(owner: Any, name: str, phase: str, then: Callable[[Any], Any] = lambda x: x) -> None:
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, board[0] = board[0], PHASES.index(phase)
            try:
                return then(function(*args, **kwargs))
            finally:
                board[0] = before

        setattr(owner, name, wrapped)

    def evaluation(evaluate: Any) -> Any:
        box = argparse.Namespace(call=evaluate)
        during(box, "call", "evaluation")
        return box.call

    update = train.TrainProgress.update

    def step(self: Any, *args: Any) -> None:
        update(self, *args)
        board[0], board[1] = PHASES.index("step"), board[1] + 1

    train.TrainProgress.update = step
    during(train, "make_experiment", "build")
    during(Checkpoints, "save", "checkpoint")
    during(train.conclude, "conclude", "end")
    during(Experiment, "compile_evaluation", "start", evaluation)


def survive(
    name: str, config: Any, folder: Path, rng: random.Random, kills: int, phases: tuple[str, ...]
) -> Run:
    """Prints a line of the table; returns the run that was killed, now finished."""
    whole = Run(config, folder / f"{name}-whole")
    config.data.cache_dir = str(folder / "cache-whole")
    if whole.finish():
        raise SystemExit(whole.said.read_text())
    killed = Run(config.copy_and_resolve_references(), folder / f"{name}-killed")
    killed.config.data.cache_dir = str(folder / "cache-killed")
    total, begun = config.num_epochs * STEPS_PER_EPOCH, time.monotonic()
    # So far apart that the kills spread over the whole run.
    while killed.kills.total() < kills and killed.kill_once(rng, phases, 2 * total // (kills + 1)):
        pass
    killed.finish()
    same = killed.result() == whole.result()
    where = ", ".join(f"{phase} {killed.kills[phase]}" for phase in PHASES if killed.kills[phase])
    print(f"{name:<8}{killed.kills.total():>6}{killed.failed:>8}", end="")
    print(f"{killed.board[1] / total:>8.2f}{'yes' if same else 'NO':>7}", end="")
    print(f"{time.monotonic() - begun:>7.0f} s  {where}", flush=True)
    if killed.failed:
        print(killed.said.read_text()[-3000:])
    return killed


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Does to a file what disks and people do."""
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == "cut short":
        del data[rng.randrange(len(data)) :]
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "emptied" else data)


def survive_damage(whole: Run, rng: random.Random, count: int) -> int:
    """Damages the newest checkpoint of copies of a finished run; returns how many ended well."""
    good, expected = 0, whole.result()
    for i in range(count):
        how = ("flipped", "cut short", "emptied", "removed")[i % 4]
        copy = Run(whole.config, whole.workdir.with_name(f"damaged-{i}"))
        shutil.copytree(whole.workdir, copy.workdir)
        steps = [p for p in (copy.workdir / "checkpoints").iterdir() if p.name.isdigit()]
        newest = max(steps, key=lambda path: int(path.name))
        files = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
        victim = rng.choice(sorted(files))
        damage(victim, how, rng)
        status, said = copy.finish(), copy.said.read_text()
        warned = said.count(f"warning: checkpoint {newest.name} ") == 1
        resumed = re.search(r"resumed from step (\d+)", said)
        well = status == 0 and warned and resumed and copy.result() == expected
        good += bool(well)
        if not well:
            print(f"{victim.relative_to(newest)} {how}: status {status}\n{said[-2000:]}")
        shutil.rmtree(copy.workdir)
    return good


def main() -> int:
    """Break things and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="of a run on an array file")
    parser.add_argument("--builds", type=int, default=10, help="kills within a build")
    parser.add_argument("--damages", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=60, help=f"of {STEPS_PER_EPOCH} steps each")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    rng = random.Random(flags.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        write_faces(folder / "faces.npz")
        print(f"{platform.machine()}, {os.cpu_count()} cores, JAX {jax.__version__}")
        print(f"{'source':<8}{'kills':>6}{'failed':>8}{'steps':>8}{'equal':>7}{'time':>9}  where")
        config = make_config("arrays", folder, flags.epochs)
        where = ("step", "checkpoint", "evaluation")
        killed = survive("arrays", config, folder, rng, flags.kills, where)
        runs = [killed]
        if flags.builds:
            config = make_config("drawn_faces", folder, 2)
            runs.append(survive("drawn", config, folder, rng, flags.builds, ("build",)))
        good = survive_damage(killed, rng, flags.damages)
        print(
            f"damaged checkpoints: {good} of {flags.damages} named, passed over, equal in the end"
        )
    return int(any(run.failed for run in runs) or good < flags.damages)


if __name__ == "__main__":
    sys.exit(main())
