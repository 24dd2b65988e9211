"""What is compiled once is kept: in a folder of its owner's alone."""

import json
import os
import stat
import subprocess
import sys

import pytest

from emotion_jax.host.compilation_cache import enable_compilation_cache

VARIABLES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "TF_CPP_MIN_LOG_LEVEL",
)

PREDICTS = """
import json, os
from emotion_jax.host.compilation_cache import enable_compilation_cache
enable_compilation_cache()
import jax, numpy as np
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.split("/")[-1]))
from emotion_jax import load_predictor
load_predictor()(np.zeros((1, 48, 48, 3), np.uint8))
print(json.dumps([os.environ["JAX_COMPILATION_CACHE_DIR"], events.count("cache_hits")]))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home in which nothing was compiled yet."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_second_start_finds_what_the_first_compiled(home):
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PREDICTS], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        found.append(json.loads(done.stdout))
    (folder, hits), again = found
    assert os.path.dirname(folder) == str(home / "emotion_jax") and hits == 0
    assert again == [folder, 1]
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert any("predict_probs" in name for name in os.listdir(folder))


def test_a_folder_that_others_can_write_is_not_used(home, capsys):
    enable_compilation_cache()
    folder = os.environ.pop("JAX_COMPILATION_CACHE_DIR")
    os.chmod(folder, 0o770)
    enable_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert f"others can write '{folder}'" in capsys.readouterr().err
    os.chmod(folder, 0o700)
    os.chmod(os.path.dirname(folder), 0o777)  # where they could put another in its place
    enable_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert "note:" in capsys.readouterr().err


def test_a_link_is_not_followed(home, tmp_path_factory, capsys):
    enable_compilation_cache()
    folder = os.environ.pop("JAX_COMPILATION_CACHE_DIR")
    os.rmdir(folder)
    os.symlink(tmp_path_factory.mktemp("elsewhere"), folder)
    enable_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ and folder in capsys.readouterr().err


def test_a_home_that_cannot_be_written_does_without(home, monkeypatch, capsys):
    (home / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    enable_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ and capsys.readouterr() == ("", "")


def test_nobody_s_home_does_without(home, monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 123_456_789)
    assert enable_compilation_cache() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ and capsys.readouterr() == ("", "")


def test_who_has_a_cache_keeps_it(home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    enable_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/mine" and os.listdir(home) == []
