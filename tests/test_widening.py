"""A network that was widened answers as before, and its copies learn something of their own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import emotion_jax as ej
from emotion_jax.losses import cross_entropy
from emotion_jax.models.widening import widen
from emotion_jax.steps import init_state, train_step
from emotion_jax.weights import flatten, name_of

SIZES = {"simplenet": 28, "vgg16": 32}


def make(name, width):
    """A network and its drawn state, everything in it other than zero or one."""
    model = ej.make_model(name, width=width, dropout=(0.0, 0.0))
    spec = ej.ImageSpec(size=SIZES[name])
    init = partial(init_state, model=model, tx=optax.sgd(0.1), spec=spec)
    state = jax.jit(init)(jax.random.key(0))
    chance = np.random.default_rng(0)
    params, stats = (
        jax.tree.map(lambda x: x + 0.05 * chance.normal(size=x.shape).astype(np.float32), tree)
        for tree in (state.params, state.batch_stats)
    )
    return model, spec, state.replace(params=params, batch_stats=stats)


def variables_of(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


def widened(narrow, state, seed=0):
    shapes = {name: leaf.shape for name, leaf in flatten(variables_of(state)).items()}
    arrays = jax.tree.map(np.asarray, flatten(variables_of(narrow)))
    arrays = widen(arrays, shapes, seed)
    return jax.tree_util.tree_map_with_path(
        lambda place, _: arrays[name_of(place)], variables_of(state)
    )


@pytest.mark.parametrize(
    "name, widths", [("simplenet", (1 / 8, 1 / 3)), ("vgg16", (1 / 16, 1 / 9))]
)
@pytest.mark.parametrize("train", [False, True])
def test_the_answers_stay(name, widths, train):
    model, _, narrow = make(name, widths[0])
    wide_model, _, state = make(name, widths[1])
    variables = widened(narrow, state)
    shapes = jax.tree.map(np.shape, variables["params"])
    assert shapes == jax.tree.map(np.shape, state.params)
    x = np.random.default_rng(1).normal(size=(4, SIZES[name], SIZES[name], 3)).astype(np.float32)
    run = {"train": train, "mutable": ["batch_stats"]}
    expected, answers = (
        jax.jit(partial(network.apply, **run))(tree, x)[0]
        for network, tree in ((model, variables_of(narrow)), (wide_model, variables))
    )
    np.testing.assert_allclose(answers, expected, atol=1e-4 * np.abs(expected).max())


def test_copies_part_as_they_learn():
    _, _, narrow = make("simplenet", 1 / 8)
    model, spec, state = make("simplenet", 1 / 4)
    state = state.replace(**widened(narrow, state))
    batch = {
        "image": jnp.asarray(np.random.default_rng(2).integers(0, 256, (8, 28, 28, 3), np.uint8)),
        "label": jax.nn.one_hot(jnp.arange(8), 8),
        "weight": jnp.ones(8),
    }
    step = partial(train_step, model=model, tx=optax.sgd(0.1), spec=spec, loss_fn=cross_entropy)
    after, _ = jax.jit(step)(state, batch, jax.random.key(0))
    for layer in ("conv02", "conv05", "conv12"):
        before = np.asarray(state.params[layer]["kernel"])
        moved = (np.asarray(after.params[layer]["kernel"]) - before).reshape(-1, before.shape[-1])
        moved /= np.linalg.norm(moved, axis=0)
        # Every feature's own number, and so that of its copies.
        marks = state.params[layer.replace("conv", "bn")]["scale"]
        old, copy = np.nonzero(np.triu(marks[:, None] == marks, k=1))
        assert len(old) >= before.shape[-1] // 3
        assert (moved[:, old] * moved[:, copy]).sum(0).mean() < 0.9, layer


def test_what_is_drawn_follows_from_the_seed():
    _, _, narrow = make("simplenet", 1 / 8)
    _, _, state = make("simplenet", 1 / 4)
    first, again, other = (
        widened(narrow, state, seed)["params"]["conv03"]["kernel"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
