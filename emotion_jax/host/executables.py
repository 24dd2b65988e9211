"""Machine code of a network that JAX compiled earlier, run without loading JAX.

`import jax` takes more time than all else that a prediction needs; its library, jaxlib, a tenth of
that. The only file that knows jaxlib, and it uses more of it than is promised to stay: with
another jaxlib anything here, the import included, may fail, and whoever calls must be able to do
without.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxlib import _jax, xla_client

from emotion_jax.host.atomic import replace_bytes


class _Here(_jax.SingleDeviceSharding):
    """On one device: what JAX adds to jaxlib's own class, as far as it is asked for here."""

    memory_kind = None

    def _to_xla_hlo_sharding(self, num_dimensions: int) -> Any:
        return xla_client.HloSharding.replicate()


class _Lent:
    """An array of a device as NumPy takes it over."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **_: Any) -> Any:
        return _jax.buffer_to_dlpack_managed_tensor(self._array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # a CPU, the first


class Executable:
    """A function of one picture, compiled for this processor.

    What it is made of is run as it is: it must come from nobody else.
    """

    def __init__(self, code: bytes, weights: Sequence[np.ndarray], *, output: tuple[int, ...]):
        """Load the code.

        Args:
          code: what `LoadedExecutable.serialize` gave, of a function of the weights and a picture
            that returns one float32 array.
          weights: its first arguments.
          output: the shape of what it returns.

        Raises:
          RuntimeError, or whatever another jaxlib makes of it: it cannot be run.
        """
        client = _make_client()
        self._device = client.local_devices()[0]
        self._place = _Here(self._device)
        devices = xla_client.DeviceList((self._device,))
        self._run = client.deserialize_executable(code, devices).execute_sharded
        self._weights = [self._put(np.asarray(array)) for array in weights]
        aval = SimpleNamespace(shape=output, dtype=np.dtype(np.float32), weak_type=False)
        make = _jax.array_result_handler
        try:
            self._handler = make(aval, self._place, True, True)  # without JAX's own checks
        except TypeError:  # jaxlib 0.12 has none
            self._handler = make(aval, self._place, True)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Return the function's value for a picture of the very shape it was compiled for."""
        results = self._run([*self._weights, self._put(picture)])
        [array] = results.consume_with_handlers([self._handler])
        return np.array(np.from_dlpack(_Lent(array)))

    def _put(self, array: np.ndarray) -> Any:
        aval = SimpleNamespace(shape=array.shape, dtype=array.dtype, weak_type=False)
        return _jax.batched_device_put(
            aval, self._place, [array], [self._device], True, enable_x64=False
        )


@functools.cache
def _make_client() -> Any:
    """The processor, as XLA knows it; each call is waited for."""
    return xla_client.make_cpu_client(asynchronous=False)


def write_executable(path: Path, code: bytes, weights: Sequence[np.ndarray]) -> None:
    """Keep what an `Executable` is made of in a file, written in one move.

    Raises:
      OSError: it cannot be written.
    """
    file = io.BytesIO()
    np.savez(file, np.frombuffer(code, np.uint8), *weights)
    replace_bytes(path, file.getvalue())


def read_executable(path: Path, *, output: tuple[int, ...]) -> Executable:
    """Load what `write_executable` kept; each array's checksum is compared.

    Raises:
      OSError, or what zip files raise: there is no such file, or it is damaged.
      RuntimeError, or whatever another jaxlib makes of it: it cannot be run.
    """
    with np.load(path, allow_pickle=False) as file:
        code, *weights = (file[f"arr_{i}"] for i in range(len(file.files)))
    return Executable(code.tobytes(), weights, output=output)
