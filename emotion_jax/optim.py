"""Schedules and optimizers, put together from optax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from emotion_jax.errors import EmotionError


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
    final_ratio: float = 0.0,
) -> optax.Schedule:
    """Builds a learning-rate schedule over optimizer steps.

    Args:
      name: "constant", "cosine" (Loshchilov and Hutter, arXiv 1608.03983) or "multistep".
      learning_rate: the highest.
      total_steps: length of the run, warm-up included.
      warmup_steps: the rate first rises linearly from 0 over these.
      milestones: shares of the steps after warm-up at which "multistep" multiplies by `factor`.
      factor: see `milestones`.
      final_ratio: "cosine" ends at this share of `learning_rate`.
    """
    steps = max(total_steps - warmup_steps, 1)
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, steps, final_ratio)
    elif name == "multistep":
        boundaries: dict[int, float] = {}
        for share in milestones:  # in a short run two may fall on one step: both count
            step = round(share * steps)
            boundaries[step] = boundaries.get(step, 1.0) * factor
        schedule = optax.piecewise_constant_schedule(learning_rate, boundaries)
    else:
        raise EmotionError(f"schedule.name: '{name}'; use constant, cosine or multistep")
    if not warmup_steps:
        return schedule
    rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([rise, schedule], [warmup_steps])


def is_kernel(params: Any) -> Any:
    """True for each kernel of the tree, False for biases and BatchNorm's scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    b2: float = 0.999,
    rho: float = 0.95,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Builds an optimizer; only kernels decay.

    Args:
      name: "adamw", "muon" (a convolution's kernel moves as far in each of its directions; what is
        no convolution, by adamw), "sgd" (Nesterov momentum) or "adadelta" (what SimpNet was trained
        with).
      learning_rate: a number or a schedule.
      weight_decay: decoupled from the gradient for adamw and muon; added to it for the others.
      momentum: of sgd and muon, and adamw's b1.
      b2: of adamw, and of what muon leaves to it.
      rho: of adadelta.
      clip_norm: gradients of a larger global norm are scaled down to it; 0 is off.
    """
    if name in ("adamw", "muon"):
        rule = optax.adamw(
            learning_rate, b1=momentum, b2=b2, weight_decay=weight_decay, mask=is_kernel
        )
        if name == "muon":
            rule = _muon(learning_rate, momentum, weight_decay, rest=rule)
    elif name in ("sgd", "adadelta"):
        step = (
            optax.sgd(learning_rate, momentum, nesterov=True)
            if name == "sgd"
            else optax.adadelta(learning_rate, rho)
        )
        rule = optax.chain(optax.add_decayed_weights(weight_decay, is_kernel), step)
    else:
        raise EmotionError(f"optimizer.name: '{name}'; use adamw, muon, sgd or adadelta")
    return optax.chain(optax.clip_by_global_norm(clip_norm), rule) if clip_norm else rule


def _muon(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float,
    weight_decay: float,
    rest: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Jordan's Muon (2024); steps as large as Adam's, 0.2 in root mean square (arXiv 2502.16982).

    A kernel `[H, W, in, out]` is the matrix `[H W in, out]` that its convolution multiplies with.
    What is no convolution steps by `rest`.
    """

    def matrices(kernels: Any) -> Any:
        return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers((0, 1, 2), 3), kernels)

    def scaled(kernels: Any, _: Any = None) -> Any:
        # Orthonormal columns or rows, whichever are fewer, have a mean square of 1 / the longer.
        return jax.tree.map(
            lambda k: 0.2 * max(k.size // k.shape[3], k.shape[3]) ** 0.5 * k, kernels
        )

    convolutions = optax.chain(
        optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=matrices),
        optax.stateless(scaled),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.partition(
        {"convolution": convolutions, "rest": rest},
        lambda params: jax.tree.map(lambda p: "convolution" if p.ndim == 4 else "rest", params),
    )


def climb(params: Any, grads: Any, rho: float) -> Any:
    """Moves parameters up the slope, to where the loss nearby is worst as far as `grads` tell.

    The first half of sharpness-aware minimization (Foret et al., arXiv 2010.01412).

    Args:
      params: of the network.
      grads: of the loss in them; where all are 0, nothing moves.
      rho: the length of the move, the Euclidean norm over all parameters.
    """
    norm = optax.tree.norm(grads)
    # Where nothing slopes nothing moves, rather than by 0 / 0.
    scale = rho / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny ** 0.5)
    return jax.tree.map(lambda p, g: p + scale * g, params, grads)
