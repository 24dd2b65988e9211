"""`launch.py` with each config for people's own data, from a folder to a test score, made small."""

import json

import numpy as np
import pytest
from false_affectnet import write_npy, write_plain_csv
from false_pictures import make_face
from launching import launch
from PIL import Image


def write_folder(root):
    for number in range(32):
        place = root / ("train" if number < 24 else "val") / str(number % 8)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_face(number)).save(place / f"{number}.png")


NARROW = ("model.width=0.05", "image_size=48")
CASES = {
    # `simplenet` has the network of the first and the data of the second.
    "simplenet_20k": (
        write_plain_csv,
        (*NARROW, "data.holdout=0.25", "data.train_images=16", "data.val_images=4"),
    ),
    # At 32 pixels it has a quarter of its parameters.
    "vgg16": (write_npy, ("image_size=32", "data.holdout=0.25", "eval_batch_size=8")),
    "folder": (write_folder, NARROW),
}


@pytest.mark.parametrize("config", CASES)
def test_a_config_trains_on_its_data(config, tmp_path):
    write, changes = CASES[config]
    write(tmp_path / "faces")
    common = f"data.dir={tmp_path}/faces data.cache_dir={tmp_path}/cache model.dtype=float32"
    changes = [*common.split(), "batch_size=8", "num_epochs=1", *changes]
    words = [f"--config=configs/{config}.py", f"--workdir={tmp_path}/run"]
    done = launch(*words, *(f"--config.{change}" for change in changes), timeout=400)
    assert done.returncode == 0, done.stderr
    assert "kept 24 train, 8 validation" in done.stdout
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    last = scores["validation" if config == "folder" else "test"]
    assert sum(last["count"]) == 8 and np.isfinite(last["loss"])
