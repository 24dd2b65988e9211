"""The temperature: found where it is known, and nothing but confidences changed."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from emotion_jax.calibration import fit_temperature
from emotion_jax.training.reliability import plot_reliability


def softmax(x):
    odds = np.exp(x - x.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def draw(temperature, count=40_000):
    """Logits whose labels are drawn from what they say once divided by the temperature."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (count, 8))
    labels = (softmax(honest).cumsum(1) < rng.random((count, 1))).sum(1).clip(max=7)
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    logits, labels = draw(temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.02)
    # Adding a number to all logits of a face says nothing.
    assert fit_temperature(logits + labels[:, None], labels) == pytest.approx(fitted, rel=1e-6)


def test_it_is_the_least_of_the_loss():
    logits, labels = draw(1.7, 300)

    def loss(log_t):
        return log_loss(labels, softmax(logits / np.exp(log_t)), labels=range(8))

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-3)


def test_where_there_is_no_least_it_stops_at_the_bounds():
    logits = np.eye(8) * 3
    assert fit_temperature(logits, np.arange(8)) == pytest.approx(0.05)  # always right
    assert fit_temperature(logits, (np.arange(8) + 1) % 8) == pytest.approx(20)  # never


@pytest.mark.parametrize("faces", [0, 900])
def test_the_diagram_is_drawn_with_and_without_faces(faces, tmp_path):
    bins = np.zeros((15, 3))
    bins[4:, 0] = faces / 11
    bins[:, 1] = bins[:, 0] * (np.arange(15) + 0.5) / 15
    bins[:, 2] = bins[:, 1] * 0.8
    path = plot_reliability(bins, tmp_path / "reliability.png")
    assert path.read_bytes()[:4] == b"\x89PNG" and list(tmp_path.iterdir()) == [path]
