"""Losses against plain sums over logarithms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emotion_jax.losses import (
    cross_entropy,
    distillation,
    inverse_frequency_weights,
    log_shares,
)

CLASSES = 5


def loop(logits, labels, smoothing=0.0, weights=None):
    """Cross-entropy in float64, term by term."""
    losses = []
    for row, label in zip(logits.astype(float), labels.astype(float), strict=True):
        log_total = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
        terms = [
            (w * ((1 - smoothing) * y + smoothing / len(row))) * (log_total - x)
            for x, y, w in zip(row, label, weights or [1.0] * len(row), strict=True)
        ]
        losses.append(sum(terms))
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, (0.0, 0.5, 1.0, 2.0, 7.0)])
@pytest.mark.parametrize("hard", [False, True])
def test_cross_entropy(smoothing, weights, hard):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (20, CLASSES)).astype(np.float32)
    labels = rng.dirichlet(np.ones(CLASSES), 20).astype(np.float32)
    if hard:
        labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, 20)]
    got = cross_entropy(logits, labels, label_smoothing=smoothing, class_weights=weights)
    assert got.shape == (20,)
    np.testing.assert_allclose(got, loop(logits, labels, smoothing, weights), rtol=2e-5, atol=1e-5)


def test_cross_entropy_stays_finite_for_large_logits():
    logits = np.array([[1e4, -1e4, 0.0]], np.float32)
    labels = np.array([[0.0, 1.0, 0.0]], np.float32)
    np.testing.assert_allclose(cross_entropy(logits, labels), [2e4], rtol=1e-6)


def test_the_least_loss_is_at_the_label_distribution():
    """There the gradient, softmax(logits) - labels, vanishes and the loss is the entropy."""
    labels = np.random.default_rng(1).dirichlet(np.ones(CLASSES), 4).astype(np.float32)
    logits = np.log(labels) + 3
    entropy = [-sum(p * math.log(p) for p in row.tolist()) for row in labels]
    np.testing.assert_allclose(cross_entropy(logits, labels), entropy, rtol=1e-5)
    grad = jax.grad(lambda x: cross_entropy(x, labels).sum())(logits)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_inverse_frequency_weights(power):
    counts = np.array([100, 25, 0, 4, 1])
    weights = inverse_frequency_weights(counts, power)
    assert isinstance(weights, tuple) and all(type(w) is float for w in weights)
    assert weights[2] == 0
    for a, b in [(0, 1), (1, 3), (3, 4)]:
        assert weights[a] / weights[b] == pytest.approx((counts[a] / counts[b]) ** -power)
    mean = sum(w * n for w, n in zip(weights, counts, strict=True)) / counts.sum()
    assert mean == pytest.approx(1)


def test_full_power_gives_every_class_the_same_say():
    counts = np.array([74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750])
    shares = np.array(inverse_frequency_weights(counts)) * counts
    np.testing.assert_allclose(shares, counts.sum() / 8)


def test_adjusted_logits_of_a_network_that_sees_nothing_are_equal():
    # Where the picture says nothing, labels come by the classes' shares alone: all is adjustment.
    counts = np.array([50, 30, 0, 15, 5])
    labels = jnp.asarray(counts / counts.sum())[None]
    adjustment = log_shares(counts)
    assert adjustment[2] == 0
    present = counts > 0
    logits = jnp.where(present, 0.0, -30.0)[None]  # the absent class is shunned
    slope = jax.grad(lambda x: cross_entropy(x, labels, logit_adjustment=adjustment).sum())(logits)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    # Without adjustment the frequent classes pull.
    slope = jax.grad(lambda x: cross_entropy(x, labels).sum())(logits)
    assert slope[0, 0] < -0.2 and slope[0, 4] > 0.1


def test_logit_adjustment_adds_to_the_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5)), np.eye(5)[[0, 1, 4, 2]]
    adjustment = tuple(rng.normal(size=5))
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(logits), jnp.asarray(labels), logit_adjustment=adjustment),
        loop(logits + adjustment, labels),
        rtol=1e-5,
    )
    np.testing.assert_allclose(log_shares([1, 3], 2.0), 2 * np.log([0.25, 0.75]))


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (4.0, 0.3), (2.0, 0.0)])
def test_distillation(temperature, share):
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (6, 8))
    labels, taught = rng.dirichlet(np.ones(8), 6), rng.dirichlet(np.ones(8), 6)
    taught[0] = np.eye(8)[2]  # a teacher without a doubt: 0 * log 0 is 0
    expected = []
    for z, y, t in zip(logits, labels, taught, strict=True):
        q = np.exp(z / temperature) / np.exp(z / temperature).sum()
        divergence = sum(a * np.log(a / b) for a, b in zip(t, q, strict=True) if a > 0)
        plain = -sum(y * np.log(np.exp(z) / np.exp(z).sum()))
        expected.append((1 - share) * plain + share * temperature**2 * divergence)
    got = distillation(
        jnp.asarray(logits),
        jnp.asarray(labels),
        jnp.asarray(taught),
        loss_fn=cross_entropy,
        temperature=temperature,
        share=share,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
