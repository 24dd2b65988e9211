"""Orders, splits and the two feeds, against plain indexing."""

import jax
import numpy as np
import pytest

from emotion_jax import sharding
from emotion_jax.data import pipeline
from emotion_jax.data.pipeline import (
    PADDING,
    ArrayPixels,
    Split,
    epoch_order,
    evaluation_order,
    make_feed,
)
from emotion_jax.errors import EmotionError

RECORDS, FACES, BATCH = 60, 45, 8
FEEDS = ("stream", "resident")


class SpyPixels(ArrayPixels):
    """Writes down the number of every picture that is read."""

    def __init__(self, images):
        super().__init__(images)
        self.read = []

    def stream(self, rows):
        for batch in rows:
            self.read.extend(batch.tolist())
            yield self.images[batch]


def make_split():
    """A split of 45 of 60 records, every face unlike the others."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (RECORDS, 4, 6, 3), np.uint8)
    labels = rng.dirichlet(np.ones(8), FACES).astype(np.float32)
    weight = rng.uniform(0.5, 2, FACES).astype(np.float32)
    return Split(SpyPixels(images), np.sort(rng.permutation(RECORDS)[:FACES]), labels, weight, None)


def batches(feed, order, start=0):
    select = jax.jit(feed.select)
    return [select(*arguments) for arguments in feed(order, start)]


@pytest.mark.parametrize(("count", "batch_size"), [(45, 8), (48, 8), (7, 8), (9, 1), (1000, 128)])
def test_an_epoch_shows_no_face_twice_and_leaves_the_ragged_end(count, batch_size):
    order = epoch_order(3, 5, count, batch_size)
    assert order.shape == (count // batch_size, batch_size) and order.dtype == np.int32
    assert len(np.unique(order)) == order.size
    assert not order.size or (order.min() >= 0 and order.max() < count)
    if count % batch_size == 0:
        assert sorted(order.ravel()) == list(range(count))


def test_an_epochs_order_depends_on_seed_and_epoch_alone():
    orders = {(s, e): epoch_order(s, e, 96, 32).ravel() for s in range(3) for e in range(3)}
    np.random.seed(1)
    for (seed, epoch), order in orders.items():
        np.testing.assert_array_equal(epoch_order(seed, epoch, 96, 32).ravel(), order)
        # Batches of another size are cut from the same permutation.
        np.testing.assert_array_equal(epoch_order(seed, epoch, 96, 24).ravel(), order)
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    assert not any((np.diff(order) == 1).all() for order in orders.values())


def test_what_an_epoch_leaves_out_is_another_face_each_time():
    left = [frozenset(range(10)) - set(epoch_order(0, epoch, 10, 8).ravel()) for epoch in range(20)]
    assert len(set(left)) > 5


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (8, 1), (9, 2), (45, 6)])
def test_evaluation_shows_each_face_once_in_order(count, steps):
    order = evaluation_order(count, BATCH)
    assert order.shape == (steps, BATCH) and order.dtype == np.int32
    assert order.ravel()[:count].tolist() == list(range(count))
    assert (order.ravel()[count:] == PADDING).all()


@pytest.mark.parametrize("name", FEEDS)
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("start", [0, 2, 5, 6])
def test_feeds_yield_what_the_order_says(name, devices, start):
    split = make_split()
    feed = make_feed(name, split, sharding.make_mesh(devices))
    assert type(feed).__name__.lower() == name
    images = split.pixels.images[split.rows]
    for order in (epoch_order(1, 2, FACES, BATCH), evaluation_order(FACES, BATCH)):
        fed = batches(feed, order, start)
        assert len(fed) == max(len(order) - start, 0)
        for numbers, batch in zip(order[start:], fed, strict=True):
            at = np.where(numbers == PADDING, 0, numbers)
            np.testing.assert_array_equal(batch["image"], images[at])
            np.testing.assert_array_equal(batch["label"], split.labels[at])
            np.testing.assert_array_equal(
                batch["weight"], np.where(numbers == PADDING, 0, split.weight[at])
            )
            assert batch["image"].dtype == np.uint8
            assert batch["label"].dtype == batch["weight"].dtype == np.float32
            for leaf in batch.values():
                assert len(leaf.sharding.device_set) == devices
                assert leaf.addressable_shards[0].data.shape[0] == BATCH // devices


def test_padding_weighs_nothing():
    split = make_split()
    order = evaluation_order(FACES, BATCH)
    for name in FEEDS:
        fed = batches(make_feed(name, split, sharding.make_mesh(1)), order)
        total = sum(float(batch["weight"].sum()) for batch in fed)
        assert total == pytest.approx(split.weight.sum())
        assert np.asarray(fed[-1]["weight"] > 0).tolist() == [True] * 5 + [False] * 3


def test_a_stream_reads_only_the_steps_that_are_taken():
    split = make_split()
    order = epoch_order(0, 0, FACES, BATCH)
    feed = make_feed("stream", split, sharding.make_mesh(8))
    assert split.pixels.read == []
    steps = feed(order, 3)
    next(steps)
    assert split.pixels.read == split.rows[order[3]].tolist()
    next(steps)
    assert split.pixels.read == split.rows[order[3:5]].ravel().tolist()
    assert list(feed(order, len(order))) == []
    assert len(split.pixels.read) == 2 * BATCH


def test_a_resident_set_is_read_once(monkeypatch):
    monkeypatch.setattr(pipeline.Resident, "CHUNK", 16)  # three chunks, the last one padded
    split = make_split()
    feed = make_feed("resident", split, sharding.make_mesh(8))
    read = split.pixels.read
    # In chunks of one size, the last one filled up with the first face.
    assert read[:FACES] == split.rows.tolist() and set(read[FACES:]) == {split.rows[0]}
    batches(feed, evaluation_order(FACES, BATCH))
    assert len(read) == 48
    assert feed.data["image"].shape == (FACES, 4, 6, 3)


def test_one_compile_for_a_resident_epoch():
    feed = make_feed("resident", make_split(), sharding.make_mesh(8))
    select = jax.jit(feed.select)
    for epoch in range(2):
        for arguments in feed(epoch_order(0, epoch, FACES, BATCH)):
            select(*arguments)
    assert select._cache_size() == 1


def test_a_split_counts_and_reads_its_faces():
    labels = np.eye(8, dtype=np.float32)[[0, 3, 3, 7, 3]]
    labels[4] = [0.3, 0, 0, 0.4, 0.3, 0, 0, 0]  # the largest share decides
    images = np.arange(6, dtype=np.uint8)[:, None, None, None]
    rows = np.array([5, 1, 4, 0, 2])
    split = Split(ArrayPixels(images), rows, labels, np.ones(5, np.float32), None)
    assert len(split) == 5 and len(split.pixels) == 6 and split.pixels.shape == (1, 1, 1)
    assert split.counts().tolist() == [1, 0, 0, 3, 0, 0, 0, 1]
    assert split.read(np.array([3, 0, 2])).ravel().tolist() == [0, 5, 4]


def test_an_unknown_feed_is_named():
    with pytest.raises(EmotionError, match="^data.feed: 'disk'; use stream or resident$"):
        make_feed("disk", make_split(), sharding.make_mesh(1))
