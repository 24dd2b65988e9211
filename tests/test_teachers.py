"""Distillation: what the teachers see and answer, and whole runs that learn from them."""

import json
import shutil
import sys
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import SIDE, last_state, lasting, make_config, rows

from emotion_jax import export, steps, train
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import make_meta, model_from_meta
from emotion_jax.labels import EMOTIONS
from emotion_jax.preprocess import fit_size
from emotion_jax.training.teachers import answers, load_teachers
from emotion_jax.weights import save_weights

pytestmark = pytest.mark.usefixtures("tiny")


def write_teacher(folder, seed, spec, emotions=EMOTIONS):
    """Random weights that look at what they are shown."""
    meta = make_meta("tiny", {}, spec, emotions=emotions)
    rng = np.random.default_rng(seed)
    shapes = model_from_meta(meta)[2]
    variables = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
    for layer in variables["batch_stats"].values():
        layer["var"] = np.abs(layer["var"]) + 0.5
    save_weights(folder, variables, meta)
    return str(folder)


@pytest.fixture
def two(tmp_path):
    """Teachers of another size, another colour and other means than the runs below."""
    own = ImageSpec(size=SIDE, mean=(0.3,))
    large = ImageSpec(size=20, grey=True, channels=1, std=(0.5,))
    return [write_teacher(tmp_path / f"teacher{i}", i, spec) for i, spec in enumerate((own, large))]


def test_pictures_are_enlarged_on_the_device_as_on_the_host():
    images = np.random.default_rng(0).integers(0, 256, (3, 13, 13, 3)).astype(np.float32)
    expected = [cv2.resize(x, (20, 20), interpolation=cv2.INTER_LINEAR) for x in images]
    np.testing.assert_allclose(fit_size(images, 20), expected, atol=0.01)
    np.testing.assert_array_equal(fit_size(images.astype(np.uint8), 13), images)


def test_pictures_are_shrunk_by_means_so_that_every_pixel_counts():
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 1)).astype(np.float32)
    shrunk = np.asarray(fit_size(images, 8))
    # Plain bilinear sampling at a third of the size would see one pixel of nine.
    moved = np.asarray(fit_size(images + 9 * (np.indices((24, 24)).sum(0) % 3 == 0)[..., None], 8))
    np.testing.assert_allclose((moved - shrunk)[:, 2:-2, 2:-2], 3, atol=0.1)


def test_answers_are_the_mean_of_softened_probabilities(two):
    teachers = load_teachers(two, EMOTIONS)
    images = np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    variables = [teacher.variables for teacher in teachers]
    got = np.asarray(answers(images, variables, teachers=teachers, temperature=3.0))
    expected = []
    for teacher in teachers:
        size = (teacher.spec.size, teacher.spec.size)
        shown = [cv2.resize(x.astype(np.float32), size) for x in images]
        # The network's own answers at temperature 1 hold its logits but for a sum.
        ask = partial(steps.predict_probs, model=teacher.model, spec=teacher.spec)
        softened = np.asarray(ask(teacher.variables, jnp.asarray(shown))) ** (1 / 3)
        expected.append(softened / softened.sum(1, keepdims=True))
    np.testing.assert_allclose(got, np.mean(expected, 0), atol=1e-3)
    assert np.abs(expected[0] - expected[1]).max() > 0.05  # two opinions
    assert got.dtype == np.float32 and got.sum(1) == pytest.approx(1)


def distilled(faces, teachers, **changes):
    distill = {"distill__teachers": tuple(teachers), "distill__temperature": 3.0}
    return make_config(faces, **distill, distill__share=0.8, **changes)


def test_a_run_learns_from_its_teachers_and_resumes_to_the_same_bits(faces, two, tmp_path):
    config = distilled(faces, two, num_epochs=2, optimizer__sam_rho=0.05)
    whole, part = tmp_path / "whole", tmp_path / "part"
    train.train_and_evaluate(config, whole)
    update = train.TrainProgress.update

    def dies(self, epoch, done, *args):
        if (epoch, done) == (2, 3):
            raise RuntimeError("killed")
        return update(self, epoch, done, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.TrainProgress, "update", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train.train_and_evaluate(config, part)
    # They may lie elsewhere now, but must be the same.
    moved = [shutil.copytree(folder, tmp_path / f"moved{i}") for i, folder in enumerate(two)]
    others = distilled(faces, map(str, moved[::-1]), num_epochs=2, optimizer__sam_rho=0.05)
    for wrong in (others, make_config(faces, num_epochs=2, optimizer__sam_rho=0.05)):
        wrong.distill.update({"temperature": 3.0, "share": 0.8})
        with pytest.raises(EmotionError, match="distill.teachers: .* has learnt from others"):
            train.train_and_evaluate(wrong, part)
    config.distill.teachers = tuple(map(str, moved))
    train.train_and_evaluate(config, part)
    assert list(map(lasting, rows(part))) == list(map(lasting, rows(whole)))
    ends = (last_state(config, folder) for folder in (part, whole))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    with Checkpoints(whole / "checkpoints", read_only=True) as checkpoints:
        meta = checkpoints.read_meta()
    hashes = [json.loads((folder / "config.json").read_text())["sha256"] for folder in moved]
    assert meta["teachers"] == hashes
    # Teachers are for training alone: a finished run is measured, and exported, without them.
    for folder in moved:
        shutil.rmtree(folder)
    train.train_and_evaluate(config, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export", f"--model={whole}", f"--output={tmp_path / 'out'}"])
        export.main()
    assert "teachers" not in json.loads((tmp_path / "out/config.json").read_text())


def test_a_network_taught_by_one_alone_comes_to_answer_like_it(faces, two, tmp_path):
    """Of labels nothing reaches a loss whose share is all the teachers'."""
    start = tmp_path / "start"
    same = {"augment__mixup": 0.0, "optimizer__learning_rate": 0.05, "num_epochs": 8}
    config = distilled(faces, two[:1], **same)
    config.distill.share = 1.0
    train.train_and_evaluate(config, start)
    losses = [row["train/loss"] for row in rows(start)]
    assert losses[-1] < 0.5 * losses[0]
    with np.load(faces) as file:
        labels = file["labels"]
        images = file["images"]
    from emotion_jax.data.arrays import Arrays, save_arrays

    split = np.repeat([0, 1], [96, 40]).astype(np.uint8)
    # The same faces a batch, each called something else: the loss does not look.
    save_arrays(tmp_path / "wrong.npz", Arrays(images, split, labels=(labels + 3) % 8))
    config.data.dir = str(tmp_path / "wrong.npz")
    train.train_and_evaluate(config, tmp_path / "wrong")
    assert [row["train/loss"] for row in rows(tmp_path / "wrong")] == pytest.approx(losses)


def test_bad_teachers_are_told_in_one_sentence_and_bind_no_folder(faces, tmp_path):
    seven = write_teacher(tmp_path / "seven", 0, ImageSpec(size=SIDE), EMOTIONS[:7])
    damaged = write_teacher(tmp_path / "damaged", 0, ImageSpec(size=SIDE))
    with (tmp_path / "damaged" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    for path, said in (
        (str(tmp_path / "none"), "distill.teachers: no model.safetensors in"),
        (seven, "knows 7 emotions, this network 8"),
        (damaged, "is not the file its config.json names"),
    ):
        with pytest.raises(EmotionError, match=said) as info:
            train.train_and_evaluate(distilled(faces, [path]), tmp_path / "run")
        assert "\n" not in str(info.value)
        assert not (tmp_path / "run" / "config.json").exists()
