"""The networks: their tables to the digit, Keras' numbers from the same weights, true gradients."""

import os
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from keras_networks import keras_simplenet, keras_vgg16

from emotion_jax.errors import EmotionError
from emotion_jax.models import VGG16, SimpleNetV2, layers, make_model, simplenet

# features, padding, side of the convolution's output for 64x64, parameters of conv and BatchNorm
SIMPLENET = [
    (66, "same", 64, 1_848, 264),
    (128, "same", 64, 76_160, 512),
    (128, "valid", 62, 147_584, 512),
    (128, "valid", 60, 147_584, 512),
    (192, "valid", 58, 221_376, 768),
    (192, "same", 29, 331_968, 768),
    (192, "same", 29, 331_968, 768),
    (192, "same", 29, 331_968, 768),
    (192, "same", 29, 331_968, 768),
    (288, "same", 29, 497_952, 1_152),
    (288, "same", 14, 746_784, 1_152),
    (355, "valid", 12, 920_515, 1_420),
    (432, "valid", 10, 1_380_672, 1_728),
]
# arXiv 1409.1556, table 1, column D: name, side of its output for 224x224, parameters
VGG = [
    ("conv1_1", 224, 1_792),
    ("conv1_2", 224, 36_928),
    ("conv2_1", 112, 73_856),
    ("conv2_2", 112, 147_584),
    ("conv3_1", 56, 295_168),
    ("conv3_2", 56, 590_080),
    ("conv3_3", 56, 590_080),
    ("conv4_1", 28, 1_180_160),
    ("conv4_2", 28, 2_359_808),
    ("conv4_3", 28, 2_359_808),
    ("conv5_1", 14, 2_359_808),
    ("conv5_2", 14, 2_359_808),
    ("conv5_3", 14, 2_359_808),
    ("fc1", None, 102_764_544),
    ("fc2", None, 16_781_312),
    ("head", None, 4_097_000),
]


def shapes(model, *size, channels=3):
    """The variables' shapes and dtypes; draws and compiles nothing."""
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)


def outputs(model, *size):
    """What each layer returns, as shapes."""
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    apply = partial(model.apply, train=False, capture_intermediates=True, mutable="intermediates")
    out, seen = jax.eval_shape(apply, shapes(model, *size), image)
    return out, {k: v["__call__"][0] for k, v in seen["intermediates"].items() if k != "__call__"}


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def draw(rng, model, *size):
    """Random variables, the BatchNorm's too, of a scale that keeps the activations near 1."""

    def leaf(path, x):
        name = path[-1].key
        if name == "kernel":
            std = np.float32(np.sqrt(2 / np.prod(x.shape[:-1])))
            return rng.standard_normal(x.shape, np.float32) * std
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        return rng.normal(0, 0.3, x.shape).astype(np.float32)  # bias, mean

    return jax.tree_util.tree_map_with_path(leaf, shapes(model, *size))


def assert_close(got, expected, tolerance=1e-4):
    """Equal to `tolerance` of the largest number expected."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


# The tables


def test_simplenet_has_the_table_s_parameters_layer_by_layer():
    variables = shapes(SimpleNetV2(), 64, 64)
    params, stats = variables["params"], variables["batch_stats"]
    for i, (features, _, _, conv, bn) in enumerate(SIMPLENET, start=1):
        assert params[f"conv{i:02}"]["bias"].shape == (features,)
        assert count(params[f"conv{i:02}"]) == conv, i
        assert count([params[f"bn{i:02}"], stats[f"bn{i:02}"]]) == bn, i
    assert count(params["head"]) == 3_464
    assert set(params) == {f"{x}{i:02}" for x in ("conv", "bn") for i in range(1, 14)} | {"head"}
    assert count(params) == 5_477_357
    assert count(stats) == 5_546
    assert count(variables) == 5_482_903


def test_simplenet_has_the_table_s_shapes():
    out, seen = outputs(SimpleNetV2(), 64, 64)
    for i, (features, _, side, _, _) in enumerate(SIMPLENET, start=1):
        for name in (f"conv{i:02}", f"bn{i:02}"):
            assert seen[name].shape == (1, side, side, features)
    assert out.shape == (1, 8)


def test_same_padding_keeps_the_borders_and_the_parameters():
    _, seen = outputs(SimpleNetV2(padding="SAME"), 64, 64)
    sides = [seen[f"conv{i:02}"].shape[1] for i in range(1, 14)]
    assert sides == 5 * [64] + 5 * [32] + 3 * [16]
    assert shapes(SimpleNetV2(padding="SAME"), 64, 64) == shapes(SimpleNetV2(), 64, 64)


def test_vgg16_has_the_paper_s_parameters_and_shapes():
    model = VGG16(num_classes=1000)
    params = shapes(model, 224, 224)["params"]
    out, seen = outputs(model, 224, 224)
    assert set(params) == {name for name, _, _ in VGG}
    for name, side, parameters in VGG:
        assert count(params[name]) == parameters, name
        if side:
            assert seen[name].shape[1:3] == (side, side), name
    assert count(params) == 138_357_544
    assert out.shape == (1, 1000)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (
            SimpleNetV2(),
            64,
            [(0.2, s) for s in (64, 64, 62, 60, 29, 29, 29, 29, 29, 29)]
            + [(0.3, s) for s in (14, 12, 10, None)],
        ),
        (VGG16(), 64, [(0.5, None), (0.5, None)]),
    ],
)
def test_dropout_stands_where_the_paper_has_it(model, size, expected):
    """Its rates and the side of the map it sees, in order: so its place beside the pools too."""
    seen = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            x = args[0]
            seen.append((context.module.rate, x.shape[1] if x.ndim == 4 else None))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(model, size, size)
    assert seen == expected


def test_dropout_acts_in_training_alone():
    for model in (SimpleNetV2(width=1 / 8), VGG16(width=1 / 8)):
        drops = []

        def record(call, args, kwargs, context, drops=drops):
            if isinstance(context.module, nn.Dropout):
                drops.append(not context.module.deterministic)
            return call(*args, **kwargs)

        variables, x = shapes(model, 32, 32), jnp.zeros((1, 32, 32, 3))
        rngs = {"dropout": jax.random.key(0)}
        for train in (False, True):
            apply = partial(model.apply, train=train, mutable=["batch_stats"], rngs=rngs)
            with nn.intercept_methods(record):
                jax.eval_shape(apply, variables, x)
            assert drops and set(drops) == {train}
            drops.clear()


# Keras, with the same weights


@pytest.fixture(scope="module", autouse=True)
def _tensorflow():
    os.environ["KERAS_BACKEND"] = "tensorflow"


def fill(keras_model, variables):
    """Puts our variables into the Keras network's layers of the same names."""
    params, stats = variables["params"], variables.get("batch_stats", {})
    for name, p in params.items():
        layer = keras_model.get_layer(name)
        if name in stats:
            layer.set_weights([p["scale"], p["bias"], stats[name]["mean"], stats[name]["var"]])
        else:
            layer.set_weights([p["kernel"], p["bias"]])
    assert count(keras_model.get_weights()) == count(variables)


def keras_step(keras_model, x, cotangent):
    """Outputs in training, and the gradients of sum(outputs * cotangent), by layer."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        out = keras_model(x, training=True)
        loss = tf.reduce_sum(out * cotangent)
    named = {(w.path.split("/")[-2], w.name): w for w in keras_model.trainable_variables}
    names = {"gamma": "scale", "beta": "bias"}
    grads = tape.gradient(loss, list(named.values()))
    grads = {
        (layer, names.get(w, w)): g.numpy() for (layer, w), g in zip(named, grads, strict=True)
    }
    return out.numpy(), grads


def our_step(model, variables, x, cotangent):
    @jax.jit
    def step(variables, x):
        def loss(params):
            out, updated = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(out * cotangent), (out, updated)

        return jax.grad(loss, has_aux=True)(variables["params"])

    grads, (out, updated) = step(variables, x)
    return out, {(layer, w): g for layer, p in grads.items() for w, g in p.items()}, updated


def test_simplenet_is_keras_at_full_width():
    rng = np.random.default_rng(0)
    model = SimpleNetV2()
    variables = draw(rng, model, 64, 64)
    x = rng.standard_normal((2, 64, 64, 3), np.float32)
    keras_model = keras_simplenet(64, 64, [row[0] for row in SIMPLENET])
    fill(keras_model, variables)
    expected = keras_model(x, training=False).numpy()
    assert_close(jax.jit(partial(model.apply, train=False))(variables, x), expected)


def test_simplenet_trains_as_keras_does():
    """Outputs, new moving statistics and gradients of a training step, all layers."""
    rng = np.random.default_rng(1)
    model = SimpleNetV2(width=1 / 8, dropout=(0.0, 0.0))
    size = (33, 38)  # odd maps stand before both pools
    variables = draw(rng, model, *size)
    x = rng.standard_normal((4, *size, 3), np.float32)
    cotangent = rng.standard_normal((4, 8), np.float32)
    features = [variables["params"][f"conv{i:02}"]["bias"].size for i in range(1, 14)]
    keras_model = keras_simplenet(*size, features)
    fill(keras_model, variables)
    expected, expected_grads = keras_step(keras_model, x, cotangent)
    out, grads, updated = our_step(model, variables, x, cotangent)
    assert_close(out, expected)
    for name, stats in updated["batch_stats"].items():
        layer = keras_model.get_layer(name)
        assert_close(stats["mean"], layer.moving_mean.numpy())
        assert_close(stats["var"], layer.moving_variance.numpy())
        assert np.abs(stats["mean"] - variables["batch_stats"][name]["mean"]).max() > 1e-3
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        # BatchNorm takes a convolution's bias out again: its gradient is rounding, on both sides.
        if name[0].startswith("conv") and name[1] == "bias":
            assert np.abs(grad).max() < 1e-3
        else:
            assert_close(grad, expected_grads[name], 1e-3)


def test_vgg16_is_keras_and_trains_as_keras_does():
    rng = np.random.default_rng(2)
    model = VGG16(width=1 / 8, dropout=(0.0, 0.0))
    size = (64, 97)  # a map of 2x3 is flattened
    variables = draw(rng, model, *size)
    x = rng.standard_normal((2, *size, 3), np.float32)
    cotangent = rng.standard_normal((2, 8), np.float32)
    keras_model = keras_vgg16(*size, 8)
    fill(keras_model, variables)
    expected, expected_grads = keras_step(keras_model, x, cotangent)
    out, grads, _ = our_step(model, variables, x, cotangent)
    assert_close(out, expected)
    assert_close(jax.jit(partial(model.apply, train=False))(variables, x), expected)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        assert_close(grad, expected_grads[name], 1e-3)


# Options


def test_width_rounds_to_multiples_of_eight():
    """The nearest multiple, never none; the table itself at 1."""
    for width in (0.05, 1 / 8, 0.25, 1 / 3, 0.5, 0.99, 1.5, 2):
        for features in [row[0] for row in SIMPLENET] + [64, 256, 512, 4096]:
            got = layers.scale_features(features, width)
            assert got > 0 and got % 8 == 0
            assert got == 8 or abs(got - features * width) <= 4
    assert [layers.scale_features(row[0], 1.0) for row in SIMPLENET] == [r[0] for r in SIMPLENET]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1 / 4, [16, 32, 32, 32, 48, 48, 48, 48, 48, 72, 72, 88, 112]),
        (1 / 8, [8, 16, 16, 16, 24, 24, 24, 24, 24, 32, 32, 48, 56]),
    ],
)
def test_widths_of_shipped_networks_stay(width, expected):
    """A change of rounding would make every narrow checkpoint unreadable."""
    params = shapes(SimpleNetV2(width=width), 48, 48)["params"]
    assert [params[f"conv{i:02}"]["bias"].size for i in range(1, 14)] == expected


@pytest.mark.parametrize("model", [SimpleNetV2(width=1 / 8), VGG16(width=1 / 8)])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32(model):
    low = model.clone(dtype=jnp.bfloat16)
    for leaf in jax.tree.leaves(shapes(low, 32, 35)):
        assert leaf.dtype == jnp.float32
    out, seen = outputs(low, 32, 35)
    assert out.dtype == jnp.float32
    convs = {k: v for k, v in seen.items() if k.startswith(("conv", "bn", "fc"))}
    assert len(convs) > 12 and all(x.dtype == jnp.bfloat16 for x in convs.values())
    assert seen["head"].dtype == jnp.float32


def test_bfloat16_is_near_float32(monkeypatch):
    monkeypatch.setattr(simplenet, "BLOCKS", simplenet.BLOCKS[7:12])
    rng = np.random.default_rng(3)
    model = SimpleNetV2(width=1 / 8)
    variables = draw(rng, model, 27, 32)
    x = rng.standard_normal((4, 27, 32, 3), np.float32)
    both = [m.apply for m in (model, model.clone(dtype=jnp.bfloat16))]
    exact, near = jax.jit(lambda v, x: [f(v, x, train=False) for f in both])(variables, x)
    assert_close(near, exact, 0.03)
    assert np.abs(near - exact).max() > 0


@pytest.mark.parametrize("model", [SimpleNetV2(width=1 / 8), VGG16(width=1 / 8)])
def test_without_classes_it_gives_the_features_of_the_same_variables(model):
    rng = np.random.default_rng(4)
    variables = draw(rng, model, 32, 35)
    x = rng.standard_normal((3, 32, 35, 3), np.float32)

    @jax.jit
    def both(variables, x):
        headless = model.clone(num_classes=None)
        return headless.apply(variables, x, train=False), model.apply(variables, x, train=False)

    features, logits = both(variables, x)
    head = variables["params"]["head"]
    assert features.dtype == jnp.float32 and features.ndim == 2
    assert_close(logits, np.asarray(features) @ head["kernel"] + head["bias"], 1e-5)


def test_an_equal_module_hits_the_jit_cache():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def f(model, x):
        traced.append(model)
        return x + model.num_classes

    for _ in range(2):
        for width in (0.25, 1.0):
            f(SimpleNetV2(width=width), 1.0)
            f(make_model("simplenet", width=width, dtype="float32", dropout=[0.2, 0.3]), 1.0)
            f(VGG16(width=width), 1.0)
    assert len(traced) == 4


@pytest.mark.parametrize("model", [SimpleNetV2(width=1 / 8), VGG16(width=1 / 8)])
def test_too_small_an_input_is_refused_by_its_size(model):
    smallest = {SimpleNetV2: 26, VGG16: 32}[type(model)]
    for size in ((smallest - 1, 64), (64, smallest - 1)):
        with pytest.raises(ValueError, match=rf"{smallest}x{smallest}.*\(1, {size[0]}, {size[1]}"):
            shapes(model, *size)
    out, seen = outputs(model, smallest, smallest)
    assert out.shape == (1, 8)
    assert all(0 not in x.shape for x in seen.values())


def test_make_model():
    made = make_model("simplenet", num_classes=7, width=0.25, dtype="bfloat16", dropout=[0.1, 0.2])
    assert made == SimpleNetV2(7, 0.25, (0.1, 0.2), jnp.dtype("bfloat16"))
    assert make_model("vgg16", dropout=(), padding="") == VGG16()
    for dtype in ("bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")):
        assert make_model("simplenet", dtype=dtype) == SimpleNetV2(dtype=jnp.dtype("bfloat16"))
    for match, name, kwargs in [
        (r"model\.name.*'resnet'.*simplenet, vgg16", "resnet", {}),
        (r"model\.widht.*simplenet.*width", "simplenet", {"widht": 1.0}),
        (r"model\.momentum.*vgg16", "vgg16", {"momentum": 0.9}),
        (r"model\.parent", "vgg16", {"parent": None}),
        (r"model\.dtype.*'float61'", "simplenet", {"dtype": "float61"}),
        (r"model\.padding.*'valid'.*SAME", "simplenet", {"padding": "valid"}),
        (r"model\.padding.*vgg16", "vgg16", {"padding": "SAME"}),
    ]:
        with pytest.raises(EmotionError, match=match):
            make_model(name, **kwargs)


# Pools


def loop_pool(x, cotangent):
    """The maximum of 2x2 windows, and the gradient: all of it to the first of the largest."""
    b, h, w, c = x.shape
    out, grad = np.zeros((b, h // 2, w // 2, c), x.dtype), np.zeros_like(x)
    for n, i, j, k in np.ndindex(out.shape):
        window = [(2 * i + di, 2 * j + dj) for di in (0, 1) for dj in (0, 1)]
        y, z = max(window, key=lambda p, n=n, k=k: x[n, p[0], p[1], k])
        out[n, i, j, k] = x[n, y, z, k]
        grad[n, y, z, k] = cotangent[n, i, j, k]
    return out, grad


@pytest.mark.parametrize("size", [(7, 4), (6, 9)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(size, ties):
    rng = np.random.default_rng(5)
    x = rng.normal(-1, 1, (2, *size, 3)).astype(np.float32)  # mostly negative: 0 is no winner
    x = np.round(x) if ties else x
    cotangent = rng.normal(size=(2, size[0] // 2, size[1] // 2, 3)).astype(np.float32)
    out, pullback = jax.vjp(layers.max_pool_2x2, x)
    expected, grad = loop_pool(x, cotangent)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(pullback(jnp.asarray(cotangent))[0], grad)


@pytest.mark.parametrize("ties", [False, True])
def test_global_max_pool(ties):
    rng = np.random.default_rng(6)
    x = rng.normal(-3, 1, (2, 5, 3, 4)).astype(np.float32)
    x = np.round(x) if ties else x
    cotangent = rng.normal(size=(2, 4)).astype(np.float32)
    out, pullback = jax.vjp(layers.global_max_pool, x)
    grad = np.asarray(pullback(jnp.asarray(cotangent))[0])
    for n, k in np.ndindex(2, 4):
        largest = max(x[n, i, j, k] for i in range(5) for j in range(3))
        assert out[n, k] == largest
        (winner,) = np.argwhere(grad[n, :, :, k])
        assert x[n, *winner, k] == largest
        assert grad[n, *winner, k] == cotangent[n, k]


@pytest.mark.parametrize("place", range(4))
def test_pools_do_not_hide_what_is_not_a_number(place):
    """Nor what diverges in training."""
    x = np.full((1, 4, 1), 1, np.float32)
    x[0, place] = np.nan
    x = x.reshape(1, 2, 2, 1)
    assert np.isnan(layers.max_pool_2x2(x)).all()
    assert np.isnan(layers.global_max_pool(x)).all()


def test_the_gradient_under_jit_is_that_without(monkeypatch):
    """A pool whose gradient asks which inputs equal the maximum fails here on a CPU: see
    `models/layers.py`. The block before the second pool, with dropout, is enough."""
    monkeypatch.setattr(simplenet, "BLOCKS", simplenet.BLOCKS[9:10])
    rng = np.random.default_rng(7)
    model = SimpleNetV2(width=1 / 8, dropout=(0.3, 0.3))
    variables = draw(rng, model, 27, 27)
    x = rng.standard_normal((16, 27, 27, 3), np.float32)
    cotangent = rng.standard_normal((16, 8), np.float32)

    def loss(params):
        out, _ = model.apply(
            {**variables, "params": params},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(8)},
        )
        return jnp.sum(out * cotangent)

    params = jax.tree.map(jnp.asarray, variables["params"])
    plain, compiled = jax.grad(loss)(params), jax.jit(jax.grad(loss))(params)
    for layer in ("conv01", "bn01", "head"):
        for name in plain[layer]:
            if (layer[:4], name) != ("conv", "bias"):  # BatchNorm takes it out again: all rounding
                assert_close(compiled[layer][name], plain[layer][name])
