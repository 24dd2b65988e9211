"""Devices: the mesh, and where a batch and a state lie on it. The only file that knows them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from emotion_jax.errors import EmotionError

DATA = "data"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def join_processes() -> None:
    """Joins this process to the others of its run; to be called before a device is touched.

    The cluster is found as `jax.distributed.initialize` finds it: SLURM, Open MPI, Kubernetes
    (with `jax[k8s]`), Cloud TPU. Elsewhere the environment says it, to each process:
    `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES`, `JAX_PROCESS_ID`.

    Raises:
      EmotionError: neither says who the others are, or they cannot be joined.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if address.rpartition(":")[0] in _LOOPBACK:
        # Else the coordinator listens on every interface, and asks nobody who they are.
        os.environ.setdefault("JAX_COORDINATOR_BIND_ADDRESS", address)
    try:
        names = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
        given: dict[str, Any] = {
            word: int(os.environ[name]) for word, name in names.items() if name in os.environ
        }
        # How the processes agree on the step to stop at; see `agreement`.
        jax.config.update("jax_enable_preemption_service", True)
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        what = str(error).splitlines()[0].rstrip(". ")
        raise EmotionError(
            f"--distributed: {what}; start it under SLURM or another cluster that JAX knows, or "
            "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def make_mesh(num_devices: int = 0) -> Mesh:
    """One axis, "data", over `num_devices` devices; 0 takes all that JAX sees."""
    devices = jax.devices()
    if num_devices > len(devices):
        raise EmotionError(f"num_devices: {num_devices} asked for, JAX sees {len(devices)}")
    devices = devices[: num_devices or None]
    # "Auto": the compiler carries the sharding through the step; nothing in it names a mesh.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def memory(mesh: Mesh) -> int:
    """Bytes that each device of the mesh may use: the least of any, the same in every process."""
    mine = min(map(_memory, mesh.local_devices))
    if jax.process_count() == 1:
        return mine
    # In MiB: JAX has no 64 bits unless they are switched on.
    everyone = multihost_utils.process_allgather(np.int32(mine >> 20))
    return int(everyone.min()) << 20


def _memory(device: jax.Device) -> int:
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    # A CPU's devices share what the machine has.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def wait_for_everyone(name: str) -> None:
    """Goes on once every process of the run is here; `name` is the place, the same in all."""
    multihost_utils.sync_global_devices(name)


def agreement() -> Callable[[int], bool] | None:
    """What tells processes that one of them was asked to stop; None for a process alone.

    Called by each with the number of its call, from 1 on; true at the same call in all, within
    seconds after any of them got SIGTERM. JAX listens for it from `jax.distributed.initialize` on.
    """
    return None if jax.process_count() == 1 else multihost_utils.reached_preemption_sync_point


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Puts this process's share of a batch (NumPy, batch leading) on its devices."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts a tree of host arrays, equal in every process, on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, x.shape), tree
    )
