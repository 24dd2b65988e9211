"""Schedules at steps worked out by hand, optimizers against plain NumPy loops."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.models import VGG16, SimpleNetV2
from emotion_jax.optim import is_kernel, make_optimizer, make_schedule

OPTIMIZERS = ("adamw", "muon", "sgd", "adadelta")


def parameters(rng, model=None):
    """Random parameters with the network's own names."""
    model = model or SimpleNetV2(width=1 / 8)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)["params"]
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def few(params):
    """One layer of each kind: what is not jitted compiles for every shape."""
    return {name: params[name] for name in ("conv02", "bn02", "head")}


def run(tx, params, gradients):
    """Takes one step a gradient and returns the parameters after each."""

    @jax.jit
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state, seen = tx.init(params), []
    for g in gradients:
        params, state = step(params, state, g)
        seen.append(params)
    return seen


# Schedules


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, {0: 2, 50: 2, 1000: 2}),
        ("constant", {"warmup_steps": 10}, {0: 0, 1: 0.2, 5: 1, 9: 1.8, 10: 2, 99: 2}),
        ("cosine", {}, {0: 2, 25: 1 + 2**-0.5, 50: 1, 75: 1 - 2**-0.5, 100: 0, 120: 0}),
        ("cosine", {"warmup_steps": 20}, {0: 0, 10: 1, 20: 2, 60: 1, 100: 0, 101: 0}),
        (
            "cosine",
            {"warmup_steps": 20, "final_ratio": 0.1},
            {20: 2, 60: 1.1, 100: 0.2, 500: 0.2},
        ),
        ("multistep", {}, {0: 2, 49: 2, 50: 0.2, 74: 0.2, 75: 0.02, 100: 0.02}),
        (
            "multistep",  # milestones are shares of the 80 steps after warm-up
            {"warmup_steps": 20, "milestones": [0.25, 0.5], "factor": 0.5},
            {0: 0, 10: 1, 20: 2, 39: 2, 40: 1, 59: 1, 60: 0.5, 100: 0.5},
        ),
    ],
)
def test_schedules(name, options, expected):
    schedule = make_schedule(name, 2.0, total_steps=100, **options)
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-6), step


def test_milestones_that_fall_together_both_count():
    """Three steps, at 1.5 and 2.25: both round to the second."""
    schedule = make_schedule("multistep", 1.0, total_steps=3)
    assert float(schedule(3)) == pytest.approx(0.01)


def test_a_run_shorter_than_its_warm_up_still_has_a_schedule():
    schedule = make_schedule("cosine", 1.0, total_steps=5, warmup_steps=10)
    assert [float(schedule(i)) for i in (0, 5, 10)] == pytest.approx([0, 0.5, 1])


# Optimizers


@pytest.mark.parametrize("model", [SimpleNetV2(width=1 / 8), VGG16(width=1 / 8)])
def test_kernels_are_what_multiplies(model):
    params = parameters(np.random.default_rng(0), model)
    matrices = jax.tree.map(lambda x: x.ndim > 1, params)
    assert is_kernel(params) == matrices


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_kernels_decay(name):
    """Without a gradient, whatever moves was decayed."""
    params = few(parameters(np.random.default_rng(1)))
    zeros = jax.tree.map(np.zeros_like, params)
    (after,) = run(make_optimizer(name, 0.1, weight_decay=0.5), params, [zeros])
    for layer, leaves in params.items():
        for leaf, before in leaves.items():
            change = after[layer][leaf] - before
            if leaf != "kernel":
                assert not change.any(), (layer, leaf)
            else:  # towards 0
                assert (change * before <= 0).all() and (change != 0).mean() > 0.99
                if name in ("adamw", "muon"):
                    np.testing.assert_allclose(change, -0.05 * before, rtol=1e-3, atol=1e-6)
                elif name == "sgd":  # Nesterov: 1 + 0.9 times the first gradient
                    np.testing.assert_allclose(change, -0.095 * before, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_decays_by_default(name):
    params = few(parameters(np.random.default_rng(2)))
    zeros = jax.tree.map(np.zeros_like, params)
    (after,) = run(make_optimizer(name, 0.1), params, [zeros])
    for got, before in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(got, before)


def rate(step):
    """A learning rate that changes."""
    return 0.3 / (1 + step)


def nesterov(p, gradients, rate, decay, momentum):
    """Sutskever et al., 2013, as Keras and PyTorch write it: a look ahead along the velocity."""
    velocity = 0
    for t, g in enumerate(gradients):
        g = g + decay * p
        velocity = momentum * velocity + g
        p = p - rate(t) * (g + momentum * velocity)
        yield p


def adamw(p, gradients, rate, decay, b1, b2):
    """Loshchilov and Hutter, arXiv 1711.05101."""
    m = v = 0
    for t, g in enumerate(gradients):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1 ** (t + 1)), v / (1 - b2 ** (t + 1))
        p = p - rate(t) * (m_hat / (np.sqrt(v_hat) + 1e-8) + decay * p)
        yield p


def adadelta(p, gradients, rate, decay, rho):
    """Zeiler, arXiv 1212.5701."""
    squares = steps = 0
    for t, g in enumerate(gradients):
        g = g + decay * p
        squares = rho * squares + (1 - rho) * g**2
        step = np.sqrt(steps + 1e-6) / np.sqrt(squares + 1e-6) * g
        steps = rho * steps + (1 - rho) * step**2
        p = p - rate(t) * step
        yield p


def muon(p, gradients, rate, decay, b1):
    """Jordan, 2024, with the size of its steps from arXiv 2502.16982, momentum as in NAdam."""
    m, shape = 0, (-1, p.shape[-1])
    for t, g in enumerate(gradients):
        m = b1 * m + (1 - b1) * g
        ahead = b1 * m / (1 - b1 ** (t + 2)) + (1 - b1) * g / (1 - b1 ** (t + 1))
        x = ahead.reshape(shape)
        x = x / np.linalg.norm(x)
        for _ in range(5):  # every singular value comes to 0.7 .. 1.2
            gram = x.T @ x
            x = 3.4445 * x + x @ (-4.775 * gram + 2.0315 * gram @ gram)
        p = p - rate(t) * (0.2 * max(x.shape) ** 0.5 * x.reshape(p.shape) + decay * p)
        yield p


@pytest.mark.parametrize(
    ("name", "options", "loop"),
    [
        ("sgd", {"momentum": 0.8}, partial(nesterov, momentum=0.8)),
        ("adamw", {"momentum": 0.8, "b2": 0.99}, partial(adamw, b1=0.8, b2=0.99)),
        ("adadelta", {"rho": 0.7}, partial(adadelta, rho=0.7)),
    ],
)
def test_optimizers_take_the_published_steps(name, options, loop):
    """Six of them, with a learning rate that changes and a decay."""
    rng = np.random.default_rng(3)
    params = {"layer": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}}
    gradients = [jax.tree.map(lambda p: rng.normal(size=p.shape), params) for _ in range(6)]
    tx = make_optimizer(name, rate, weight_decay=0.1, **options)
    single = partial(jax.tree.map, np.float32)
    seen = run(tx, single(params), single(gradients))
    for leaf, decay in (("kernel", 0.1), ("bias", 0.0)):
        expected = loop(params["layer"][leaf], [g["layer"][leaf] for g in gradients], rate, decay)
        for got, p in zip(seen, expected, strict=True):
            np.testing.assert_allclose(got["layer"][leaf], p, rtol=1e-4, atol=1e-5)
    assert np.abs(seen[-1]["layer"]["kernel"] - params["layer"]["kernel"]).min() > 1e-5


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (1, 1, 3, 8)])
def test_muon_steps_by_directions(shape):
    """Convolutions by the published steps, the rest by adamw's."""
    rng = np.random.default_rng(4)
    params = {
        "conv": {"kernel": rng.normal(size=shape), "bias": rng.normal(size=4)},
        "head": {"kernel": rng.normal(size=(4, 3))},
    }
    gradients = [jax.tree.map(lambda p: rng.normal(size=p.shape), params) for _ in range(6)]
    tx = make_optimizer("muon", rate, weight_decay=0.1, momentum=0.8, b2=0.99)
    single = partial(jax.tree.map, np.float32)
    seen = run(tx, single(params), single(gradients))
    by_adamw = partial(adamw, b1=0.8, b2=0.99)
    for layer, leaf, loop, decay in (
        ("conv", "kernel", partial(muon, b1=0.8), 0.1),
        ("conv", "bias", by_adamw, 0.0),
        ("head", "kernel", by_adamw, 0.1),
    ):
        expected = loop(params[layer][leaf], [g[layer][leaf] for g in gradients], rate, decay)
        for got, p in zip(seen, expected, strict=True):
            np.testing.assert_allclose(got[layer][leaf], p, rtol=1e-4, atol=2e-5)
    # Every direction in the kernel moves as far as any other, however flat it is.
    tx = make_optimizer("muon", 1.0)
    flat = jax.tree.map(lambda g: g * (1 + 9 * (np.arange(g.shape[-1]) == 0)), gradients[0])
    (after,) = run(tx, single(params), [single(flat)])
    moved = (after["conv"]["kernel"] - params["conv"]["kernel"]).reshape(-1, shape[-1])
    strengths = np.linalg.svd(moved, compute_uv=False) / (0.2 * max(moved.shape) ** 0.5)
    assert 0.6 < strengths.min() and strengths.max() < 1.3


@pytest.mark.parametrize(("clip", "factor"), [(2.0, 0.4), (5.5, 1.0), (0.0, 1.0)])
def test_clipping_is_by_the_norm_of_all_gradients_together(clip, factor):
    params = {"a": {"kernel": np.zeros((1, 1), np.float32)}, "b": {"bias": np.zeros(1, np.float32)}}
    gradient = {"a": {"kernel": np.float32([[3.0]])}, "b": {"bias": np.float32([-4.0])}}  # norm 5
    tx = make_optimizer("sgd", 0.1, momentum=0.0, clip_norm=clip)
    (after,) = run(tx, params, [gradient])
    assert after["a"]["kernel"].item() == pytest.approx(-0.3 * factor)
    assert after["b"]["bias"].item() == pytest.approx(0.4 * factor)


def test_unknown_names_are_refused():
    with pytest.raises(
        EmotionError, match=r"optimizer\.name: 'lamb'.*adamw, muon, sgd or adadelta"
    ):
        make_optimizer("lamb", 0.1)
    with pytest.raises(EmotionError, match=r"schedule\.name: 'linear'.*cosine"):
        make_schedule("linear", 0.1, total_steps=10)
