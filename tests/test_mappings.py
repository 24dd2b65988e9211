"""Pmap-ready: one device, a mesh, `pmap`, `vmap` and `shard_map` take the same steps."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from emotion_jax import losses, sharding, steps
from emotion_jax.augmentation import Augmentation, augment
from emotion_jax.image_spec import ImageSpec
from emotion_jax.models import SimpleNetV2
from emotion_jax.models.layers import global_max_pool, max_pool_2x2

DEVICES, LOCAL, SIZE = 8, 2, 12
SPEC = ImageSpec(size=SIZE)
AUGMENTATION = Augmentation(
    flip=0.5,
    crop_area=0.7,
    crop_aspect=4 / 3,
    translate=0.1,
    rotate=10,
    brightness=0.3,
    contrast=0.3,
    grey=0.2,
    glasses=0.5,
    darkness=0.5,
    backlight=0.5,
    blur=0.5,
    motion=0.5,
    jpeg=0.5,
    erase=0.5,
    mixup=0.4,
)
MAPPINGS = ("mesh", "pmap", "vmap", "unchecked shard_map")
# The compiler splits a mesh by itself, so fewer devices are other programs; the other mappings are
# one program for any number.
MAPPINGS_OF = [
    ("mesh", 2),
    ("mesh", 4),
    *((mapping, DEVICES) for mapping in (*MAPPINGS, "shard_map")),
]


class Small(nn.Module):
    """Everything of SimpleNetV2 that depends on the mapping, small enough to compile ten times."""

    dropout: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        for features in (8, 16):
            x = nn.Conv(features, (3, 3), dtype=jnp.float64)(x)
            x = nn.BatchNorm(
                use_running_average=not train,
                dtype=jnp.float64,
                axis_name=self.axis_name if train else None,
            )(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
            x = max_pool_2x2(x)
        return nn.Dense(8, dtype=jnp.float64)(global_max_pool(x))


def make_batch(rng):
    n = DEVICES * LOCAL
    weight = rng.uniform(0.1, 2, n)
    weight[[1, 6, 7, 15]] = 0  # a lone zero, a whole shard of zeros, the last
    return {
        "image": rng.integers(0, 256, (n, SIZE, SIZE, 3), np.uint8),
        "label": rng.dirichlet(np.ones(8), n),
        "weight": weight,
    }


def make_setup(dropout):
    model, tx = Small(dropout), optax.sgd(0.05, 0.9, nesterov=True)
    state = steps.init_state(jax.random.key(0), model=model, tx=tx, spec=SPEC, ema=True)
    state = jax.tree.map(
        lambda x: x.astype(jnp.float64 if x.dtype == jnp.float32 else x.dtype), state
    )
    step = partial(
        steps.train_step,
        model=model,
        tx=tx,
        spec=SPEC,
        loss_fn=partial(losses.cross_entropy, label_smoothing=0.1),
        augment_fn=partial(augment, config=AUGMENTATION),
        ema_decay=0.9,
    )
    return state, step


def split(batch):
    return jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), batch)


def run(mapping, state, batch, step, count=2, devices=DEVICES):
    """Takes `count` steps and returns the state and the last metrics, as NumPy; `devices` are a
    mesh's."""
    key = jax.random.key(7)
    if mapping == "one":
        f = jax.jit(step)
    elif mapping == "mesh":
        mesh = sharding.make_mesh(devices)
        state, batch = sharding.replicate(mesh, state), sharding.shard_batch(mesh, batch)
        f = jax.jit(step)
    elif mapping.endswith("shard_map"):
        f = jax.jit(
            jax.shard_map(
                partial(step, axis_name="data"),
                mesh=sharding.make_mesh(DEVICES),
                in_specs=(P(), P("data"), P()),
                out_specs=P(),
                check_vma=mapping == "shard_map",
            )
        )
    else:
        step, batch = partial(step, axis_name="data"), split(batch)
        axes = {"axis_name": "data", "in_axes": (0, 0, None), "axis_size": DEVICES}
        f = jax.pmap(step, **axes) if mapping == "pmap" else jax.jit(jax.vmap(step, **axes))
        state = jax.tree.map(lambda x: jnp.stack([x] * DEVICES), state)
    for _ in range(count):
        state, metrics = f(state, batch, key)
    out = jax.tree.map(np.asarray, (state, metrics))
    if mapping in ("pmap", "vmap"):
        for x in jax.tree.leaves(out):
            np.testing.assert_allclose(x, np.broadcast_to(x[:1], x.shape), atol=1e-12)
        out = jax.tree.map(lambda x: x[0], out)
    return out


def worst(a, b):
    return max(
        np.abs(np.asarray(x) - np.asarray(y)).max()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture(scope="module")
def exact():
    """Two float64 steps on one device, with every random thing on but dropout."""
    with jax.enable_x64(True):
        state, step = make_setup(0.0)
        batch = make_batch(np.random.default_rng(3))
        return state, step, batch, run("one", state, batch, step)


@pytest.mark.parametrize("mapping, devices", MAPPINGS_OF)
def test_mappings_agree(exact, mapping, devices):
    state, step, batch, expected = exact
    with jax.enable_x64(True):
        got = run(mapping, state, batch, step, devices=devices)
    print(f"{mapping}, {devices}: {worst(got, expected):.1e}")
    assert worst(got, expected) < 1e-12
    assert worst(expected[0].params, state.params) > 1e-3  # the steps did something


def teach(images):
    """Answers that hang on the pixels."""
    return jax.nn.softmax(images.reshape(len(images), -1)[:, :8] / 50.0)


@pytest.mark.parametrize("sam_rho", [0.0, 0.3])
def test_mappings_agree_on_micro_batches(sam_rho):
    """Each takes the same examples of the whole batch, and its statistics over them; so do
    sharpness-aware steps from teachers' answers."""
    with jax.enable_x64(True):
        state, step = make_setup(0.0)
        # Altered before it is split: the tests above show that. Without, it compiles faster.
        step = partial(step, accumulate=2, augment_fn=None, sam_rho=sam_rho)
        if sam_rho:
            loss = partial(losses.distillation, temperature=2.0, share=0.5)
            loss = partial(loss, loss_fn=step.keywords["loss_fn"])
            step = partial(step, teach_fn=teach, loss_fn=loss)
        batch = make_batch(np.random.default_rng(5))
        expected = run("one", state, batch, step, count=1)
        for mapping in MAPPINGS:
            assert worst(run(mapping, state, batch, step, count=1), expected) < 1e-12, mapping


@pytest.mark.parametrize("mapping", ["pmap", "vmap"])
def test_a_missing_psum_is_seen(exact, mapping, monkeypatch):
    state, step, batch, expected = exact
    monkeypatch.setattr(steps, "_sum_over", lambda axis_name, x: x)
    with jax.enable_x64(True), pytest.raises(AssertionError):
        # Shards drift apart, or agree on something else: either is caught.
        assert worst(run(mapping, state, batch, step), expected) < 1e-9


def test_dropout_on_a_mesh_is_that_of_one_device():
    with jax.enable_x64(True):
        state, step = make_setup(0.3)
        step = partial(step, augment_fn=None)
        batch = make_batch(np.random.default_rng(4))
        one, mesh = run("one", state, batch, step), run("mesh", state, batch, step)
    assert worst(one, mesh) < 1e-12


class Recorder(nn.Module):
    """Keeps what it sees of a batch, pixels and dropout mask, where the step's result shows it."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        x = x.reshape(x.shape[0], -1)
        mask = nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(x))
        self.variable("batch_stats", "pixels", jnp.zeros_like, x).value = x
        self.variable("batch_stats", "mask", jnp.zeros_like, x).value = mask
        return nn.Dense(8)(x)


@pytest.mark.parametrize("mapping", ["pmap", "vmap"])
def test_identical_pictures_are_altered_and_masked_differently_on_every_shard(mapping):
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    n = DEVICES * LOCAL
    batch = {
        "image": np.broadcast_to(image, (n, *image.shape)),
        "label": np.full((n, 8), 1 / 8, np.float32),
        "weight": np.ones(n, np.float32),
    }
    model, tx = Recorder(), optax.sgd(0.1)
    state = steps.init_state(jax.random.key(0), model=model, tx=tx, spec=SPEC)
    stats = {name: jnp.zeros((LOCAL, image.size)) for name in ("mask", "pixels")}
    step = partial(
        steps.train_step,
        model=model,
        tx=tx,
        spec=SPEC,
        loss_fn=losses.cross_entropy,
        augment_fn=partial(augment, config=Augmentation(flip=0.5, rotate=10)),
        axis_name="data",
    )
    axes = {"axis_name": "data", "in_axes": (None, 0, None)}
    f = jax.pmap(step, **axes) if mapping == "pmap" else jax.jit(jax.vmap(step, **axes))
    state, _ = f(state.replace(batch_stats=stats), split(batch), jax.random.key(1))
    for name in stats:
        seen = np.asarray(state.batch_stats[name]).reshape(n, -1)
        assert len(np.unique(seen, axis=0)) == n, name


@pytest.fixture(scope="module")
def narrow():
    """A SimpleNetV2, the spec of its faces, how it learns, and a state of it."""
    model, spec = SimpleNetV2(width=1 / 8, dropout=(0.0, 0.0)), ImageSpec(size=28)
    tx = optax.sgd(0.05)
    init = jax.jit(partial(steps.init_state, model=model, tx=tx, spec=spec))
    return model, spec, tx, jax.device_get(init(jax.random.key(0)))


def test_simplenet_takes_its_statistics_over_the_mapped_axis(narrow):
    model, _, _, state = narrow
    x = np.random.default_rng(0).normal(size=(DEVICES, LOCAL, 28, 28, 3)).astype(np.float32)
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def stats(x, model=model):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])[1]

    whole = jax.jit(stats)(x.reshape(-1, *x.shape[2:]))
    mapped = jax.vmap(partial(stats, model=model.clone(axis_name="data")), axis_name="data")
    shards = jax.jit(mapped)(x)
    assert worst(jax.tree.map(lambda s: s[3], shards), whole) < 1e-4


def all_reduces(compiled):
    """How many all-reduces a compiled step makes, and the bytes of what they give."""
    given = re.findall(r" = (.*) all-reduce(?:-start)?\(", compiled.as_text())
    shapes = [shape for each in given for shape in re.findall(r"\w+\[[\d,]*\]", each)]
    assert all(shape.startswith("f32[") for shape in shapes)
    sizes = [[int(n) for n in re.findall(r"\d+", shape[4:])] for shape in shapes]
    return len(given), sum(4 * int(np.prod(size)) for size in sizes)


def make_narrow_step(narrow):
    """A step of that network, and what it takes: a state, a batch and a key."""
    model, spec, tx, state = narrow
    rng, loss = np.random.default_rng(6), losses.cross_entropy
    batch = {
        "image": rng.integers(0, 256, (16, 28, 28, 3), np.uint8),
        "label": rng.dirichlet(np.ones(8), 16).astype(np.float32),
        "weight": rng.uniform(0.1, 2, 16).astype(np.float32),
    }
    step = jax.jit(partial(steps.train_step, model=model, tx=tx, spec=spec, loss_fn=loss))
    return step, state, batch, jax.random.key(1)


def spread(state, batch, key):
    mesh = sharding.make_mesh(4)
    return sharding.replicate(mesh, state), sharding.shard_batch(mesh, batch), key


def test_a_narrow_simplenet_on_a_mesh_learns_as_on_one_device(narrow):
    """In float64: rounded to float32, a maximum now and then passes its gradient to another pixel,
    or a ReLU shuts, on some machines and not on others."""
    with jax.enable_x64(True):
        model, *others, state = narrow
        state = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state)
        step, *arguments = make_narrow_step((model.clone(dtype=jnp.float64), *others, state))
        expected, got = step(*arguments), step(*spread(*arguments))
    print(f"SimpleNetV2, 4: {worst(got, expected):.1e}")
    assert worst(got, expected) < 1e-11
    assert worst(expected[0].params, state.params) > 1e-3


def test_devices_tell_each_other_what_is_said(narrow):
    """The figures of docs/scaling.md, from the step as it is compiled for four devices."""
    step, *arguments = make_narrow_step(narrow)
    compiled, state = step.lower(*spread(*arguments)).compile(), arguments[0]
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    channels = sum(x.size for x in jax.tree.leaves(state.batch_stats)) // 2
    sums = 64 + 45 + 3 + 1
    told = 4 * parameters + 12 * channels + 4 * sums
    assert all_reduces(compiled) == (27, told) == (27, 347_780)
