"""Convolutions with fewer multiplications: the same numbers."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import emotion_jax as ej
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import Predictor
from emotion_jax.losses import cross_entropy
from emotion_jax.models import winograd
from emotion_jax.steps import init_state, predict_probs, train_step


def loop_convolve(x, kernel, padding):
    """Nine shifted products, in float64."""
    x = np.asarray(x, np.float64)
    if padding == "SAME":
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    shifts = ((i, j) for i in range(3) for j in range(3))
    return sum(x[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in shifts)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("features, side", [(10, 6), (192, 4)])
@pytest.mark.parametrize("shape", [(2, 6, 8, 64), (1, 7, 5, 70), (3, 3, 4, 64), (1, 9, 9, 96)])
def test_it_is_the_convolution(shape, features, side, padding):
    chance = np.random.default_rng(0)
    x = chance.normal(size=shape).astype(np.float32)
    kernel = chance.normal(size=(3, 3, shape[-1], features)).astype(np.float32)
    (transformed,) = winograd.transform_kernels({"conv": {"kernel": kernel}}).values()
    assert len(transformed) == side**2
    out = winograd.convolve(jnp.asarray(x), transformed, padding=padding)
    expected = loop_convolve(x, kernel, padding)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, atol=1e-5 * np.abs(expected).max())


def test_only_wide_layers_are_transformed():
    params = {
        "narrow": {"kernel": np.zeros((3, 3, winograd.MIN_CHANNELS - 1, 8))},
        "wide": {"kernel": np.zeros((3, 3, winograd.MIN_CHANNELS, 8)), "bias": np.zeros(8)},
        "large": {"kernel": np.zeros((5, 5, 100, 8))},
        "head": {"kernel": np.zeros((100, 8))},
    }
    assert list(winograd.transform_kernels(params)) == ["wide"]


# What it must not touch: it would leave the option out.
OPTIONS = {
    "strided": {"strides": 2},
    "padded": {"padding": 3},
    "dilated": {"kernel_dilation": 2},
    "grouped": {"feature_group_count": 2},
    "masked": {"mask": np.arange(9 * 64 * 64).reshape(3, 3, 64, 64) % 3 / 2},
}


class Convolution(nn.Module):
    options: dict

    @nn.compact
    def __call__(self, x):
        return nn.Conv(64, (3, 3), name="conv", **self.options)(x)


def outputs(options, x):
    """What a convolution says plainly, as predictors call it, and as training does."""
    layer = Convolution(options)
    variables = layer.init(jax.random.key(0), x)
    kernels = winograd.transform_kernels(variables["params"])
    assert kernels
    yield layer.apply(variables, x)
    for interceptor in (winograd.use_kernels(kernels), winograd.intercept_training):
        with nn.intercept_methods(interceptor):
            yield layer.apply(variables, x)


@pytest.mark.parametrize("name", OPTIONS)
def test_what_it_cannot_do_is_left_alone(name):
    x = jax.random.normal(jax.random.key(1), (1, 9, 9, 64))
    plain, *ours = outputs(OPTIONS[name], x)
    for out in ours:
        np.testing.assert_array_equal(out, plain)


@pytest.mark.parametrize(
    ("options", "shape"), [({"use_bias": False}, (1, 9, 9, 64)), ({}, (9, 9, 64))]
)
def test_without_a_bias_or_a_batch_it_is_the_convolution(options, shape):
    plain, *ours = outputs(options, jax.random.normal(jax.random.key(1), shape))
    for out in ours:
        np.testing.assert_allclose(out, plain, atol=1e-4)


def test_a_predictor_says_what_the_network_says():
    model, spec, size = ej.SimpleNetV2(width=0.5), ej.ImageSpec(size=26), 26
    chance = np.random.default_rng(1)
    images = chance.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, size, size, 3)), train=False))(
        jax.random.key(0)
    )
    predictor = Predictor(model, variables, spec, meta={"temperature": 0.1})
    assert predictor._kernels  # the CPU that tests run on
    plain = jax.jit(partial(predict_probs, model=model, spec=spec, temperature=0.1))
    np.testing.assert_allclose(predictor(images), plain(variables, images), atol=1e-5)


def test_half_precision_is_left_alone():
    model, spec = ej.SimpleNetV2(width=0.5, dtype=jnp.bfloat16), ej.ImageSpec(size=32)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    assert Predictor(model, variables, spec, meta={})._kernels == {}


@pytest.mark.parametrize("model", [ej.SimpleNetV2(width=0.25, dropout=(0.0, 0.0)), ej.VGG16()])
def test_training_takes_the_same_step(model):
    model = model.clone(width=0.25)
    spec = ImageSpec(size=32)
    chance = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(chance.integers(0, 256, (4, 32, 32, 3), np.uint8)),
        "label": jax.nn.one_hot(jnp.arange(4), 8),
        "weight": jnp.ones(4),
    }
    tx = optax.sgd(1.0)
    state = init_state(jax.random.key(0), model=model, tx=tx, spec=spec)
    step = partial(train_step, model=model, tx=tx, spec=spec, loss_fn=cross_entropy)
    plain, _ = jax.jit(step)(state, batch, jax.random.key(1))
    with nn.intercept_methods(winograd.intercept_training):
        # A function of its own: `jit` would else take what it has compiled without.
        fast = jax.jit(lambda *args: step(*args))
        compiled = fast.lower(state, batch, jax.random.key(1))
        ours, _ = fast(state, batch, jax.random.key(1))
    convolutions = [
        text.as_text().count("stablehlo.convolution")
        for text in (jax.jit(step).lower(state, batch, jax.random.key(1)), compiled)
    ]
    assert convolutions[1] < convolutions[0] / 3
    moves = [
        jax.tree.map(lambda a, b: np.asarray(a - b), after.params, state.params)
        for after in (plain, ours)
    ]
    most = max(np.abs(move).max() for move in jax.tree.leaves(moves[0]))

    def assert_close(a, b):
        # By the layer, not by the number: where rounding carries one activation over ReLU's kink,
        # as it does on some processors, its gradient goes to a few weights or does not. A bias
        # before BatchNorm moves by rounding alone.
        apart, size = np.sqrt(np.mean((a - b) ** 2)), np.sqrt(np.mean(b**2))
        assert apart <= 5e-3 * size + 1e-4 * most, (apart, size, most)

    jax.tree.map(assert_close, *moves)


def test_training_transforms_only_what_it_can():
    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(32, (3, 3), strides=2)(x)
            x = nn.Conv(16, (5, 5))(x)
            x = nn.Conv(32, (3, 3), padding=((1, 0), (0, 1)))(x)
            return nn.Conv(32, (3, 3), dtype=jnp.bfloat16)(x)

    x = jnp.ones((1, 12, 12, 32))
    variables = Layers().init(jax.random.key(0), x)
    with nn.intercept_methods(winograd.intercept_training):
        jaxpr = jax.make_jaxpr(lambda x: Layers().apply(variables, x))(x)
    assert str(jaxpr).count("conv_general_dilated[") == 4
