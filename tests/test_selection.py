"""Epochs that draw rare classes more often, and the config's other answers to imbalance."""

import dataclasses
import types
import zlib

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given
from tiny_runs import Tiny, make_config

from emotion_jax import models, sharding
from emotion_jax.data import open_data
from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.data.pipeline import ArrayPixels, Split, choose_feed
from emotion_jax.data.selection import epoch_counts, sample
from emotion_jax.errors import EmotionError
from emotion_jax.inference import load_predictor
from emotion_jax.labels import EMOTIONS
from emotion_jax.train import train_and_evaluate
from emotion_jax.training.experiment import make_experiment

COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=8).filter(any).map(np.array)
POWERS = st.floats(0, 1)


@given(COUNTS, POWERS)
def test_an_epoch_has_as_many_draws_as_faces_in_the_shares_asked_for(counts, power):
    draws = epoch_counts(counts, power)
    assert draws.sum() == counts.sum() and not draws[counts == 0].any()
    weights = [n ** (1 - power) if n else 0 for n in counts.tolist()]
    for drawn, weight in zip(draws, weights, strict=True):
        assert abs(drawn - weight / sum(weights) * counts.sum()) < 1 + 1e-6


def test_the_ends_of_the_power():
    counts = np.array([40, 0, 8, 2])
    assert epoch_counts(counts, 0).tolist() == [40, 0, 8, 2]
    assert sorted(epoch_counts(counts, 1).tolist()) == [0, 16, 17, 17]


@given(COUNTS, POWERS, st.integers(0, 99))
def test_no_face_comes_again_before_all_of_its_class_came(counts, power, epoch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    places = sample(labels, power, 3, epoch)
    assert places.shape == labels.shape
    times = np.bincount(places, minlength=len(labels))
    for label in np.unique(labels):
        of_class = times[labels == label]
        assert of_class.max() - of_class.min() <= 1
    np.testing.assert_array_equal(places, sample(labels, power, 3, epoch))


def test_every_epoch_and_every_seed_draws_other_faces():
    labels = np.repeat([0, 1], [900, 20])
    draws = [set(sample(labels, 1, *pair).tolist()) for pair in ((0, 0), (0, 1), (1, 0))]
    assert len({frozenset(draw) for draw in draws}) == 3
    # Of 900 faces an epoch takes 460: over ten epochs hardly one is left out.
    assert len(set().union(*(sample(labels, 1, 0, e).tolist() for e in range(10)))) > 900


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Faces of eight classes, the last a twentieth of the first."""
    counts = np.array([80, 60, 40, 30, 20, 10, 8, 4])
    labels = np.repeat(np.arange(8), counts)
    rng = np.random.default_rng(0)
    images = 30 * labels[:, None, None, None] + rng.integers(0, 20, (len(labels), 12, 12, 3))
    labels, images = np.tile(labels, 2), np.tile(images, (2, 1, 1, 1))
    split = np.repeat([0, 1], counts.sum()).astype(np.uint8)
    path = tmp_path_factory.mktemp("uneven") / "faces.npz"
    save_arrays(path, Arrays(images.astype(np.uint8), split, labels=labels))
    return str(path)


def test_a_balanced_epoch_trains_on_what_it_draws(uneven):
    config = make_config(uneven, data__sampling_power=1.0, num_devices=1)
    config.loss.update({"class_weight_power": 1.0, "logit_adjustment": 1.0})
    experiment = make_experiment(config)
    order = experiment.epoch_order(2)
    assert order.shape == (252 // 16, 16) and order.dtype == np.int32
    labels = experiment.splits["train"].labels.argmax(1)
    assert np.ptp(np.bincount(labels[order.ravel()])) <= 14  # 12 are the ragged end
    assert (order != make_experiment(config).epoch_order(3)).any()
    # Weights and adjustment are of the epoch: nothing is corrected twice.
    given = experiment.loss_fn.keywords
    np.testing.assert_allclose(given["class_weights"], np.ones(8), atol=0.04)
    np.testing.assert_allclose(given["logit_adjustment"], np.full(8, np.log(1 / 8)), atol=0.04)


def test_logits_are_adjusted_by_the_shares_of_training(uneven):
    config = make_config(uneven, loss__logit_adjustment=2.0, num_devices=1)
    experiment = make_experiment(config)
    shares = np.array([80, 60, 40, 30, 20, 10, 8, 4]) / 252
    given = experiment.loss_fn.keywords["logit_adjustment"]
    np.testing.assert_allclose(given, 2 * np.log(shares), rtol=1e-12)


def test_seven_classes_leave_contempt_out_everywhere(uneven, tmp_path):
    config = make_config(uneven, data__num_classes=7, num_devices=1, num_epochs=1)
    splits = open_data(config)
    assert splits["train"].counts().tolist() == [80, 60, 40, 30, 20, 10, 8]
    train_and_evaluate(config, tmp_path)
    predictor = load_predictor(tmp_path)
    assert predictor.meta["emotions"] == list(EMOTIONS[:7]) and predictor.model.num_classes == 7
    probs = predictor(np.zeros((3, 12, 12, 3), np.uint8))
    assert probs.shape == (3, 8) and not probs[:, 7].any()
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-6)


def test_votes_for_contempt_are_shared_out(tmp_path):
    votes = np.zeros((4, 10), np.uint8)
    votes[0, [0, 7]] = 6, 4  # neutral, mostly
    votes[1, [0, 7]] = 4, 6  # contempt: gone
    votes[2:, 1] = 10
    images = np.zeros((4, 8, 8, 3), np.uint8)
    save_arrays(tmp_path / "v.npz", Arrays(images, np.array([0, 0, 0, 1], np.uint8), votes=votes))
    train = open_data(make_config(str(tmp_path / "v.npz"), data__num_classes=7))["train"]
    assert train.rows.tolist() == [0, 2]
    np.testing.assert_array_equal(train.labels, np.eye(7, dtype=np.float32)[[0, 1]])


@pytest.mark.parametrize(("memory", "feed"), [(3240, "resident"), (3239, "stream")])
def test_auto_takes_resident_where_it_fits(monkeypatch, memory, feed):
    split = Split(ArrayPixels(np.zeros((10, 4, 6, 3), np.uint8)), np.arange(10), None, None, None)
    other = dataclasses.replace(split, rows=np.arange(5))
    # 10 + 5 faces of 72 bytes are 1,080, a third of 3,240.
    monkeypatch.setattr(sharding, "memory", lambda mesh: memory)
    assert choose_feed([split, other], sharding.make_mesh(1)) == feed


class Card:
    """A device that says how much memory it has."""

    def __init__(self, size):
        self.memory_stats = lambda: {"bytes_limit": size << 20}


@pytest.mark.parametrize(
    ("cards", "host", "expected"),
    [((), 8000, 1000), ((500, 400), 8000, 400), ((5000, 4000), 3000, 3000)],
    ids=["a CPU's eight devices share it", "the smallest card", "cards beyond the host"],
)
def test_memory_is_what_each_device_may_take(monkeypatch, cards, host, expected):
    """In MiB."""
    monkeypatch.setattr(sharding, "host_limit", lambda: host << 20)
    mesh = sharding.make_mesh()
    if cards:
        mesh = types.SimpleNamespace(local_devices=[Card(size) for size in cards])
    assert jax.device_count() == 8 and sharding.memory(mesh) == expected << 20


@pytest.mark.parametrize(("elsewhere", "expected"), [(100, 100), (5000, 2000)])
def test_processes_on_one_host_share_its_memory(monkeypatch, elsewhere, expected):
    """Two are here, each with eight devices, and one elsewhere."""
    name = zlib.crc32(b"here") >> 1

    def gather(number):
        return np.array([number, number, 5 if number == name else elsewhere])

    monkeypatch.setattr(sharding.socket, "gethostname", lambda: "here")
    monkeypatch.setattr(sharding, "host_limit", lambda: 32_000 << 20)
    monkeypatch.setattr(sharding, "_gather", gather)
    assert sharding.memory(sharding.make_mesh()) == expected << 20


def test_several_processes_take_all_their_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(EmotionError, match="^num_devices: 4; of several processes each takes all"):
        sharding.make_mesh(4)


@pytest.fixture
def voted(tmp_path):
    """Eighty faces with votes, a third of them without a majority; twins on both sides."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (80, 12, 12, 1), np.uint8)
    votes = np.zeros((80, 10), np.uint8)
    votes[np.arange(80), rng.integers(0, 8, 80)] = 10
    votes[::3] = [4, 3, 3, 0, 0, 0, 0, 0, 0, 0]
    split = np.repeat([0, 1], [60, 20]).astype(np.uint8)
    images[61], images[62], images[63] = images[4], images[5], images[6]
    images[7] = images[8]  # twins within training
    save_arrays(tmp_path / "voted.npz", Arrays(images, split, votes=votes))
    return str(tmp_path / "voted.npz")


def test_all_votes_train_and_only_majorities_are_held_out_to_judge(voted):
    config = make_config(voted, data__train_votes="distribution", data__holdout=0.3)
    splits = open_data(config)
    train, held, test = (splits[name].rows for name in ("train", "validation", "test"))
    assert set(splits) == {"train", "validation", "test"}
    assert (train % 3 == 0).any() and not (held % 3 == 0).any() and not (test % 3 == 0).any()
    assert not set(train) & set(held) and held.max() < 60 <= test.min()
    assert {7, 8} <= set(train) or {7, 8} <= set(held)
    # Of what was held out, those without a majority serve nobody.
    gone = set(range(60)) - set(train) - set(held)
    assert gone and all(row % 3 == 0 for row in gone)
    # Under the majority's rule nothing changes: what is held out is judged, all of it.
    splits = open_data(make_config(voted, data__holdout=0.3))
    rows = [*splits["train"].rows, *splits["validation"].rows]
    assert sorted(rows) == [row for row in range(60) if row % 3]


@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_training_leaves_out_what_is_judged_elsewhere(voted, holdout):
    config = make_config(voted, data__train_votes="distribution", data__holdout=holdout)
    seen = open_data(config)["train"].rows
    config.data.drop_seen = True
    rest = open_data(config)["train"].rows
    # 63 has no majority and is not judged, so its twin may stay; 61 and 62 are.
    judged = {4, 5}
    assert not judged & set(rest)
    if not holdout:
        assert set(seen) - set(rest) == judged
