"""A worker of `train_step.py`: this project's training step, plain or with levers pulled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import levers as pull
import numpy as np
import optax
from flops import SIZES
from measuring import device_name, peak_resident, serve, time_steps

from emotion_jax.image_spec import ImageSpec
from emotion_jax.losses import cross_entropy
from emotion_jax.models import make_model
from emotion_jax.models.winograd import accelerate
from emotion_jax.steps import init_state, train_step


def work(task: str, **words: Any) -> dict[str, Any]:
    """Measures a step, or the matrix products that steps are compared with."""
    tasks = {"matmul": measure_matmul, "step": measure_step}
    found = tasks[task](**words)
    versions = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
    return {**found, "device": device_name(), "versions": versions}


def measure_matmul(precisions: list[str], seconds: float) -> dict[str, Any]:
    """TFLOP/s of a square product of random numbers, as large as the device deserves."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    product, rates = jax.jit(jnp.matmul), {}
    for precision in precisions:
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(key, (size, size), jnp.dtype(precision)) for key in keys)
        start = partial(product, a, b)
        found = time_steps(start, jax.block_until_ready, seconds=seconds)
        rates[precision] = 2 * size**3 / found["step_s"] / 1e12
    return {"tflops": rates}


def measure_step(
    network: str, precision: str, batch: int, levers: list[str], seconds: float, width: float
) -> dict[str, Any]:
    """Trains on one batch of noise; `levers` are words that `levers.py` explains."""
    size, tx = SIZES[network], optax.adamw(1e-4)
    spec, model = ImageSpec(size=size), make_model(network, dtype=precision, width=width)
    state = jax.jit(partial(init_state, model=model, tx=tx, spec=spec))(jax.random.key(0))
    model = pull.wrap_model(model, spec, levers)
    key = jax.random.key(1, impl="rbg" if "rbg" in levers else None)
    data = jax.device_put(make_batch(batch, size))
    whole = partial(train_step, model=model, tx=tx, spec=spec, loss_fn=cross_entropy)
    compiled = jit_steps(whole, levers)

    def step() -> Any:
        nonlocal state
        state, measured = compiled(state, data, key)
        return measured

    found = time_steps(step, jax.block_until_ready, seconds=seconds)
    repeats = pull.number(levers, "scan", 1)
    loss = jax.tree.map(lambda x: np.asarray(x).reshape(repeats, -1)[-1, 0], step())
    # Last, so that the time to compile has all that the first call needs, tracing included.
    counted = compiled.lower(state, data, key).cost_analysis() or {}
    return {
        **found,
        "step_s": found["step_s"] / repeats,
        "loss": float(loss.loss / loss.weight),
        "peak_memory": peak_memory(),
        # Not every device's compiler counts before it compiles.
        **({"xla_flops": float(counted["flops"])} if "flops" in counted else {}),
    }


def peak_memory() -> int | None:
    """Bytes that the device has held at most, a CPU's the process; None where it does not say."""
    if jax.default_backend() == "cpu":
        return peak_resident()
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def jit_steps(whole: Callable[..., Any], levers: list[str]) -> Any:
    """Compiles (state, data, key) -> (state, metrics), with levers pulled, one step or several."""
    repeats = pull.number(levers, "scan", 1)

    def steps(state: Any, data: Any, key: jax.Array) -> Any:
        with contextlib.ExitStack() as stack:
            if "direct" not in levers:
                stack.enter_context(accelerate(jax.default_backend()))
            pull.intercept(stack, levers)
            if repeats == 1:
                return whole(state, data, key)
            return jax.lax.scan(lambda s, _: whole(s, data, key), state, length=repeats)

    return jax.jit(steps, donate_argnums=pull.donated(levers))


def make_batch(count: int, size: int) -> dict[str, np.ndarray]:
    """Faces of noise, the same for every implementation."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), np.uint8),
        "label": np.eye(8, dtype=np.float32)[rng.integers(0, 8, count)],
        "weight": np.ones(count, np.float32),
    }


if __name__ == "__main__":
    serve(work)
