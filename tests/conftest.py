"""Eight CPU devices, before anything touches JAX; and what was compiled once is not again.

Below: the fixtures that several files share.
"""

import atexit
import os
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# Resumed and restarted runs compile the same steps: a cache for this session alone.
CACHE = tempfile.mkdtemp(prefix="emotion_jax-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


@pytest.fixture
def predictor():
    """A network that answers without looking."""
    from false_network import FalsePredictor

    return FalsePredictor()


@pytest.fixture
def found(monkeypatch):
    """Pictures themselves say how many faces they have."""
    from false_network import false_detect

    from emotion_jax import faces

    monkeypatch.setattr(faces, "detect", false_detect)
