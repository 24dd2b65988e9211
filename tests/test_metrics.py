"""Metrics against scikit-learn, and as sums that add up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from emotion_jax.metrics import BINS, Running, empty, measure, merge, summarize, to_host

CLASSES = 6


def draw(rng, size, classes=range(CLASSES), whole=False):
    """Random logits, labels, weights (a fifth of them 0: padding) and losses."""
    labels = rng.dirichlet(np.ones(CLASSES), size)
    labels[:, [k for k in range(CLASSES) if k not in classes]] = 0
    weight = np.ones(size) if whole else rng.uniform(0.2, 3, size)
    weight[rng.random(size) < 0.2] = 0
    # Logits that know something of the labels, so that no count is near 0 or chance.
    logits = 4 * labels + rng.normal(size=(size, CLASSES))
    arrays = logits, labels / labels.sum(1, keepdims=True), weight, rng.exponential(size=size)
    return tuple(x.astype(np.float32) for x in arrays)


@pytest.mark.parametrize("whole", [True, False], ids=["padding", "uneven weights"])
@pytest.mark.parametrize("classes", [range(CLASSES), (0, 2, 5)], ids=["all", "some"])
def test_metrics_are_scikit_learn_s(whole, classes):
    rng = np.random.default_rng(0)
    logits, labels, weight, losses = draw(rng, 300, classes, whole)
    metrics = jax.jit(measure)(logits, labels, weight, losses)
    got = summarize(metrics)
    true, predicted = labels.argmax(1), logits.argmax(1)
    if whole:  # dropping the padding is the same as weighing it 0
        real = weight > 0
        true, predicted, losses, weight = true[real], predicted[real], losses[real], weight[real]
    weights = {"sample_weight": weight}
    confusion = reference.confusion_matrix(true, predicted, labels=range(CLASSES), **weights)
    np.testing.assert_allclose(metrics.confusion, confusion, rtol=1e-5, atol=1e-6)
    assert got["accuracy"] == pytest.approx(
        reference.accuracy_score(true, predicted, **weights), rel=1e-5
    )
    assert got["loss"] == pytest.approx(np.average(losses, weights=weight), rel=1e-5)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        true, predicted, labels=range(CLASSES), zero_division=np.nan, **weights
    )
    occurs = np.isin(range(CLASSES), true[weight > 0])
    np.testing.assert_allclose(got["recall"], np.where(occurs, recall, np.nan), rtol=1e-5)
    np.testing.assert_allclose(got["precision"], precision, rtol=1e-5)
    np.testing.assert_allclose(got["f1"][occurs], f1[occurs], rtol=1e-5)
    np.testing.assert_allclose(
        got["macro_f1"],
        reference.f1_score(
            true, predicted, labels=np.flatnonzero(occurs), average="macro", **weights
        ),
        rtol=1e-5,
    )
    counts = [weight[true == k].sum() for k in range(CLASSES)]
    np.testing.assert_allclose(got["count"], counts, rtol=1e-5)


def test_parts_merge_to_the_whole():
    rng = np.random.default_rng(1)
    arrays = draw(rng, 101, whole=True)
    parts, total = (slice(0, 7), slice(7, 60), slice(60, 101)), empty(CLASSES)
    for part in parts:
        total = merge(total, to_host(measure(*(x[part] for x in arrays))))
    whole = to_host(measure(*arrays))
    np.testing.assert_array_equal(total.confusion, whole.confusion)
    assert total.weight == whole.weight == total.confusion.sum()
    assert total.loss == pytest.approx(whole.loss, rel=1e-6)


def test_running_means_leave_the_newest_step_out():
    rng = np.random.default_rng(2)
    steps = [measure(*draw(rng, 20)) for _ in range(3)]
    sums = Running(empty(CLASSES))
    sums.add(steps[0])
    assert np.isnan(sums.loss) and np.isnan(sums.accuracy)  # nothing is known yet
    sums.add(steps[1])
    first = summarize(steps[0])
    assert (sums.loss, sums.accuracy) == pytest.approx((first["loss"], first["accuracy"]))
    sums.add(steps[2])
    both = summarize(merge(steps[0], steps[1]))
    assert (sums.loss, sums.accuracy) == pytest.approx((both["loss"], both["accuracy"]))
    assert sums.all().weight == pytest.approx(sum(float(step.weight) for step in steps))


def test_whole_epochs_add_up_exactly():
    """In float32 a sum stops at 2**24 examples."""
    many, one = (
        jax.tree.map(lambda x, count=count: jnp.full(x.shape, count, jnp.float32), empty(2))
        for count in (2**24, 1)
    )
    total = merge(to_host(many), to_host(one))
    assert total.weight == total.loss == 2**24 + 1
    assert all(x.dtype == np.float64 for x in jax.tree.leaves(total))


def test_nan_where_there_is_nothing_to_count():
    # Class 0 as it should be, 1 never predicted, 2 predicted but without examples, 3 neither.
    confusion = np.array([[4, 0, 1, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], float)
    sums = {"loss": np.float64(16.0), "weight": np.float64(8.0), "confusion": confusion}
    got = summarize(dataclasses.replace(empty(4), **sums))
    nan = np.nan
    np.testing.assert_allclose(got["recall"], [4 / 5, 0, nan, nan])
    np.testing.assert_allclose(got["precision"], [4 / 7, nan, 0, nan])
    np.testing.assert_allclose(got["f1"], [2 / 3, 0, 0, nan])
    assert got["macro_f1"] == pytest.approx(1 / 3)
    assert got["loss"] == 2 and got["accuracy"] == 0.5
    assert got["count"].tolist() == [5, 3, 0, 0]


def test_no_examples_is_nan_without_a_warning(recwarn):
    logits, labels, _, losses = draw(np.random.default_rng(3), 9)
    padding = to_host(measure(logits, labels, np.zeros(9, np.float32), losses))
    for metrics in (empty(CLASSES), padding, merge(empty(CLASSES), padding)):
        got = summarize(metrics)
        assert all(np.isnan(got[name]) for name in ("loss", "nll", "ece", "accuracy", "macro_f1"))
        assert np.isnan(got["recall"]).all() and not got["count"].any()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def expected_calibration_error(probs, true, weight):
    """As Guo et al. define it, bin by bin and face by face; a bin holds its upper edge."""
    error = 0.0
    for b in range(BINS):
        count = confidence = right = 0.0
        for p, t, w in zip(probs, true, weight, strict=True):
            if b / BINS < p.max() <= (b + 1) / BINS:
                count, confidence, right = (
                    count + w,
                    confidence + w * p.max(),
                    right + w * (p.argmax() == t),
                )
        if count:
            error += count / weight.sum() * abs(right / count - confidence / count)
    return error


@pytest.mark.parametrize("scale", [0.3, 1, 6])
def test_calibration_is_a_plain_loop_s(scale):
    logits, labels, weight, losses = draw(np.random.default_rng(4), 400)
    logits *= np.float32(scale)
    probs, true = np.asarray(jax.nn.softmax(logits)), labels.argmax(1)
    metrics = to_host(jax.jit(measure)(logits, labels, weight, losses))
    got = summarize(metrics)
    assert got["ece"] == pytest.approx(expected_calibration_error(probs, true, weight), rel=1e-4)
    real = weight > 0
    exact = softmax(logits[real].astype(np.float64), axis=1)  # sklearn clips at the type's epsilon
    nll = reference.log_loss(true[real], exact, sample_weight=weight[real], labels=range(CLASSES))
    assert got["nll"] == pytest.approx(nll, rel=1e-4)
    np.testing.assert_allclose(metrics.bins[:, 0].sum(), weight.sum(), rtol=1e-5)
    parts = [measure(*(x[i::3] for x in (logits, labels, weight, losses))) for i in range(3)]
    total = merge(merge(*map(to_host, parts[:2])), to_host(parts[2]))
    np.testing.assert_allclose(total.bins, metrics.bins, rtol=1e-5, atol=1e-5)


def test_a_sure_answer_falls_into_the_last_bin():
    logits = np.array([[99.0, 0, 0], [0, 0, 99]], np.float32)
    labels = np.eye(3, dtype=np.float32)[[0, 0]]
    metrics = measure(logits, labels, np.ones(2), np.zeros(2))
    np.testing.assert_array_equal(metrics.bins[-1], [2, 2, 1])
    assert summarize(metrics)["ece"] == 0.5
