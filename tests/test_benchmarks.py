"""What the benchmarks compare is the same network and step, and what they count is right."""

import contextlib
from functools import cache, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emotion_jax import losses, steps
from emotion_jax.image_spec import ImageSpec
from emotion_jax.models import VGG16, SimpleNetV2, make_model, simplenet, vgg

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """Their folder is a program's own: it comes first while one runs, and never else."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    # The padding lever widens these tables, in a process of its own.
    monkeypatch.setattr(simplenet, "BLOCKS", simplenet.BLOCKS)
    monkeypatch.setattr(vgg, "STAGES", vgg.STAGES)


@pytest.mark.parametrize("name", ["simplenet", "vgg16"])
def test_counted_parameters_are_the_networks(name):
    from flops import layers

    model = make_model(name)
    image = jnp.zeros((1, *{"simplenet": (64, 64), "vgg16": (224, 224)}[name], 3))
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert sum(layer.parameters for layer in layers(name)) == count


@pytest.mark.parametrize("name", ["simplenet", "vgg16"])
def test_counted_flops_are_those_that_xla_counts(name):
    """But for padding, whose products with nothing XLA leaves out, and elementwise work."""
    from flops import layers, training_flops

    size = {"simplenet": 64, "vgg16": 224}[name]
    model, image = make_model(name, dropout=(0.0, 0.0)), jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)

    def loss(params):
        variables = shapes | {"params": params}
        logits, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return logits.sum()

    stats = shapes.get("batch_stats", {})
    shapes = {"batch_stats": jax.tree.map(lambda x: jnp.zeros(x.shape), stats)} if stats else {}
    params = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)["params"]
    counted = jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]
    assert training_flops(name) == pytest.approx(counted, rel=0.05)
    assert training_flops(name) < 3 * sum(layer.flops for layer in layers(name))


SPEC = ImageSpec(size=28)
NARROW = SimpleNetV2(width=1 / 8, dropout=(0.0, 0.0))


@cache
def train(*levers):
    """The parameters and statistics after a step with levers pulled."""
    import levers as pull

    tx, rng = optax.sgd(0.1), np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (6, 28, 28, 3), np.uint8),
        "label": np.eye(8, dtype=np.float32)[:6],
        "weight": np.ones(6, np.float32),
    }
    init = partial(steps.init_state, model=NARROW, tx=tx, spec=SPEC)
    state = jax.jit(init)(jax.random.key(0))
    wrapped = pull.wrap_model(NARROW, SPEC, levers)
    step = partial(steps.train_step, model=wrapped, tx=tx, spec=SPEC, loss_fn=losses.cross_entropy)

    def with_levers(state):
        with contextlib.ExitStack() as stack:
            pull.intercept(stack, levers)
            return step(state, batch, jax.random.key(1))[0]

    # One step: a second on six faces would multiply what rounding does, by more on some processors.
    state = jax.jit(with_levers)(state)
    return state.params, state.batch_stats


@pytest.mark.parametrize(
    "levers", [["pad16"], ["still", "bf16norm", "remat"], ["trusting"]], ids="+".join
)
def test_levers_change_no_number_of_a_float32_step(levers):
    expected, got = train(), train(*levers)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-4), got, expected)


@pytest.mark.parametrize("levers, taken", [([], 0), (["trusting"], 1)])
def test_a_trusting_step_is_taken_whatever_it_makes(levers, taken):
    import levers as pull

    with contextlib.ExitStack() as stack:
        pull.intercept(stack, levers)
        assert steps._select(False, 1, 0) == taken


def test_dropout_from_eight_bits_keeps_its_share_and_mean():
    import levers as pull

    x = jnp.ones((50, 20, 20, 7))
    with contextlib.ExitStack() as stack:
        pull.intercept(stack, ["bits8"])
        layer = nn.Dropout(0.3, deterministic=False)
        y = np.asarray(layer.apply({}, x, rngs={"dropout": jax.random.key(0)}))
    keep = round(256 * 0.7) / 256
    # Five standard errors of 140,000 draws.
    assert (y > 0).mean() == pytest.approx(keep, abs=5 * (keep * (1 - keep) / y.size) ** 0.5)
    assert np.unique(y).tolist() == [0, pytest.approx(1 / keep)]
    assert len(np.unique(y.reshape(50, -1), axis=0)) == 50


def test_the_network_in_torch_is_ours():
    torch = pytest.importorskip("torch")
    import step_torch

    rng = np.random.default_rng(0)
    for ours, theirs, size in (
        (SimpleNetV2(), step_torch.SimpleNetV2(), 32),
        (VGG16(), step_torch.VGG16(32), 32),
    ):
        x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
        shapes = jax.eval_shape(partial(ours.init, train=False), jax.random.key(0), x)
        # Scaled by each layer's inputs, so that the signal neither dies nor bursts.
        variables = jax.tree.map(
            lambda s: (rng.normal(size=s.shape) / max(1, np.prod(s.shape[:-1])) ** 0.5).astype(
                np.float32
            ),
            {"batch_stats": {}, **shapes},
        )
        for stats in variables["batch_stats"].values():
            stats["var"] = np.abs(stats["var"]) + 0.5
        for name, layer in variables["params"].items():
            if name.startswith("bn"):
                layer["scale"] = 1 + 0.1 * layer["scale"]
        count = sum(x.size for x in jax.tree.leaves(variables["params"]))
        assert sum(p.numel() for p in theirs.parameters()) == count
        step_torch.carry_weights(theirs, variables["params"], variables["batch_stats"])
        with torch.no_grad():
            got = theirs.eval()(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
        expected = np.asarray(ours.apply(variables, x, train=False))
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(got, expected, atol=1e-4)
