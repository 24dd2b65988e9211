"""Two real processes on one machine train the same run to the same numbers as one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import lasting, write_faces

from emotion_jax import sharding
from emotion_jax.errors import EmotionError

HERE = Path(__file__).parent
PROGRAM = """
import json, os, sys, time
index, count, port, faces, workdir, feed = sys.argv[1:]
import jax
if count == "2":
    address = f"127.0.0.1:{port}"
    os.environ["JAX_COORDINATOR_BIND_ADDRESS"] = address
    timeouts = {"initialization_timeout": 60, "heartbeat_timeout_seconds": 10}
    jax.distributed.initialize(address, 2, int(index), **timeouts)
import tiny_runs
from emotion_jax import checkpoint, models, train
models.MODELS["tiny"] = tiny_runs.Tiny
config = tiny_runs.make_config(faces, data__feed=feed, num_epochs=2)
write_manifest = checkpoint.write_manifest

def hash_slowly(folder):
    time.sleep(0.5)
    write_manifest(folder)

checkpoint.write_manifest = hash_slowly
if faces == "drawn":
    # Built by TFDS, once: the processes start at the same time.
    cache = workdir + "-cache"
    config.data.update(source="drawn_faces", train_faces=96, val_faces=40, cache_dir=cache)
    config.image_size = 16
    from emotion_jax.data.records import RecordPixels
    stream = RecordPixels.stream

    def noted(self, rows):
        with open(f"{workdir}-read-{index}", "a") as file:
            print(json.dumps([len(self), rows.tolist()]), file=file)
        return stream(self, rows)

    RecordPixels.stream = noted
train.train_and_evaluate(config, workdir)
"""
# One that is sent a signal, or none (0), after its fourth step. Then steps take as long as those of
# a large network, so that the run is not over before the processes have told each other.
STOPPED = """
import os, sys, time
index, port, faces, workdir, *signals = sys.argv[1:]
os.environ |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
os.environ["JAX_PROCESS_ID"] = index
import tiny_runs
from emotion_jax import errors, models, sharding, train
sharding.join_processes()
models.MODELS["tiny"] = tiny_runs.Tiny
config = tiny_runs.make_config(faces, batch_size=4, num_epochs=3)
update, calls = train.TrainProgress.update, []

def signalled(self, *args):
    update(self, *args)
    calls.append(args)
    if signals and len(calls) == 4 and int(signals[int(index)]):
        os.kill(os.getpid(), int(signals[int(index)]))
    if signals and len(calls) > 4:
        time.sleep(0.2)

train.TrainProgress.update = signalled
sys.exit(errors.run(lambda: train.train_and_evaluate(config, workdir)))
"""


# One whose disk is full once the first epoch is over, as its first process finds.
FULL = """
import errno, os, sys
index, port, faces, workdir = sys.argv[1:]
os.environ |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
os.environ["JAX_PROCESS_ID"] = index
import tiny_runs
from emotion_jax import checkpoint, errors, models, sharding, train
sharding.join_processes()
models.MODELS["tiny"] = tiny_runs.Tiny

def refuse(folder, size):
    assert index == "0"
    raise OSError(errno.ENOSPC, "Full is full")

checkpoint.require_room = refuse
config = tiny_runs.make_config(faces, num_epochs=1)
sys.exit(errors.run(lambda: train.train_and_evaluate(config, workdir)))
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    # 37 to evaluate on: the last batch is ragged, and so is its share for each process.
    return write_faces(tmp_path_factory.mktemp("two") / "faces.npz", train=99, validation=37)


CONFIG = """
from emotion_jax.config import default_config

def get_config():
    config = default_config()
    config.data.update({"source": "arrays", "feed": "stream"})
    config.model.update({"width": 1 / 16, "dropout": (0.0, 0.0)})
    config.update({"image_size": 26, "batch_size": 32, "num_epochs": 1, "accumulate": 2})
    return config
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run(faces, workdir, *, count, feed):
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    # One device a process: two of them see the same mesh as one process with two would.
    flags = f"--xla_force_host_platform_device_count={2 // count}"
    environment = {**os.environ, "PYTHONPATH": paths, "XLA_FLAGS": flags}
    words = [str(count), str(free_port()), str(faces), str(workdir), feed]
    commands = [[sys.executable, "-c", PROGRAM, str(i), *words] for i in range(count)]
    return communicate(commands, [environment] * count, workdir)


def stop(faces, workdir, signals=(), *, expected=(0, 0)):
    """A run of two processes that are sent signals: its rows, and what each process said."""
    words = [str(int(number)) for number in signals]
    return communicate(*pair(STOPPED, faces, workdir, *words), workdir, expected=expected)


def pair(program, faces, workdir, *words):
    """The commands and the environments of a program's two processes, of one device each."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    flags = "--xla_force_host_platform_device_count=1"
    environment = {**os.environ, "PYTHONPATH": paths, "XLA_FLAGS": flags}
    words = [str(free_port()), str(faces), str(workdir), *words]
    return [[sys.executable, "-c", program, str(i), *words] for i in range(2)], [environment] * 2


def launch(faces, workdir, *, count):
    """`python launch.py`, as people type it, in each of `count` processes."""
    config = workdir.with_suffix(".py")
    config.write_text(CONFIG)
    flags = [f"--config={config}", f"--config.data.dir={faces}", f"--workdir={workdir}"]
    command = [sys.executable, str(HERE.parent / "launch.py"), *flags]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["JAX_NUM_CPU_DEVICES"] = str(2 // count)
    if count == 1:
        return communicate([command], [environment], workdir)
    environment["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free_port()}"
    environment["JAX_NUM_PROCESSES"] = str(count)
    numbered = [environment | {"JAX_PROCESS_ID": str(i)} for i in range(count)]
    return communicate([[*command, "--distributed"]] * count, numbered, workdir)


def communicate(commands, environments, workdir, expected=(0, 0)):
    """Runs the commands at the same time; the run's rows, and what each process said."""
    said = complete(commands, environments, expected)
    # Whoever asks for a checkpoint too early takes it for one.
    assert not any("damaged" in err for _, err in said), said
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return rows, [out for out, _ in said]


def complete(commands, environments, expected):
    """Runs the commands at the same time: what each said on standard output and error."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(command, env=environment, cwd=HERE.parent, **pipes)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, err), status in zip(processes, said, expected, strict=False):
        assert process.returncode == status, err
    return said


@pytest.mark.parametrize(
    ("source", "feed"), [("arrays", "stream"), ("arrays", "resident"), ("drawn", "stream")]
)
def test_two_processes_train_as_one(faces, tmp_path, source, feed):
    faces = "drawn" if source == "drawn" else faces
    one, _ = run(faces, tmp_path / "one", count=1, feed=feed)
    assert_same_run(one, *run(faces, tmp_path / "two", count=2, feed=feed))
    if source == "drawn":
        files = [tmp_path / f"two-read-{index}" for index in range(2)]
        read = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
        assert_own_shares(*read)


def test_launch_joins_the_processes_that_the_environment_names(faces, tmp_path):
    one, _ = launch(faces, tmp_path / "one", count=1)
    assert_same_run(one, *launch(faces, tmp_path / "two", count=2), steps=[3])


def test_a_process_that_is_told_of_no_others_says_so(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("JAX_CO", "SLURM", "KUBER"))]:
        monkeypatch.delenv(name)
    with pytest.raises(EmotionError, match="^--distributed: .*JAX_COORDINATOR_ADDRESS") as info:
        sharding.join_processes()
    assert "\n" not in str(info.value)


@pytest.fixture(scope="module")
def undisturbed(faces, tmp_path_factory):
    return stop(faces, tmp_path_factory.mktemp("undisturbed") / "run")[0]


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        ((0, signal.SIGTERM), (143, 143)),
        ((signal.SIGINT, signal.SIGTERM), (130, 143)),
    ],
    ids=["one", "both"],
)
def test_whichever_process_is_told_to_stop_all_save_the_same_step(
    faces, undisturbed, tmp_path, signals, expected
):
    """And go on from there, to the same bits as if nothing had been."""
    workdir = tmp_path / "run"
    _, said = stop(faces, workdir, signals, expected=expected)
    step = int(re.search(r"stopped, saved at step (\d+)", said[0])[1])
    folders = [path.name for path in (workdir / "checkpoints").iterdir() if path.is_dir()]
    assert 4 < step < 72 and str(step) in folders and "saved" not in said[1]
    rows, said = stop(faces, workdir)
    assert f"resumed from step {step}" in said[0]
    assert list(map(lasting, rows)) == list(map(lasting, undisturbed))


def test_a_full_disk_that_one_process_finds_is_told_by_all(faces, tmp_path):
    for _, err in complete(*pair(FULL, faces, tmp_path / "run"), expected=(2, 2)):
        assert "checkpoint of step 6 cannot be written" in err and "Traceback" not in err, err


def assert_own_shares(first, second):
    """Each of two processes read faces of its own, both together every one once an epoch."""
    for count, steps in ((96, 6), (40, 2)):  # to train and to evaluate on
        epochs = [
            [sum(rows, []) for size, rows in read if (size, len(rows)) == (count, steps)]
            for read in (first, second)
        ]
        assert len(epochs[0]) == len(epochs[1]) >= 2
        for mine, others in zip(*epochs, strict=True):
            # The first face also stands for what is missing in the last batch.
            assert sorted(filter(None, mine + others)) == list(range(1, count))


def assert_same_run(one, two, said, steps=(6, 12)):
    assert [row["step"] for row in two] == [row["step"] for row in one] == list(steps)
    for a, b in zip(one, two, strict=True):
        for key in a.keys() - {"images_per_s"}:
            assert b[key] == pytest.approx(a[key], rel=1e-4, nan_ok=True), key
    # The first process tells of the run, the other is silent.
    assert "macro-F1" in said[0] and "macro-F1" not in said[1] and "next" not in said[1]
