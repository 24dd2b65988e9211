"""Training runs: what they leave behind, that they resume exactly, and what bad input gets."""

import json
import os
import shutil
import signal
import sys
import threading

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss
from tiny_runs import (
    VALIDATION,
    finish_run,
    last_state,
    lasting,
    make_config,
    rows,
)

from emotion_jax import export, train
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.data.pipeline import Stream
from emotion_jax.errors import EmotionError
from emotion_jax.inference import load_predictor
from emotion_jax.labels import EMOTIONS
from emotion_jax.logs import best_row
from emotion_jax.steps import eval_variables
from emotion_jax.training import conclude
from emotion_jax.training.experiment import make_experiment
from emotion_jax.training.initial import begin_from
from emotion_jax.weights import save_weights

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    return finish_run(faces, tmp_path_factory.mktemp("run") / "whole")


def test_a_run_learns_and_leaves_everything_behind(finished):
    got = rows(finished)
    assert [row["step"] for row in got] == [6, 12, 18] and [row["epoch"] for row in got] == [
        1,
        2,
        3,
    ]
    assert got[-1]["train/loss"] < got[0]["train/loss"]
    pictures = ["results", "confusion_matrix", "reliability", "labels", "train_batch"]
    expected = {f"{name}.png" for name in pictures}
    expected |= {
        "val_predictions.png",
        "config.json",
        "metrics.jsonl",
        "results.csv",
        "checkpoints",
    }
    assert expected <= {path.name for path in finished.iterdir()}
    assert list(finished.rglob("events.out.tfevents*"))
    steps = {int(path.name) for path in (finished / "checkpoints").iterdir() if path.is_dir()}
    assert steps == {12, 18, best_row(got)["step"]}


def test_the_same_config_trains_to_the_same_bits(faces, finished, tmp_path):
    train.train_and_evaluate(make_config(faces), tmp_path)
    config = make_config(faces)
    jax.tree.map(
        np.testing.assert_array_equal, last_state(config, tmp_path), last_state(config, finished)
    )
    assert [lasting(row) for row in rows(tmp_path)] == [lasting(row) for row in rows(finished)]


@pytest.mark.parametrize("every", [4, 0])
def test_a_killed_run_resumes_to_the_same_bits(
    faces, finished, tmp_path, monkeypatch, every, capsys
):
    """Killed in the middle of the second epoch, with and without a checkpoint in between."""
    config, calls = make_config(faces, checkpoint_every=every), []
    update = train.TrainProgress.update

    def dies(self, *args):
        calls.append(args)
        if len(calls) == 11:
            raise RuntimeError("killed")
        return update(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train.TrainProgress, "update", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train.train_and_evaluate(config, tmp_path)
    train.train_and_evaluate(config, tmp_path)
    assert f"resumed from step {10 if every else 6}" in capsys.readouterr().out
    assert list(map(lasting, rows(tmp_path))) == list(map(lasting, rows(finished)))
    jax.tree.map(
        np.testing.assert_array_equal, last_state(config, tmp_path), last_state(config, finished)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_first_and_goes_on(
    faces, finished, tmp_path, monkeypatch, number, capsys
):
    config, update = make_config(faces), train.TrainProgress.update

    def stops(self, epoch, done, *args):
        if (epoch, done) == (2, 3):
            os.kill(os.getpid(), number)
        return update(self, epoch, done, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train.TrainProgress, "update", stops)
        ended = KeyboardInterrupt if number == signal.SIGINT else SystemExit
        with pytest.raises(ended) as info:
            train.train_and_evaluate(config, tmp_path)
    if number == signal.SIGTERM:
        assert info.value.code == 143
    assert "saved at step 9" in capsys.readouterr().out
    train.train_and_evaluate(config, tmp_path)
    assert "resumed from step 9" in capsys.readouterr().out
    assert list(map(lasting, rows(tmp_path))) == list(map(lasting, rows(finished)))
    assert threading.active_count() < 50 and signal.getsignal(number) != train.Stop._ask


def test_a_finished_run_says_so_and_steps_no_more(faces, finished, capsys):
    before = rows(finished)
    train.train_and_evaluate(make_config(faces), finished)
    said = capsys.readouterr().out
    assert "finished already: 3 epochs, 18 steps" in said and "python predict.py --model=" in said
    assert rows(finished) == before


def test_a_finished_run_goes_on_when_asked_for_more(faces, finished, tmp_path, capsys):
    workdir = tmp_path / "longer"
    shutil.copytree(finished, workdir)
    train.train_and_evaluate(make_config(faces, num_epochs=4), workdir)
    assert "resumed from step 18" in capsys.readouterr().out
    assert [row["step"] for row in rows(workdir)] == [6, 12, 18, 24]


def test_processes_agree_on_the_run_s_own_steps(faces, finished, tmp_path, monkeypatch):
    """For Orbax asks with these, too, and who agrees on a number waits until it comes."""
    asked = []

    def agree(step):
        asked.append(step)
        return step == 7 and asked.count(7) == 1

    monkeypatch.setattr(train.sharding, "agreement", lambda: agree)
    with pytest.raises(SystemExit):
        train.train_and_evaluate(make_config(faces), tmp_path)
    train.train_and_evaluate(make_config(faces), tmp_path)
    assert asked == list(range(1, 19))
    assert list(map(lasting, rows(tmp_path))) == list(map(lasting, rows(finished)))


def test_stream_trains_to_the_same_numbers_as_resident(faces, finished, tmp_path):
    train.train_and_evaluate(make_config(faces, data__feed="stream"), tmp_path)
    for got, expected in zip(rows(tmp_path), rows(finished), strict=True):
        # The compiled programs differ, so the last bits may.
        assert got["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-4)
        assert got["val/accuracy"] == pytest.approx(expected["val/accuracy"], abs=0.03)


def test_eval_reports_the_best_checkpoint_as_training_measured_it(faces, finished, capsys):
    conclude.evaluate_workdir(make_config(faces), finished)
    best = best_row(rows(finished))
    said = " ".join(capsys.readouterr().out.split())
    assert f"best checkpoint (step {best['step']}," in said
    assert f"accuracy {100 * best['val/accuracy']:.1f} %" in said


def test_eval_says_where_faces_may_have_been_learnt(faces, finished, capsys):
    conclude.evaluate_workdir(make_config(faces), finished)
    assert conclude.NOT_ITS_FACES not in capsys.readouterr().out
    with np.load(faces) as file:
        arrays = Arrays(file["images"], 1 - file["split"], labels=file["labels"])
    save_arrays(finished.parent / "swapped.npz", arrays)
    conclude.evaluate_workdir(make_config(str(finished.parent / "swapped.npz")), finished)
    assert conclude.NOT_ITS_FACES in capsys.readouterr().out
    conclude.evaluate_workdir(make_config(faces), finished)  # its scores are there again


def test_all_streams_are_measured_by_one_program(faces):
    experiment = make_experiment(make_config(faces))
    variables = eval_variables(experiment.init_state())
    for name, mirrored in (("train", False), ("validation", False), ("validation", True)):
        feed = Stream(experiment.splits[name], experiment.mesh)
        found = experiment.compile_evaluation(feed, mirrored=mirrored)(variables)
        assert found.weight == len(feed.split)
    assert experiment._eval_step._cache_size() == 2


def test_scores_are_left_as_the_tables_say_them(faces, finished, tmp_path, capsys):
    best = best_row(rows(finished))
    scores = json.loads((finished / conclude.SCORES).read_text())
    assert set(scores) == {"step", "validation"} and scores["step"] == best["step"]
    assert scores["validation"]["accuracy"] == pytest.approx(best["val/accuracy"])
    shutil.copytree(finished, tmp_path / "run")
    capsys.readouterr()
    conclude.evaluate_workdir(make_config(faces, report_mirrored=True), tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "validation, mirrored faces' answers added, best checkpoint (step" in said
    scores = json.loads((tmp_path / "run" / conclude.SCORES).read_text())
    predictor = load_predictor(finished)
    split = make_experiment(make_config(faces)).splits["validation"]
    images, true = split.read(np.arange(len(split))), split.labels.argmax(1)
    probs = (predictor(images) + predictor(images[:, :, ::-1])) / 2
    assert scores["validation_mirrored"]["nll"] == pytest.approx(
        -np.log(probs[np.arange(len(true)), true]).mean(), rel=1e-3
    )


def test_the_predictor_answers_as_the_evaluation_counts(faces, finished):
    predictor = load_predictor(finished)
    split = make_experiment(make_config(faces)).splits["validation"]
    probs = predictor(split.read(np.arange(len(split))))
    best = best_row(rows(finished))
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    hits = (probs.argmax(1) == split.labels.argmax(1)).mean()
    loss = -np.log(probs[np.arange(len(split)), split.labels.argmax(1)]).mean()
    assert hits == pytest.approx(best["val/accuracy"])
    assert loss == pytest.approx(best["val/loss"], rel=1e-4)


def test_a_checkpoint_of_eight_devices_is_read_on_one(faces, finished):
    """The run above was on eight; what is read is plain NumPy, here of one named step."""
    step = max(int(path.name) for path in (finished / "checkpoints").iterdir() if path.is_dir())
    predictor = load_predictor(finished / "checkpoints" / str(step))
    leaves = jax.tree.leaves(predictor.variables)
    assert {len(leaf.devices()) for leaf in leaves} == {1}
    ema = last_state(make_config(faces), finished).ema
    jax.tree.map(np.testing.assert_array_equal, predictor.variables, ema)


def test_the_predictor_refuses_what_are_no_faces(finished):
    predictor = load_predictor(finished)
    for images in (
        np.zeros((2, 9, 9)),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((1, 0, 5, 3), "u1"),
    ):
        with pytest.raises(EmotionError, match=r"^faces must be uint8 \[N, H, W, 3\], not "):
            predictor(images)


def test_the_predictor_takes_any_size_and_number(finished):
    predictor = load_predictor(finished)
    rng = np.random.default_rng(1)
    faces = rng.integers(0, 256, (5, 31, 17, 3), np.uint8)
    together = predictor(faces)
    alone = np.concatenate([predictor(face[None]) for face in faces])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.dtype == np.float32
    assert predictor(faces[:0]).shape == (0, len(EMOTIONS))
    with pytest.raises(EmotionError, match="float64"):
        predictor(faces / 255)


BAD = {
    "another config": ({"seed": 1}, "seed: .*begun with 0, not 1"),
    "more faces a batch than there are": (
        {"batch_size": 112},
        "batch_size: 112 is more than the 96",
    ),
    "a batch that eight devices cannot share": ({"batch_size": 12}, "batch_size: 12.*8 devices"),
    "parts that cannot be": ({"accumulate": 3}, "accumulate: 3; must divide .* batch, 2"),
    "pairs that cannot be": ({"batch_size": 24}, "batch_size: 24; mixup blends pairs"),
    "no such optimizer": ({"optimizer__name": "adam"}, "optimizer.name: 'adam'"),
    "no such schedule": ({"schedule__name": "line"}, "schedule.name: 'line'"),
    "no such network": ({"model": {"name": "resnet"}}, "model.name: no network 'resnet'"),
    "no such feed": ({"data__feed": "drip"}, "data.feed: 'drip'"),
    "no such source": ({"data__source": "imagenet"}, "data.source: no source 'imagenet'"),
    "no data": ({"data__dir": "/nowhere.npz"}, "no array file '/nowhere.npz'"),
    "fewer epochs than it has": ({"num_epochs": 1}, "num_epochs: 1 end at step 6.*at step 18"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_sentence(faces, finished, tmp_path, name):
    changes, message = BAD[name]
    workdir = finished if name in ("another config", "fewer epochs than it has") else tmp_path
    before = rows(finished)
    with pytest.raises(EmotionError, match=message) as info:
        train.train_and_evaluate(make_config(faces, **changes), workdir)
    assert "\n" not in str(info.value)
    assert rows(finished) == before
    # What was refused must not stand in the way of the command mended.
    assert not (tmp_path / "config.json").exists()


def test_a_workdir_of_another_network_is_refused(faces, finished, tmp_path):
    import shutil

    workdir = tmp_path / "other"
    shutil.copytree(finished, workdir)
    (workdir / "config.json").unlink()
    config = make_config(faces, model={"name": "simplenet", "width": 0.125}, image_size=28)
    with pytest.raises(EmotionError, match="another"):
        train.train_and_evaluate(config, workdir)
    with pytest.raises(EmotionError, match="another"):
        conclude.evaluate_workdir(config, workdir)


def test_what_is_no_workdir_is_refused(faces, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmotionError, match="cannot be written"):
        train.train_and_evaluate(make_config(faces), tmp_path / "file" / "run")
    with pytest.raises(EmotionError, match="no run in"):
        conclude.evaluate_workdir(make_config(faces), tmp_path)
    with pytest.raises(EmotionError, match="no workdir"):
        load_predictor(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(EmotionError, match="no finished checkpoint"):
        load_predictor(tmp_path)


@pytest.mark.parametrize("rate", [0.02, 1e30])
def test_a_loss_that_is_no_number_stops_the_run(faces, tmp_path, rate):
    config = make_config(faces, optimizer__name="sgd", optimizer__learning_rate=rate)
    if rate < 1:
        return train.train_and_evaluate(config, tmp_path)
    with pytest.raises(EmotionError, match="step 2: its loss .*lower optimizer"):
        train.train_and_evaluate(config, tmp_path)


@pytest.mark.parametrize("what", ["labels", "pixels", "validation"])
def test_other_faces_are_not_a_continuation(faces, finished, tmp_path, what):
    with np.load(faces) as file:
        images, split, labels = file["images"].copy(), file["split"], file["labels"].copy()
    match what:
        case "labels":
            labels = (labels + 1) % 8
        case "pixels":
            images[np.flatnonzero(split == 0)[0], 0, 0] ^= 1
        case "validation":
            labels[np.flatnonzero(split == 1)[0]] ^= 1
    save_arrays(tmp_path / "other.npz", Arrays(images, split, labels=labels))
    shutil.copytree(finished, tmp_path / "run")
    config = make_config(str(tmp_path / "other.npz"), num_epochs=4)
    with pytest.raises(EmotionError, match="trained and measured on other faces"):
        train.train_and_evaluate(config, tmp_path / "run")


def test_what_is_not_a_number_is_never_the_best(tmp_path):
    from emotion_jax.steps import TrainState

    with Checkpoints(tmp_path / "checkpoints", monitor="val/loss") as checkpoints:
        for step, loss in enumerate([2.0, 1.0, float("nan")], start=1):
            x = np.full(2, step, np.float32)
            state = TrainState(np.int32(step), {"w": x}, {}, None, {"m": x})
            checkpoints.save(state, {}, {"val/loss": loss})
        assert checkpoints.best_step == 2 and checkpoints.latest_step == 3
        got = checkpoints.read_model({"params": {"w": x}, "batch_stats": {}})
    np.testing.assert_array_equal(got["params"]["w"], [2, 2])


@pytest.mark.parametrize("best", ["val/loss", "val/macro_f1"])
def test_another_measure_of_the_best_can_be_asked_for_later(faces, finished, best, capsys):
    conclude.evaluate_workdir(make_config(faces, best=best), finished)
    assert f"by {best}" in capsys.readouterr().out


def test_vgg_is_built_from_the_same_config(faces):
    options = {"name": "vgg16", "width": 1 / 64, "dropout": (), "dtype": "float32"}
    config = make_config(faces, model=options, image_size=32, ema_decay=0.0)
    assert make_experiment(config).model.dropout == (0.5, 0.5)
    with pytest.raises(EmotionError, match="cannot be built.*32x32"):
        make_experiment(make_config(faces, model=options, image_size=16))


def test_a_second_run_in_the_same_workdir_is_refused(faces, tmp_path):
    from emotion_jax.training.workdir import locked

    with locked(tmp_path), pytest.raises(EmotionError, match="a run is under way"):
        train.train_and_evaluate(make_config(faces), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_export_calibrates_on_the_run_s_validation_faces(
    faces, finished, tmp_path, monkeypatch, capsys
):
    words = [f"--model={finished}", f"--output={tmp_path}", "--calibrate"]
    monkeypatch.setattr(sys, "argv", ["export", *words])
    export.main()
    said = capsys.readouterr().out
    temperature = json.loads((tmp_path / "config.json").read_text())["temperature"]
    assert f"{VALIDATION} validation faces, temperature {temperature:g}:" in said
    split = make_experiment(make_config(faces)).splits["validation"]
    images, true = split.read(np.arange(len(split))), split.labels.argmax(1)
    # The answers at temperature 1 hold the logits but for a sum, which no temperature minds.
    before = np.log(load_predictor(finished)(images))

    def nll(temperature):
        return log_loss(true, softmax(before.astype(float) / temperature, axis=1), labels=range(8))

    assert nll(temperature) < min(nll(1.02 * temperature), nll(0.98 * temperature), nll(1))
    assert f"before  calibration error {best_row(rows(finished))['val/ece']:.4f}" in said
    # Kernels are in float16: an answer may turn on a face between two emotions.
    after = load_predictor(tmp_path)(images)
    assert (after.argmax(1) == before.argmax(1)).mean() > 0.9


def test_a_run_begins_from_weights_and_resumes_without_them(faces, finished, tmp_path):
    """Interrupted and whole end alike, and the weights are asked for but once."""
    weights = tmp_path / "weights"
    shutil.copytree(finished, weights)
    config = make_config(faces, init_from=str(weights))
    experiment = make_experiment(config)
    state, drawn, width, mark = begin_from(str(weights), experiment.init_state(), experiment.meta)
    expected = load_predictor(weights).variables
    for got in ({"params": state.params, "batch_stats": state.batch_stats}, state.ema):
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert (drawn, width) == ([], None)
    whole, part = tmp_path / "whole", tmp_path / "part"
    train.train_and_evaluate(config, whole)
    assert rows(whole)[0]["val/loss"] < rows(finished)[0]["val/loss"]

    def dies(self, epoch, done, *_):
        if epoch == 3:
            raise RuntimeError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.TrainProgress, "update", dies)
        with pytest.raises(RuntimeError):
            train.train_and_evaluate(config, part)
    shutil.rmtree(weights)
    train.train_and_evaluate(config, part)
    ends = (last_state(config, folder) for folder in (part, whole))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    for folder in (part, whole):
        with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.read_meta()["seed"] == mark != config.seed


def test_weights_that_are_not_there_bind_no_workdir(faces, finished, tmp_path):
    """They are told before the data is opened, and the corrected command is no other run."""
    folder, nothing = tmp_path / "run", str(tmp_path / "nothing")
    lost = str(tmp_path / "no_faces.npz")
    with pytest.raises(EmotionError, match="nothing' is no workdir"):
        train.train_and_evaluate(make_config(lost, init_from=nothing), folder)
    with pytest.raises(EmotionError, match="distill.teachers: no .*nothing'"):
        train.train_and_evaluate(make_config(lost, distill__teachers=(nothing,)), folder)
    with pytest.raises(EmotionError, match="^grey: True, but"):
        train.train_and_evaluate(make_config(faces, init_from=str(finished), grey=True), folder)
    train.train_and_evaluate(make_config(faces, init_from=str(finished), num_epochs=1), folder)
    assert len(rows(folder)) == 1


def test_a_run_from_weights_draws_what_they_have_not_seen(faces, finished, tmp_path, monkeypatch):
    """The same seed, and other crops and masks; none of the weights' own runs drew them."""
    seeds, key = [], jax.random.key
    weights = tmp_path / "weights"
    experiment = make_experiment(make_config(faces))
    save_weights(weights, eval_variables(experiment.init_state()), experiment.meta)

    class Steps:
        def __init__(self, *_, **__):
            raise RuntimeError("about to step")

    monkeypatch.setattr(train, "TrainProgress", Steps)
    monkeypatch.setattr(train.jax.random, "key", lambda seed: seeds.append(seed) or key(seed))
    for i, source in enumerate(("", finished, weights, finished)):
        with pytest.raises(RuntimeError, match="about to step"):
            train.train_and_evaluate(make_config(faces, init_from=str(source)), tmp_path / str(i))
        seeds.append(None)
    drawn, again, others, same = (seeds[i - 1] for i, seed in enumerate(seeds) if seed is None)
    assert drawn == 0 and again == same and len({drawn, again, others}) == 3


def test_a_run_says_what_it_begins_from(faces, tmp_path, monkeypatch, capsys):
    narrow = {"name": "vgg16", "width": 1 / 64, "dropout": (), "dtype": "float32"}
    experiment = make_experiment(make_config(faces, model=narrow, image_size=32))
    weights = tmp_path / "weights"
    save_weights(weights, eval_variables(experiment.init_state()), experiment.meta)
    wide = {**narrow, "width": 1 / 32}
    config = make_config(faces, model=wide, image_size=32, init_from=str(weights))
    # The first step would compile for a minute.
    monkeypatch.delattr(train, "TrainProgress")
    with pytest.raises(NameError, match="TrainProgress"):
        train.train_and_evaluate(config, tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert f"begins from {weights}, widened from 0.015625 to 0.03125" in said
    assert "drawn anew: no layer" in said
