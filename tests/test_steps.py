"""The step itself: it learns, compiles once, and counts every example by its weight."""

import warnings
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emotion_jax import losses, metrics, steps
from emotion_jax.augmentation import Augmentation, augment
from emotion_jax.image_spec import ImageSpec
from emotion_jax.models import VGG16, SimpleNetV2
from emotion_jax.optim import climb, make_optimizer
from emotion_jax.preprocess import normalize

SPEC = ImageSpec(size=8)


class Plain(nn.Module):
    """No BatchNorm, so that examples do not see each other."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(8)(x)


class Normed(nn.Module):
    """BatchNorm, and little else."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(not train, momentum=0.9)(x.reshape(x.shape[0], -1))
        return nn.Dense(8)(x)


def make_batch(n, *, size=8, seed=0, weight=None):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (n, size, size, 3), np.uint8),
        "label": np.eye(8, dtype=np.float32)[rng.integers(0, 8, n)],
        "weight": np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32),
    }


def make(model, spec=SPEC, *, tx=None, ema=False, **kwargs):
    tx = tx or optax.sgd(0.1)
    state = steps.init_state(jax.random.key(0), model=model, tx=tx, spec=spec, ema=ema)
    kwargs = {"loss_fn": losses.cross_entropy, **kwargs}
    return state, partial(steps.train_step, model=model, tx=tx, spec=spec, **kwargs)


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


def test_simplenet_learns_one_batch_by_heart_with_one_compilation():
    spec, batch = ImageSpec(size=28), make_batch(16, size=28)
    model = SimpleNetV2(width=1 / 8, dropout=(0.0, 0.0))
    state, step = make(model, spec, tx=optax.adamw(3e-3))
    step = jax.jit(step, donate_argnums=0)
    seen = []
    for _ in range(25):
        state, got = step(state, batch, jax.random.key(1))
        seen.append(metrics.summarize(got))
    assert seen[-1]["loss"] < 0.1 * seen[0]["loss"] and seen[-1]["accuracy"] == 1
    assert step._cache_size() == 1 and int(state.step) == 25


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "adadelta"])
def test_nothing_that_is_deprecated_is_called(name):
    """Whoever installs tomorrow may get libraries without it."""
    tx = make_optimizer(name, 0.1, weight_decay=0.1, clip_norm=1.0)
    alter = partial(augment, config=Augmentation(flip=0.5, rotate=5, jpeg=0.5, glasses=0.5))
    options = {"sam_rho": 0.1, "ema_decay": 0.9, "augment_fn": alter, "accumulate": 2}

    def begin_and_step(batch, key):
        model, spec = SimpleNetV2(width=1 / 16), ImageSpec(size=26)
        state, step = make(model, spec, tx=tx, ema=True, **options)
        return step(state, batch, key)

    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        jax.eval_shape(begin_and_step, make_batch(4, size=26), jax.random.key(0))


def test_vgg_takes_a_step():
    """No BatchNorm: the empty statistics pass through."""
    spec, model = ImageSpec(size=32), VGG16(width=1 / 64)
    state, step = make(model, spec)
    after, got = jax.jit(step)(state, make_batch(2, size=32), jax.random.key(0))
    assert after.batch_stats == {} and np.isfinite(metrics.summarize(got)["loss"])
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_an_example_of_weight_zero_is_not_there():
    state, step = make(Plain())
    padded = make_batch(6, weight=[1, 0, 2, 0, 0.5, 0])
    kept = {name: x[::2] for name, x in padded.items()}
    (a, ma), (b, mb) = (step(state, batch, jax.random.key(0)) for batch in (padded, kept))
    assert_trees_close(a.params, b.params, rtol=1e-5, atol=1e-7)
    assert_trees_close(ma, mb, rtol=1e-6)
    nobody = make_batch(4, weight=[0] * 4)
    assert_trees_close(step(state, nobody, jax.random.key(0))[0].params, state.params)


def test_the_gradient_is_that_of_the_weighted_mean():
    """Against a plain softmax regression in NumPy."""
    state, step = make(Plain(), tx=optax.sgd(1.0))
    batch = make_batch(5, weight=[1, 2, 0.5, 3, 1])
    after, got = step(state, batch, jax.random.key(0))
    x = ((batch["image"] / 255 - 0.5) / 0.25).reshape(5, -1)
    kernel, bias = (np.asarray(state.params["Dense_0"][name]) for name in ("kernel", "bias"))
    z = x @ kernel + bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    w = batch["weight"] / batch["weight"].sum()
    expected = kernel - x.T @ (w[:, None] * (p - batch["label"]))
    np.testing.assert_allclose(after.params["Dense_0"]["kernel"], expected, atol=1e-4)
    loss = -(w * np.log((p * batch["label"]).sum(1))).sum()
    assert metrics.summarize(got)["loss"] == pytest.approx(loss, rel=1e-5)


def test_micro_batches_add_up_to_the_whole_batch():
    augment_fn = partial(augment, config=Augmentation(brightness=0.3))
    state, step = make(Plain(), augment_fn=augment_fn, ema=True, ema_decay=0.9)
    # The second of four parts, examples 1, 5 and 9, is padding alone.
    batch = make_batch(12, weight=[1, 0, 2, 0.5, 3, 0, 0, 1, 0.1, 0, 1, 5])
    whole = jax.jit(step)(state, batch, jax.random.key(3))
    for count in (4, 12):
        parts = jax.jit(partial(step, accumulate=count))(state, batch, jax.random.key(3))
        assert_trees_close(parts[0], whole[0], rtol=1e-6, atol=1e-6)
        assert_trees_close(parts[1], whole[1], rtol=1e-6, atol=1e-6)


def test_each_micro_batch_is_normalized_by_itself_and_moves_the_statistics_by_its_share():
    state, step = make(Normed())
    batch = make_batch(8)
    after, _ = step(state, batch, jax.random.key(0), accumulate=2)
    x = ((batch["image"] / 255 - 0.5) / 0.25).reshape(8, -1)
    parts = x[::2], x[1::2]
    for name, of in (("mean", np.mean), ("var", np.var)):
        expected = 0.9 * (name == "var") + 0.1 * np.mean([of(part, axis=0) for part in parts], 0)
        got = after.batch_stats["BatchNorm_0"][name]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    # With nothing but means in between, the gradient is the mean of the parts' own.
    alone = [
        step(state, {name: v[i::2] for name, v in batch.items()}, jax.random.key(0))[0].params
        for i in range(2)
    ]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *alone)
    assert_trees_close(after.params, mean, rtol=1e-5, atol=1e-6)


def test_micro_batches_are_masked_differently():
    state, step = make(Plain(dropout=0.5), tx=optax.sgd(1.0))
    batch = {name: np.repeat(x[:1], 8, axis=0) for name, x in make_batch(1).items()}
    # Of one picture eight times over: where no mask let a pixel through, its row stays.
    after, _ = step(state, batch, jax.random.key(0), accumulate=8)
    still = (after.params["Dense_0"]["kernel"] == state.params["Dense_0"]["kernel"]).all(axis=1)
    assert still.mean() < 0.1


def test_moving_averages_follow_the_formula():
    state, step = make(Normed(), ema=True, ema_decay=0.15)
    assert_trees_close(state.ema, steps.eval_variables(state))
    step, averages = jax.jit(step), state.ema
    for count, decay in enumerate([0.1, 0.15, 0.15]):  # (1 + t) / (10 + t), at most 0.15
        state, _ = step(state, make_batch(4, seed=count), jax.random.key(0))
        new = {"params": state.params, "batch_stats": state.batch_stats}
        averages = jax.tree.map(lambda a, n, d=decay: d * a + (1 - d) * n, averages, new)
        assert_trees_close(state.ema, averages, rtol=1e-4, atol=1e-6)
    assert steps.eval_variables(state) is state.ema


def test_chance_depends_on_the_key_and_the_step_alone():
    augment_fn = partial(augment, config=Augmentation(flip=0.5, erase=1.0))
    state, step = make(Plain(dropout=0.5), augment_fn=augment_fn)
    batch, step = make_batch(4), jax.jit(step)

    def loss(state, seed):
        return float(step(state, batch, jax.random.key(seed))[1].loss)

    later = state.replace(step=state.step + 1)
    assert loss(state, 1) == loss(state, 1)
    assert len({loss(state, 1), loss(state, 2), loss(later, 1)}) == 3


def test_evaluation_and_prediction_agree_and_change_nothing():
    model, spec = Normed(), SPEC
    state, _ = make(model, spec)
    batch = make_batch(6, weight=[1, 1, 1, 1, 1, 0])
    variables = steps.eval_variables(state)
    got = steps.eval_step(variables, batch, model=model, spec=spec, loss_fn=losses.cross_entropy)
    probs = np.asarray(steps.predict_probs(variables, batch["image"], model=model, spec=spec))
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    true = batch["label"].argmax(1)
    summary = metrics.summarize(got)
    assert summary["accuracy"] == pytest.approx((probs.argmax(1) == true)[:5].mean())
    assert summary["loss"] == pytest.approx(-np.log(probs[np.arange(6), true])[:5].mean(), rel=1e-4)
    cooler = np.asarray(
        steps.predict_probs(variables, batch["image"], model=model, spec=spec, temperature=0.1)
    )
    assert (cooler.max(1) > probs.max(1)).all() and (cooler.argmax(1) == probs.argmax(1)).all()


def test_a_state_of_the_same_code_is_the_same_tree():
    """So two of them can be compared leaf by leaf, and a step compiled for one takes the other."""
    (a, step), (b, _) = make(Plain()), make(Plain())
    assert jax.tree.structure(a) == jax.tree.structure(b)
    step = jax.jit(step)
    step(a, make_batch(2), jax.random.key(0))
    step(b, make_batch(2), jax.random.key(0))
    assert step._cache_size() == 1
    assert all(isinstance(leaf, jnp.ndarray) for leaf in jax.tree.leaves(a))


def test_sharpness_aware_steps_are_those_worked_out_by_hand():
    """Linear softmax regression, whose gradient is X^T (p - y), in NumPy's float64."""
    rho, rate = 0.7, 0.1
    batch = make_batch(6, weight=[1, 0.5, 2, 0, 1, 1])
    state, step = make(Plain(), tx=optax.sgd(rate), sam_rho=rho)
    x = (batch["image"].reshape(6, -1) / 255 - 0.5) / 0.25
    x = np.concatenate([x, np.ones((6, 1))], axis=1)  # the last row of theta is the bias
    dense = jax.tree.map(lambda a: np.asarray(a, np.float64), state.params["Dense_0"])
    theta = np.concatenate([dense["kernel"], dense["bias"][None]])

    def gradient(theta):
        z = np.exp(x @ theta - (x @ theta).max(1, keepdims=True))
        error = z / z.sum(1, keepdims=True) - batch["label"]
        return x.T @ (error * batch["weight"][:, None]) / batch["weight"].sum()

    first = gradient(theta)
    second = gradient(theta + rho * first / np.sqrt((first**2).sum()))
    assert np.abs(second - first).max() > 0.1 * np.abs(first).max()  # the move is felt
    after, measured = step(state, batch, jax.random.key(1))
    got = after.params["Dense_0"]
    expected = theta - rate * second
    np.testing.assert_allclose(got["kernel"], expected[:-1], atol=2e-5)
    np.testing.assert_allclose(got["bias"], expected[-1], atol=2e-5)
    # The metrics are those of where the weights stood.
    plain = make(Plain(), tx=optax.sgd(rate))[1](state, batch, jax.random.key(1))[1]
    assert measured.loss == plain.loss
    again, _ = step(state, batch, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, again, after)


def test_both_gradients_of_a_sharpness_aware_step_share_masks_and_take_statistics_once():
    batch = make_batch(8)
    state, step = make(Normed(), sam_rho=0.5)
    after, _ = step(state, batch, jax.random.key(1))
    plain, _ = make(Normed())[1](state, batch, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, plain.batch_stats)
    # A mask of its own would move the second gradient even where the weights hardly move.
    state, step = make(Plain(dropout=0.5), sam_rho=1e-6)
    after, _ = step(state, batch, jax.random.key(1))
    plain, _ = make(Plain(dropout=0.5))[1](state, batch, jax.random.key(1))
    assert_trees_close(after.params, plain.params, atol=1e-5)


def test_without_sharpness_awareness_a_step_computes_nothing_more():
    def products(**kwargs):
        state, step = make(Plain(), **kwargs)
        return str(jax.make_jaxpr(step)(state, make_batch(4), jax.random.key(0))).count("dot_gen")

    assert products(sam_rho=0.0) == products() < products(sam_rho=0.05)


def test_a_loss_without_slope_moves_nothing():
    params, zeros = {"w": jnp.ones(3)}, {"w": jnp.zeros(3)}
    np.testing.assert_array_equal(climb(params, zeros, 0.05)["w"], np.ones(3))
    moved = climb(params, {"w": jnp.array([0.0, 3, -4])}, 0.05)["w"]
    np.testing.assert_allclose(moved, [1, 1.03, 0.96], rtol=1e-6)


def test_teachers_see_the_altered_pixels_and_their_answers_reach_the_loss():
    seen = []

    def teach(images):
        seen.append(images)
        return jax.nn.softmax(images.mean((1, 2)) @ jnp.ones((3, 8)))

    def loss(logits, labels, taught):
        return losses.cross_entropy(logits, taught)

    augment_fn = partial(augment, config=Augmentation(flip=0.5, brightness=0.5))
    state, step = make(Plain(), loss_fn=loss, teach_fn=teach, augment_fn=augment_fn)
    batch = make_batch(6)
    _, measured = step(state, batch, jax.random.key(1))
    keys = steps.example_keys(jax.random.split(jax.random.fold_in(jax.random.key(1), 0))[0], 6)
    altered = augment_fn(batch, keys)["image"]
    np.testing.assert_array_equal(seen[0], altered)
    logits = Plain().apply({"params": state.params}, normalize(altered, SPEC), train=False)
    expected = float(losses.cross_entropy(logits, teach(altered)).sum())
    assert measured.loss == pytest.approx(expected, rel=1e-5)


def test_the_mirrored_answer_is_the_mean_of_two_probabilities():
    model, batch = Plain(), make_batch(5, weight=[1, 2, 0, 1, 1])
    variables = {"params": make(model)[0].params, "batch_stats": {}}
    ask = partial(steps.predict_probs, variables, model=model, spec=SPEC)
    probs = (ask(batch["image"]) + ask(batch["image"][:, :, ::-1])) / 2
    measure = partial(steps.eval_step, model=model, spec=SPEC, loss_fn=losses.cross_entropy)
    got = measure(variables, batch, mirrored=True)
    expected = metrics.measure(jnp.log(probs), batch["label"], batch["weight"], jnp.zeros(5))
    np.testing.assert_array_equal(got.confusion, expected.confusion)
    loss = float(-(batch["weight"] * np.log((probs * batch["label"]).sum(1))).sum())
    assert got.loss == pytest.approx(loss, rel=1e-5)
    assert measure(variables, batch).loss != pytest.approx(loss, rel=1e-3)
