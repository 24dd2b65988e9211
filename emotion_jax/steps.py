"""The heart: one training step, one evaluation step, one prediction, as pure functions.

Nothing here is compiled, mapped or placed: the caller does that. `jax.jit(partial(train_step,
model=model, tx=tx, ...), donate_argnums=0)` is the whole wiring on one device or a mesh; under
`jax.pmap`, `jax.vmap` or `jax.shard_map` name the mapped axis by `axis_name`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from emotion_jax import metrics
from emotion_jax.image_spec import ImageSpec
from emotion_jax.losses import LossFn
from emotion_jax.optim import climb
from emotion_jax.preprocess import Batch, normalize

AugmentFn = Callable[[Batch, jax.Array], Batch]
TeachFn = Callable[[jax.Array], jax.Array]


@struct.dataclass
class TrainState:
    """All that training changes, arrays only.

    Attributes:
      step: steps taken, int32 `[]`.
      params: the network's parameters.
      batch_stats: BatchNorm's running statistics; empty for a network without.
      ema: moving averages {"params", "batch_stats"}; None where they are off.
      opt_state: of the optimizer.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    ema: Any
    opt_state: Any


def init_state(
    key: jax.Array,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    spec: ImageSpec,
    ema: bool = False,
) -> TrainState:
    """Draws a network's first parameters; `ema` also starts their moving average."""
    image = jnp.zeros((1, spec.size, spec.size, spec.channels), float)
    variables = model.init(key, image, train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        # Copies, because two leaves of one donated state must not share a buffer.
        ema=jax.tree.map(jnp.copy, _variables(params, batch_stats)) if ema else None,
        opt_state=tx.init(params),
    )


def example_keys(key: jax.Array, count: int, axis_name: str | None = None) -> jax.Array:
    """One key for each of this device's `count` examples, the same however a batch is split."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(count))


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    spec: ImageSpec,
    loss_fn: LossFn,
    augment_fn: AugmentFn | None = None,
    teach_fn: TeachFn | None = None,
    ema_decay: float = 0.0,
    sam_rho: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, metrics.Metrics]:
    """Takes one optimizer step on the weighted mean of the losses.

    A step whose loss or gradients are not finite only counts: it leaves all else as it was.

    Args:
      state: before the step.
      batch: image uint8 `[B, H, W, C]`, label float32 `[B, K]` (distributions), weight float32
        `[B]`; under a mapped axis this device's share of it.
      key: the run's key, the same at every step: `state.step` is folded in.
      model: a network called as `model.apply(variables, x, train=True)`; under a mapped axis it
        must have an attribute `axis_name` for its BatchNorm.
      tx: the optimizer that made `state.opt_state`.
      spec: of the pixels.
      loss_fn: (logits `[B, K]`, labels `[B, K]`) to losses `[B]`; with `teach_fn` its answers
        `[B, K]` come third.
      augment_fn: (batch, one key an example) to the altered batch.
      teach_fn: pixels as the network gets them, float or uint8 `[B, H, W, C]` in 0..255, to what
        its teachers answer, `[B, K]`; no gradient flows through it.
      ema_decay: of the moving averages, where `state.ema` is on.
      sam_rho: how far the weights are moved up the slope, as a Euclidean length, before the
        gradient is taken that the optimizer gets (sharpness-aware minimization, Foret et al.,
        arXiv 2010.01412); twice the work; 0 is off. Both gradients are of the same altered
        batch, dropout masks included, and of all of it: the paper's "m" is the whole batch.
        Statistics and metrics are those of the first.
      accumulate: micro-batches whose gradients are added up one after the other, for batches that
        do not fit; each device's share must be a multiple of it. The loss and its gradient stay
        those of the whole batch, whatever the weights. BatchNorm normalizes each micro-batch by
        itself, and its running statistics take one step towards the mean of theirs. Under
        `shard_map` it takes `check_vma=False`.
      axis_name: the mapped axis over which the batch is split, if any.

    Returns:
      The state after the step, and the metrics of the whole batch; those of a step not taken are
      zero but for `skipped`, which is 1.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    if axis_name is not None:
        model = model.clone(axis_name=axis_name)
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
    if augment_fn is not None:
        keys = example_keys(augment_key, batch["weight"].shape[0], axis_name)
        batch = augment_fn(batch, keys)
    if teach_fn is not None:
        batch = {**batch, "taught": jax.lax.stop_gradient(teach_fn(batch["image"]))}
    weight = batch["weight"]
    total = jnp.maximum(_sum_over(axis_name, weight.sum()), jnp.finfo(weight.dtype).tiny)

    def objective(params: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, updated = model.apply(
            _variables(params, state.batch_stats),
            normalize(part["image"], spec),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        taught = () if teach_fn is None else (part["taught"],)
        losses = loss_fn(logits, part["label"], *taught)
        measured = metrics.measure(logits, part["label"], part["weight"], losses)
        # Divided by the weight of the whole batch, so that parts of uneven weight add up.
        objective = jnp.sum(part["weight"] * losses) / total
        return objective, (updated.get("batch_stats", {}), measured)

    def backward(params: Any) -> tuple[Any, Any, metrics.Metrics]:
        f = partial(jax.grad(objective, has_aux=True), _own(axis_name, params))
        grads, (batch_stats, measured) = _add_up(f, batch, dropout_key, accumulate)
        grads, measured = _sum_over(axis_name, (grads, measured))
        return grads, batch_stats, measured

    grads, batch_stats, measured = backward(state.params)
    if sam_rho:
        grads, *_ = backward(climb(state.params, grads, sam_rho))
    batch_stats = jax.tree.map(lambda x: x / accumulate, batch_stats)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        # A young average leans on the newest weights: 0.1 at the first step, rising to ema_decay.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        ema = optax.incremental_update(_variables(params, batch_stats), ema, 1 - decay)
    after = TrainState(state.step + 1, params, batch_stats, ema, opt_state)
    # Both are sums over the mapped axis, so that all of it decides alike.
    finite = jnp.isfinite(measured.loss) & jnp.isfinite(optax.tree.norm(grads))
    nothing = jax.tree.map(jnp.zeros_like, measured).replace(skipped=jnp.ones(()))
    return (
        _select(finite, after, dataclasses.replace(state, step=after.step)),
        _select(finite, measured, nothing),
    )


def eval_step(
    variables: Any,
    batch: Batch,
    *,
    model: nn.Module,
    spec: ImageSpec,
    loss_fn: LossFn,
    mirrored: bool = False,
    axis_name: str | None = None,
) -> metrics.Metrics:
    """Measures a batch; padding has weight 0. See `train_step` for the arguments.

    `mirrored` averages the answer with that to the faces seen in a mirror: twice the work.
    """
    images = normalize(batch["image"], spec)
    logits: Any = model.apply(variables, images, train=False)
    if mirrored:
        other: Any = model.apply(variables, images[:, :, ::-1], train=False)
        # The mean of probabilities, as logits of itself.
        pair = jax.nn.log_softmax(jnp.stack([logits, other]))
        logits = jax.nn.logsumexp(pair, axis=0) - jnp.log(2.0)
    losses = loss_fn(logits, batch["label"])
    return metrics.measure(logits, batch["label"], batch["weight"], losses, axis_name=axis_name)


def predict_probs(
    variables: Any,
    images: jax.Array,
    *,
    model: nn.Module,
    spec: ImageSpec,
    temperature: float = 1.0,
) -> jax.Array:
    """Probabilities float32 `[B, K]` of faces uint8 `[B, spec.size, spec.size, C]`."""
    logits: Any = model.apply(variables, normalize(images, spec), train=False)
    return jax.nn.softmax(logits / temperature)


def eval_variables(state: TrainState) -> dict[str, Any]:
    """What is evaluated, saved as the model and shipped: the moving averages where they are on."""
    return _variables(state.params, state.batch_stats) if state.ema is None else state.ema


def _variables(params: Any, batch_stats: Any) -> dict[str, Any]:
    return {"params": params, "batch_stats": batch_stats}


def _add_up(f: Callable[..., Any], batch: Batch, key: jax.Array, count: int) -> Any:
    """The sum of f(part, its key) over `count` equal parts of a batch, taken in turns."""
    if count == 1:
        return f(batch, key)
    # Part i takes every count-th example from i on: of each device's share the same number.
    parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)
    terms = parts, jax.random.split(key, count)
    one = jax.eval_shape(f, *jax.tree.map(lambda x: x[0], terms))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
    return jax.lax.scan(lambda sums, x: (jax.tree.map(jnp.add, sums, f(*x)), None), zeros, terms)[0]


def _sum_over(axis_name: str | None, x: Any) -> Any:
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def _own(axis_name: str | None, x: Any) -> Any:
    """Each device's own copy of what is equal on all: nothing added that hangs on the device.

    Gradients in the equal ones themselves would be summed over the devices by `shard_map`, which
    keeps account of what is equal, and then once more by `_sum_over`.
    """
    if axis_name is None:
        return x
    nothing = 0 * jax.lax.axis_index(axis_name)
    return jax.tree.map(lambda leaf: leaf + nothing.astype(leaf.dtype), x)


def _select(condition: jax.Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
