"""What breaks a run leaves whole what it has written: damage, full disks, wrong numbers, kills."""

import json
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import SIDE, Tiny, finish_run, last_state, lasting, make_config, rows, write_faces

from emotion_jax import losses, models, steps, train
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.errors import EmotionError
from emotion_jax.host.manifest import MANIFEST, find_damage, write_manifest
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import load_predictor
from emotion_jax.training.experiment import make_experiment

BAD_FACE = 17

# Of normalized pixels: above it is white alone.
WHITE = 0.95 * (1 - ImageSpec().mean[0]) / ImageSpec().std[0]


class Fragile(Tiny):
    """Answers NaN where it is shown the one white face."""

    def __call__(self, x, *, train):
        white = x.min((1, 2, 3)) > WHITE
        return super().__call__(x, train=train) * jnp.where(white, jnp.nan, 1.0)[:, None]


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)
    monkeypatch.setitem(models.MODELS, "fragile", Fragile)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.npz", white=[BAD_FACE])


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    return finish_run(faces, tmp_path_factory.mktemp("run") / "whole")


def flip(data, i):
    return data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :]


DAMAGE = {
    "flipped": lambda data: flip(data, len(data) // 2),
    "cut short": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "removed": None,
}


def damage(path, how):
    data = path.read_bytes()
    path.unlink()
    if DAMAGE[how]:
        path.write_bytes(DAMAGE[how](data))


def copy_of(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "checkpoints"


def assert_equal_runs(config, a, b):
    jax.tree.map(np.testing.assert_array_equal, last_state(config, a), last_state(config, b))
    assert list(map(lasting, rows(a))) == list(map(lasting, rows(b)))


@pytest.mark.parametrize("how", DAMAGE)
def test_no_damage_to_any_file_goes_unseen(finished, tmp_path, how):
    folder = tmp_path / "18"
    shutil.copytree(finished / "checkpoints" / "18", folder)
    assert find_damage(folder) is None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        damage(path, how)
        said = find_damage(folder)
        assert said and (path.name in said or path.name == MANIFEST), (path, said)
        path.write_bytes(whole)
    assert find_damage(folder) is None


def test_a_manifest_half_written_is_none_of_the_files(tmp_path):
    (tmp_path / "a").write_text("a")
    left = tmp_path / f"{MANIFEST}.123.new"
    left.write_text("{")
    write_manifest(tmp_path)
    assert find_damage(tmp_path) is None
    left.unlink()
    assert find_damage(tmp_path) is None
    (tmp_path / f"{MANIFEST}.old").write_text("another's")
    write_manifest(tmp_path)
    (tmp_path / f"{MANIFEST}.old").unlink()
    assert f"{MANIFEST}.old" in find_damage(tmp_path)


def test_a_manifest_that_names_nothing_or_files_elsewhere_is_none(tmp_path):
    (tmp_path / "outside").write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inside").write_text("x")
    write_manifest(folder)
    digests = json.loads((folder / MANIFEST).read_text())
    assert list(digests) == ["inside"] and find_damage(folder) is None
    for text in ("{}", "[]", "", '{"../outside": "0"}'):
        (folder / MANIFEST).write_text(text)
        assert find_damage(folder)


@pytest.mark.parametrize(
    ("name", "how"),
    [("optimizer/_METADATA", "cut short"), ("metrics/metrics", "emptied"), (MANIFEST, "removed")],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    faces, finished, tmp_path, capfd, name, how
):
    workdir, checkpoints = copy_of(finished, tmp_path)
    damage(checkpoints / "18" / name, how)
    config = make_config(faces)
    train.train_and_evaluate(config, workdir)
    said = capfd.readouterr()
    # One line, and none of Orbax's: it never sees the damaged files.
    warning = f"warning: checkpoint 18 in '{checkpoints}' is damaged ({name}"
    assert said.err.startswith(warning) and said.err.count("\n") == 1, said.err
    assert "resumed from step 12" in said.out and (checkpoints / "18.damaged").is_dir()
    assert_equal_runs(config, workdir, finished)


def test_prediction_takes_the_best_of_those_that_are_whole(finished, tmp_path, capfd):
    workdir, checkpoints = copy_of(finished, tmp_path)
    with Checkpoints(checkpoints, read_only=True) as whole:
        best = whole.best_step
    damage(checkpoints / str(best) / "model" / "_METADATA", "flipped")
    before = sorted(path.name for path in checkpoints.iterdir())
    with Checkpoints(checkpoints, read_only=True) as rest:
        other = rest.best_step
    assert other != best
    capfd.readouterr()
    got, expected = load_predictor(workdir), load_predictor(checkpoints / str(other))
    jax.tree.map(np.testing.assert_array_equal, got.variables, expected.variables)
    assert capfd.readouterr().err.count(f"warning: checkpoint {best} ") == 2
    with pytest.raises(EmotionError, match=f"checkpoint {best} in .* is damaged"):
        load_predictor(checkpoints / str(best))
    # Who only reads moves nothing.
    assert sorted(path.name for path in checkpoints.iterdir()) == before


def test_without_a_whole_checkpoint_nothing_is_begun_anew(faces, finished, tmp_path):
    workdir, checkpoints = copy_of(finished, tmp_path)
    for folder in checkpoints.iterdir():
        if folder.name.isdigit():
            damage(folder / "commit_success.txt", "emptied")
    before = rows(workdir)
    for _ in range(2):
        with pytest.raises(EmotionError, match="no checkpoint in .* is whole"):
            train.train_and_evaluate(make_config(faces), workdir)
    with pytest.raises(EmotionError, match="no checkpoint in .* is whole"):
        load_predictor(workdir)
    assert rows(workdir) == before


def test_checkpoints_from_before_there_were_hashes_are_taken(faces, finished, tmp_path, capfd):
    workdir, checkpoints = copy_of(finished, tmp_path)
    for path in checkpoints.rglob(MANIFEST):
        path.unlink()
    load_predictor(workdir)
    assert "from an earlier version" in capfd.readouterr().err
    with Checkpoints(checkpoints) as taken:
        assert taken.latest_step == 18
    assert all((f / MANIFEST).exists() for f in checkpoints.iterdir() if f.name.isdigit())


def test_a_full_disk_is_one_sentence_and_costs_nothing(faces, finished, tmp_path, monkeypatch):
    """A limit on the size of files stands in for the disk: the system refuses to write either."""
    config, save = make_config(faces), Checkpoints.save
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(self, state, *args):
        if int(state.step) == 12:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        save(self, state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_on_a_full_disk)
        try:
            with pytest.raises(EmotionError, match="checkpoint of step 12 cannot be .*make room"):
                train.train_and_evaluate(config, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()] == ["6"]
    train.train_and_evaluate(config, tmp_path)
    assert_equal_runs(config, tmp_path, finished)


def fragile(faces, **changes):
    return make_config(
        faces, model={"name": "fragile"}, augment__brightness=0.0, augment__mixup=0.0, **changes
    )


def test_a_step_that_is_not_finite_stops_the_run_with_its_batch(faces, tmp_path):
    config = fragile(faces)
    experiment = make_experiment(config)
    bad = 1 + int(np.argwhere(experiment.epoch_order(0) == BAD_FACE)[0, 0])
    with pytest.raises(EmotionError, match=f"step {bad}: .*nonfinite-{bad}.npz") as info:
        train.train_and_evaluate(config, tmp_path)
    assert "\n" not in str(info.value)
    with np.load(tmp_path / f"nonfinite-{bad}.npz") as kept:
        assert (kept["image"] == 255).all((1, 2, 3)).sum() == 1 and kept["step"] == bad - 1
        assert BAD_FACE in kept["place"]
    # The same workdir goes on without such steps, and counts them: one an epoch.
    train.train_and_evaluate(fragile(faces, on_nonfinite="skip"), tmp_path)
    got = rows(tmp_path)
    assert [row["train/skipped"] for row in got] == [1, 1, 1]
    assert [row["step"] for row in got] == [6, 12, 18]
    assert np.isfinite([row["train/loss"] for row in got]).all()
    rate = experiment.schedule(18 - 1 - 3)
    assert got[-1]["learning_rate"] == pytest.approx(float(rate))


@pytest.mark.parametrize("mapping", ["jit", "pmap"])
def test_a_step_not_taken_changes_the_count_alone(mapping):
    """Under pmap one example of one shard is to blame, and every shard must leave the step out."""
    model, tx, spec = Tiny(), optax.adamw(0.1), ImageSpec(size=SIDE)
    state = steps.init_state(jax.random.key(0), model=model, tx=tx, spec=spec, ema=True)
    axis = "data" if mapping == "pmap" else None
    kwargs = {"model": model, "tx": tx, "spec": spec, "axis_name": axis, "ema_decay": 0.9}
    step = partial(steps.train_step, loss_fn=losses.cross_entropy, **kwargs)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8),
        "label": np.eye(8, dtype=np.float32),
        "weight": np.ones(8, np.float32),
    }
    if mapping == "pmap":
        batch = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
        step = jax.pmap(step, axis, in_axes=(None, 0, None), devices=jax.devices()[:4])
    else:
        step = jax.jit(step)
    bad = {**batch, "label": batch["label"].copy()}
    bad["label"].reshape(8, 8)[5, 5] = np.inf
    after, measured = jax.tree.map(np.asarray, step(state, bad, jax.random.key(1)))
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(state.replace(step=1)), strict=True):
        np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape))
    assert (measured.skipped == 1).all() and (measured.loss == 0).all()
    assert not measured.confusion.any() and not measured.weight.any()
    good, measured = step(state, batch, jax.random.key(1))
    assert (np.asarray(measured.skipped) == 0).all() and np.isfinite(measured.loss).all()
    moved = np.asarray(good.params["Dense_0"]["kernel"]) != np.asarray(
        state.params["Dense_0"]["kernel"]
    )
    assert moved.any()


def test_killed_runs_and_damaged_checkpoints_end_in_the_same_bits():
    """The short form of the benchmark: kills in a step, a checkpoint, an evaluation."""
    program = Path(__file__).parents[1] / "benchmarks" / "chaos.py"
    words = ["--kills=2", "--builds=0", "--damages=1", "--epochs=3"]
    done = subprocess.run(
        [sys.executable, str(program), *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "yes" in done.stdout and "1 of 1" in done.stdout
