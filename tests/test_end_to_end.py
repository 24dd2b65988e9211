"""The programs as people call them: train on drawn faces, predict, train on from an array file."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FEW = ["--config.data.train_faces=128", "--config.data.val_faces=32", "--config.num_epochs=1"]
WITHOUT_TENSORFLOW = (
    "import runpy, sys\n"
    "sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


def run(*words, tensorflow=True):
    """One of the programs, in the checkout, as one process on one device."""
    command = [*words] if tensorflow else ["-c", WITHOUT_TENSORFLOW, *words]
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("end-to-end")
    flags = [f"--workdir={folder}/run", f"--config.data.cache_dir={folder}/cache", *FEW]
    done = run("launch.py", "--config=configs/quickstart.py", *flags)
    assert done.returncode == 0, done.stderr
    return folder, flags, done.stdout


def test_training_ends_with_a_table_and_the_next_command(trained):
    folder, _, said = trained
    assert "macro-F1" in said and all(name in said for name in ("contempt", "recall"))
    assert f"python predict.py --model={folder}/run --image={folder}/run/sample.png" in said
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2]


def test_the_same_command_again_is_finished_and_eval_says_the_same(trained):
    folder, flags, said = trained
    again = run("launch.py", "--config=configs/quickstart.py", *flags)
    assert again.returncode == 0 and "finished already" in again.stdout
    table = said[said.index("accuracy") :].splitlines()[0]
    assert table in again.stdout
    measured = run("launch.py", "--config=configs/quickstart.py", *flags, "--mode=eval")
    assert measured.returncode == 0 and table in measured.stdout


def test_predict_finds_the_drawn_people_without_tensorflow(trained):
    folder, *_ = trained
    done = run(
        "predict.py",
        f"--model={folder}/run",
        f"--image={folder}/run/sample.png",
        f"--output={folder}/out",
        tensorflow=False,
    )
    assert done.returncode == 0, done.stderr
    with (folder / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 3 <= len(rows) <= 4  # of four people; dlib may miss one
    assert (folder / "out/sample.png").is_file()


def test_an_array_file_trains_without_tensorflow(trained):
    folder, flags, _ = trained
    config = ["--config=configs/quickstart.py", *flags[1:]]
    made = run("-m", "emotion_jax.data.arrays", *config, f"--output={folder}/drawn.npz")
    assert made.returncode == 0, made.stderr
    assert "128 train, 32 validation" in made.stdout
    done = run(
        "launch.py",
        *config,
        "--config.data.source=arrays",
        f"--config.data.dir={folder}/drawn.npz",
        f"--workdir={folder}/arrays",
        tensorflow=False,
    )
    assert done.returncode == 0, done.stderr

    def losses(run):
        row = json.loads((folder / run / "metrics.jsonl").read_text().splitlines()[-1])
        return [row["train/loss"], row["val/loss"]]

    # The same faces in the same order: the same numbers.
    assert losses("arrays") == losses("run")


def test_predict_names_the_weights_it_does_not_have():
    done = run("predict.py", "--image=README.md", "--model=nothing")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "'nothing' is no workdir" in done.stderr and "simplenet-narrow-ferplus" in done.stderr
