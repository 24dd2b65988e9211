"""How fast the device's memory is, measured: what `flops.py --bandwidth` wants.

    python benchmarks/bandwidth.py [--gigabytes=1] [--seconds=2]

Adds 1 to an array of float32, in place, over and over. It is far larger than any cache, so that a
step reads it all from memory and writes it all there. Prints one line: bytes read and written a
second, the median of several windows of steps at whose end the device was waited for.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
from measuring import device_name, time_steps


def measure_bandwidth(size: int, seconds: float) -> float:
    """Bytes a second that adding 1 to `size` bytes of float32 reads and writes."""
    x = jnp.zeros(size // 4, jnp.float32)
    # In place: on a CPU a fresh array's pages would have to be found at each step.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def step() -> jax.Array:
        nonlocal x
        x = add(x)
        return x

    found = time_steps(step, jax.block_until_ready, seconds=seconds)
    return 2 * x.nbytes / found["step_s"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the array")
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure for")
    flags = parser.parse_args()
    rate = measure_bandwidth(int(flags.gigabytes * 1e9), flags.seconds) / 1e12
    print(f"{device_name()}: x + 1 over {flags.gigabytes:g} GB reads and writes {rate:.4g} TB/s")


if __name__ == "__main__":
    main()
