"""Eight CPU devices, before anything touches JAX; and what was compiled once is not again.

Below: the fixtures that several files share.
"""

import atexit
import os
import shutil
import tempfile

import pytest
from fuzzing import Child
from hypothesis import HealthCheck, settings

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


# Files are written for each example: the folder is shared, the time is the disk's.
FREE = {"deadline": None, "suppress_health_check": list(HealthCheck)}
# The same examples every time, so that what fails here fails again; and new ones, by the thousand:
# pytest --hypothesis-profile=thorough, or HYPOTHESIS_PROFILE=thorough.
settings.register_profile("quick", max_examples=100, derandomize=True, **FREE)
settings.register_profile("thorough", max_examples=2000, **FREE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="module")
def child():
    """A process that reads damaged files; -s shows what it came to."""
    made = Child()
    yield made
    made.close()
    print(made.summary())


@pytest.fixture(scope="session")
def scenes():
    """The folder of real pictures and films."""
    shared = os.environ.get("EMOTION_JAX_SHARED")
    if not shared:
        pytest.skip("EMOTION_JAX_SHARED is not set: no real pictures or films")
    return os.path.join(os.path.realpath(shared), "data", "scenes")


@pytest.fixture
def tiny(monkeypatch):
    """A network that compiles at once, by the name of "tiny"."""
    from tiny_runs import Tiny

    from emotion_jax import models

    monkeypatch.setitem(models.MODELS, "tiny", Tiny)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """An array file of faces that are learnt in no time."""
    from tiny_runs import write_faces

    return write_faces(tmp_path_factory.mktemp("faces") / "faces.npz")


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
