"""Two real processes on one machine train the same run to the same numbers as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion_jax.data.arrays import Arrays, save_arrays

HERE = Path(__file__).parent
PROGRAM = """
import os, sys
index, count, port, faces, workdir, feed = sys.argv[1:]
import jax
if count == "2":
    address = f"127.0.0.1:{port}"
    os.environ["JAX_COORDINATOR_BIND_ADDRESS"] = address
    timeouts = {"initialization_timeout": 60, "heartbeat_timeout_seconds": 10}
    jax.distributed.initialize(address, 2, int(index), **timeouts)
import test_train
from emotion_jax import models, train
models.MODELS["tiny"] = test_train.Tiny
config = test_train.make_config(faces, data__feed=feed, num_epochs=2)
if faces == "drawn":
    # Built by TFDS, once: the processes start at the same time.
    cache = workdir + "-cache"
    config.data.update(source="drawn_faces", train_faces=96, val_faces=40, cache_dir=cache)
    config.image_size = 16
train.train_and_evaluate(config, workdir)
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 136)
    images = 30 * labels[:, None, None, None] + rng.integers(0, 20, (136, 12, 12, 3))
    # 37 to evaluate on: the last batch is ragged, and so is its share for each process.
    split = np.repeat([0, 1], [99, 37]).astype(np.uint8)
    path = tmp_path_factory.mktemp("two") / "faces.npz"
    save_arrays(path, Arrays(images.astype(np.uint8), split, labels=labels))
    return path


def run(faces, workdir, *, count, feed):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    # One device a process: two of them see the same mesh as one process with two would.
    flags = f"--xla_force_host_platform_device_count={2 // count}"
    environment = {**os.environ, "PYTHONPATH": paths, "XLA_FLAGS": flags}
    words = [str(count), str(port), str(faces), str(workdir), feed]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(i), *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, err
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return rows, [out for out, _ in said]


@pytest.mark.parametrize(
    ("source", "feed"), [("arrays", "stream"), ("arrays", "resident"), ("drawn", "stream")]
)
def test_two_processes_train_as_one(faces, tmp_path, source, feed):
    faces = "drawn" if source == "drawn" else faces
    one, _ = run(faces, tmp_path / "one", count=1, feed=feed)
    two, said = run(faces, tmp_path / "two", count=2, feed=feed)
    assert [row["step"] for row in two] == [row["step"] for row in one] == [6, 12]
    for a, b in zip(one, two, strict=True):
        for key in a.keys() - {"images_per_s"}:
            assert b[key] == pytest.approx(a[key], rel=1e-4, nan_ok=True), key
    # The first process tells of the run, the other is silent.
    assert "macro-F1" in said[0] and "macro-F1" not in said[1] and "next" not in said[1]
