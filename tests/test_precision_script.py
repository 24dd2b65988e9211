"""The scripts that compare precisions and whole runs: they say what was measured, and keep it."""

import argparse
import json
import os
import re
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.prediction.paths import find_images

ROOT = Path(__file__).parents[1]
SEEDS = (0, 3)
# launch.py, which also knows a network that compiles at once.
PROGRAM = """
import runpy
import tiny_runs
from emotion_jax import models

models.MODELS["tiny"] = tiny_runs.Tiny
runpy.run_path(ROOT, run_name="__main__")
"""
CONFIG = """
import tiny_runs

def get_config():
    config = tiny_runs.make_config(FACES, num_devices=1, num_epochs=2)
    config.model = {"name": "tiny", "dtype": "float32"}
    return config
"""


@pytest.fixture
def precision(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import precision

    return precision


def test_the_table_is_that_of_the_runs(precision, faces, tmp_path, monkeypatch, capsys):
    """Four real runs of two epochs."""
    import running

    (tmp_path / "launch.py").write_text(PROGRAM.replace("ROOT", repr(str(ROOT / "launch.py"))))
    (tmp_path / "tiny.py").write_text(CONFIG.replace("FACES", repr(faces)))
    monkeypatch.setattr(running, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    out, config = tmp_path / "out", tmp_path / "tiny.py"
    words = [f"--config={config}", f"--output={out}", "--every=1", "--seeds=0,3"]
    words += ["--overrides", "optimizer.learning_rate=0.01"]
    monkeypatch.setattr(sys, "argv", ["precision.py", *words])
    precision.main()
    said = capsys.readouterr().out
    logs = {}
    for name in ("float32", "bfloat16"):
        for seed in SEEDS:
            used = json.loads((out / f"{name}-{seed}/config.json").read_text())
            assert (used["model"]["dtype"], used["seed"]) == (name, seed)
            assert used["optimizer"]["learning_rate"] == 0.01
            text = (out / f"{name}-{seed}/metrics.jsonl").read_text()
            logs[name, seed] = [json.loads(line) for line in text.splitlines()]
    rows = [line.strip("| ").split(" | ") for line in said.splitlines()]
    rows = {row[0]: row[1:] for row in rows if row[0] in ("1", "2")}
    for epoch in (1, 2):
        cells = iter(rows[str(epoch)])
        for key, scale, digits in (("val/accuracy", 100, 2), ("val/loss", 1, 4)):
            means, spreads = [], []
            for name in ("float32", "bfloat16"):
                values = [scale * logs[name, seed][epoch - 1][key] for seed in SEEDS]
                means.append(statistics.mean(values))
                spreads.append(statistics.stdev(values))
                assert next(cells) == f"{means[-1]:.{digits}f} ± {spreads[-1]:.{digits}f}"
            assert means[0] != means[1] or key == "val/accuracy"  # it computed otherwise
            difference = means[1] - means[0]
            assert next(cells) == f"{difference:+.{digits}f}"
            # As many runs of each: the mean of their variances.
            pooled = (sum(x * x for x in spreads) / 2) ** 0.5
            assert next(cells) == ("yes" if abs(difference) <= pooled else "no")
    kept = json.loads((out / "precision.json").read_text())
    for (name, seed), log in logs.items():
        for key in ("epoch", "val/accuracy", "val/loss", "train/loss"):
            assert kept["curves"][name][str(seed)][key] == [row[key] for row in log]
    assert [row["epoch"] for row in kept["compared"]] == [1, 2]
    assert kept["machines"][0]["versions"]["jax"]
    assert (out / "precision.png").read_bytes().startswith(b"\x89PNG")
    # The same command again trains nothing, and says the same.
    precision.main()
    assert capsys.readouterr().out == said[said.index(kept["machines"][0]["device"]) :]


def curves(**values):
    """Of one epoch, an accuracy a seed; the loss is as much."""
    return {
        name: {
            str(seed): {"epoch": [1], "val/accuracy": [x], "val/loss": [x]}
            for seed, x in enumerate(found)
        }
        for name, found in values.items()
    }


def test_a_difference_is_within_the_deviation_or_not(precision):
    near = precision.compare(curves(float32=[0.5, 0.6, 0.7], bfloat16=[0.55, 0.65, 0.75]))
    assert near[0]["val/loss"] == {
        "float32": {"mean": pytest.approx(0.6), "deviation": pytest.approx(0.1)},
        "bfloat16": {"mean": pytest.approx(0.65), "deviation": pytest.approx(0.1)},
        "difference": pytest.approx(0.05),
        "deviation": pytest.approx(0.1),
        "within": True,
    }
    far = precision.compare(curves(float32=[0.5, 0.6, 0.7], bfloat16=[0.3, 0.4, 0.5]))
    assert far[0]["val/accuracy"]["within"] is False
    assert far[0]["val/accuracy"]["difference"] == pytest.approx(-0.2)


def test_what_is_not_known_yet_is_a_dash(precision, tmp_path):
    assert precision.compare(curves(float32=[0.5])) == []
    for found in (
        curves(float32=[0.5], bfloat16=[0.5]),
        curves(float32=[0.5, None], bfloat16=[0.5, 0.6]),
    ):
        compared = precision.compare(found)
        assert compared[0]["val/loss"]["within"] is None
        text = precision.lines(compared, found, 5)
        assert re.search(r"\| 1 \| .* \| - \|$", text[2])
        assert text[-1] == "validation loss: within at 0 of 0 epochs"
        precision.draw(found, tmp_path / "p.png")
    # One run of one precision and two of the other: the deviation is the two's.
    uneven = precision.compare(curves(float32=[0.4, 0.6], bfloat16=[0.7]))[0]["val/loss"]
    assert uneven["deviation"] == pytest.approx(0.02**0.5) and uneven["within"] is False


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_a_bandwidth_is_positive(benchmarks):
    from bandwidth import measure_bandwidth

    assert measure_bandwidth(1 << 16, seconds=0.01) > 0


def test_pictures_beyond_a_thousand_are_links(benchmarks, tmp_path, monkeypatch):
    import bulk_inference

    monkeypatch.setattr(bulk_inference, "DISTINCT", 3)
    names = bulk_inference.write_pictures(tmp_path / "faces", 8)
    assert sorted(names) == sorted(map(str, (tmp_path / "faces").iterdir()))
    assert len({os.stat(name).st_ino for name in names[:3]}) == 3
    assert os.path.samefile(names[3], names[0]) and os.path.samefile(names[7], names[1])
    # No picture is left out because it is another one's link.
    assert len(find_images(str(tmp_path / "faces"))) == 8


def test_the_medians_are_printed_and_kept(benchmarks, tmp_path, capsys):
    import bulk_inference

    flags = argparse.Namespace(
        faces=10, pictures=7, rounds=2, output=tmp_path / "new" / "bulk.json"
    )
    readers = {
        "predictor, float32": lambda: np.zeros(2),
        "network alone, float32, batches of 4": lambda: None,
        "7 pictures to a table": lambda: None,
        "predictor, bfloat16": lambda: np.array([0.0, 0.25]),
    }
    bulk_inference.measure(readers, flags, {"device": "abacus"})
    kept = json.loads(flags.output.read_text())
    assert kept["device"] == "abacus" and kept["rounds"] == 2
    assert kept["faces_per_s"].keys() == readers.keys()
    said = capsys.readouterr().out.splitlines()
    assert [line[:44].rstrip() for line in said[:4]] == list(readers)
    assert said[4] == "largest difference of a probability: 0.2500"
    counts = [bulk_inference.count_faces(name, flags) for name in readers]
    assert counts == [10, 8, 7, 10]


@pytest.mark.parametrize("name", ["", "mine.json"])
def test_a_feed_is_kept_before_the_next_one_fails(benchmarks, name, tmp_path, monkeypatch, capsys):
    import train_run

    def answer(command, **_):
        feed = json.loads(command[-1])["feed"]
        rates = {"step": 100.0, "training": 90.0, "epochs": 80.0}
        row = {**rates, "batch": 4, "faces": "8 faces", "device": "An Abacus (Wood)"}
        return subprocess.CompletedProcess(command, 3 * (feed == "stream"), "\n" + json.dumps(row))

    monkeypatch.setattr(train_run.subprocess, "run", answer)
    monkeypatch.setattr(train_run, "commit", lambda: "abc1234")
    words = ["train_run.py", f"--output={tmp_path / name}", "--set", "batch_size=4"]
    monkeypatch.setattr(sys, "argv", words)
    assert train_run.main() == 3
    kept = json.loads((tmp_path / (name or "train_run-an-abacus-wood.json")).read_text())
    assert [row["feed"] for row in kept["rows"]] == ["resident"]
    assert kept["device"] == "An Abacus (Wood)" and kept["changes"] == ["batch_size=4"]
    assert kept["commit"] == "abc1234" and kept["versions"]["jax"]
    assert re.search(r"resident +100 +90 +0.90 +80 +0.80", capsys.readouterr().out)


def test_all_faces_train_whatever_the_config_holds_out(benchmarks, tmp_path):
    """Else the speed would be counted for faces that were never seen."""
    import train_run

    from emotion_jax.training.experiment import make_experiment

    config = runpy.run_path(str(ROOT / "configs/ferplus_narrow_distilled.py"))["get_config"]()
    config.update({"image_size": 32, "batch_size": 32, "channels": 3, "model": {"width": 1 / 8}})
    config.data.num_classes = 7
    assert train_run.make_faces(config, 64, str(tmp_path)) == "64 drawn faces of 32 pixels"
    assert make_experiment(config).steps_per_epoch == 2


@pytest.mark.parametrize("key", ["num_epochs=9", "data.holdout=0.1", "data.num_classes=7"])
def test_what_the_script_says_is_not_set(benchmarks, key, monkeypatch, capsys):
    """It would stand in the results, and have changed nothing."""
    import train_run

    monkeypatch.setattr(sys, "argv", ["train_run.py", "--set", key])
    with pytest.raises(SystemExit):
        train_run.main()
    assert f"--set {key.split('=')[0]}: this script sets it itself" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["batch_size", "batch_size=many", "batch_size=0"])
def test_a_setting_that_cannot_be_is_told_before_anything_starts(benchmarks, word, monkeypatch):
    import train_run

    monkeypatch.setattr(sys, "argv", ["train_run.py", "--set", word])
    monkeypatch.setattr(train_run.subprocess, "run", None)
    with pytest.raises(EmotionError, match="batch_size"):
        train_run.main()


@pytest.mark.parametrize("faces", ["10000", "0"])
def test_a_number_of_faces_that_cannot_be_drawn_is_told(benchmarks, faces, monkeypatch, capsys):
    import train_run

    monkeypatch.setattr(sys, "argv", ["train_run.py", f"--faces={faces}"])
    with pytest.raises(SystemExit):
        train_run.main()
    assert "--faces: people are drawn in full; give a multiple of 64" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, option",
    [
        ("train_run.py", r"--faces=(\d+)"),
        ("train_run.py", r"\"--faces\", type=int, default=([\d_]+)"),
        ("gpu_session.sh", r"--faces=\"\$\{COUNT:-(\d+)\}"),
    ],
)
def test_the_usual_number_of_faces_can_be_drawn(benchmarks, name, option):
    from train_run import MULTIPLE

    from emotion_jax.data.drawn_faces import DrawnFaces

    usual = int(re.search(option, (ROOT / "benchmarks" / name).read_text())[1])
    assert usual % MULTIPLE == 0
    assert DrawnFaces(train_faces=usual, validation_faces=usual // 8)
