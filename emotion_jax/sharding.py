"""Devices: the mesh, and where a batch and a state lie on it. The only file that knows them."""

from __future__ import annotations

import errno
import os
import socket
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from emotion_jax.errors import EmotionError
from emotion_jax.host.memory import host_limit

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
    if jax.process_count() > 1 and num_devices not in (0, len(devices)):
        raise EmotionError(
            f"num_devices: {num_devices}; of several processes each takes all devices it sees, so "
            "set 0, and start fewer processes or show them fewer devices"
        )
    devices = devices[: num_devices or None]
    # "Auto": the compiler carries the sharding through the step; nothing in it names a mesh.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def memory(mesh: Mesh) -> int:
    """Bytes that each device of the mesh may use: the least of any, the same in every process.

    Not more than the host has for each of its processes: what shall lie on a device is read there.
    """
    devices = mesh.local_devices
    share = host_limit() // _neighbours()
    stats = [device.memory_stats() or {} for device in devices]
    if all("bytes_limit" in each for each in stats):
        mine = min(share, *(each["bytes_limit"] for each in stats))
    else:  # a CPU's devices share what the host has
        mine = share // len(devices)
    # In MiB: JAX has no 64 bits unless they are switched on.
    return int(_gather(mine >> 20).min()) << 20


def _neighbours() -> int:
    """How many of the run's processes are on this host."""
    name = zlib.crc32(socket.gethostname().encode()) >> 1
    return int((_gather(name) == name).sum())


def _gather(number: int) -> np.ndarray:
    """A number of 31 bits from every process, `[processes]`."""
    if jax.process_count() == 1:
        return np.array([number])
    return np.asarray(multihost_utils.process_allgather(np.int32(number)))


def wait_for_everyone(name: str) -> None:
    """Goes on once every process of the run is here; `name` is the place, the same in all."""
    multihost_utils.sync_global_devices(name)


def first_does(work: Callable[[], None]) -> None:
    """Does in the first process what is to be done once; every process waits until it is done.

    Raises:
      OSError: what the work raised; in every process, so that none goes on alone.
    """
    error: OSError | None = None
    if jax.process_index() == 0:
        try:
            work()
        except OSError as caught:
            error = caught
    number = (error.errno or errno.EIO) if error else 0
    if number := int(_gather(number)[0]):
        raise error or OSError(number, os.strerror(number))


def agreement() -> Callable[[int], bool] | None:
    """What tells processes that one of them was asked to stop; None for a process alone.

    Called by each with the step it has taken, in their order; true at the same step in all, within
    seconds after any of them got SIGTERM. JAX listens for it from `jax.distributed.initialize` on.
    It counts for all who ask, and Orbax asks with the step that it saves: other numbers than the
    run's own would have all wait for a step that comes late or never.
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
