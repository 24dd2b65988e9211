"""What was compiled once is run without JAX, and answers as JAX does."""

import json
import os
import stat
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_runs import Tiny

import emotion_jax as ej
from emotion_jax import models
from emotion_jax.host import executables
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import make_meta, model_from_meta
from emotion_jax.prediction import instant
from emotion_jax.prediction.instant import InstantPredictor, load_instantly
from emotion_jax.weights import save_weights

# A start of a program, and what it loaded to answer.
STARTS = """
import json, sys
import numpy as np
from emotion_jax.host.compilation_cache import enable_compilation_cache
folder = enable_compilation_cache()
from emotion_jax.prediction.instant import load_instantly
faces = np.random.default_rng(0).integers(0, 256, (3, 50, 60, 3), np.uint8)
answers = load_instantly(None, folder)(faces)
heavy = [name for name in ("jax", "flax", "tensorflow") if name in sys.modules]
print(json.dumps([heavy, np.asarray(answers, float).tolist(), str(folder)]))
"""
META = make_meta(
    "simplenet", {"width": 0.06}, ImageSpec(size=26, grey=True), emotions=ej.EMOTIONS[:7]
)


def start(home):
    env = {name: os.environ[name] for name in os.environ if not name.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-c", STARTS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).integers(0, 256, (3, 50, 60, 3), np.uint8)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A small network of seven emotions, with weights by chance."""
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)
    *_, shapes = model_from_meta(META)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.uniform(0.2, 0.6, x.shape).astype(np.float32)  # noqa: E731
    save_weights(tmp_path / "weights", jax.tree.map(draw, shapes), META)
    return tmp_path / "weights"


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def test_the_second_start_needs_no_jax(tmp_path, faces):
    first, again = start(tmp_path), start(tmp_path)
    assert "jax" in first[0] and again[0] == []
    assert first[1] == again[1] and first[2] == again[2]
    np.testing.assert_allclose(again[1], ej.load_predictor()(faces), atol=1e-6)
    [kept] = [name for name in os.listdir(again[2]) if name.endswith(".npz")]
    assert stat.S_IMODE(os.stat(again[2]).st_mode) == 0o700
    # What XLA keeps by itself cannot be serialized again: it must have kept nothing of it.
    assert not any("probs_of_a_face" in name for name in os.listdir(again[2])), kept


def test_it_answers_as_the_network_does(weights, cache, faces):
    expected = ej.load_predictor(weights)
    for _ in range(2):
        predictor = load_instantly(weights, cache)
        assert isinstance(predictor, InstantPredictor) and predictor.spec == expected.spec
        for some in (faces, faces[:, :26, :26], faces[..., :1], faces[:0]):
            answers = predictor(some)
            assert answers.shape == (len(some), 8) and answers.dtype == np.float32
            np.testing.assert_allclose(answers, expected(some), atol=1e-6)
        with pytest.raises(ej.EmotionError, match="faces must be uint8"):
            predictor(faces / 255)
    assert np.ptp(predictor(faces)[:, :7]) > 0 and (predictor(faces)[:, 7] == 0).all()


def test_other_weights_code_or_flags_are_compiled_anew(weights, cache, monkeypatch):
    load_instantly(weights, cache)
    before = os.listdir(cache)
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " ")
    load_instantly(weights, cache)
    flags = os.listdir(cache)
    assert len(flags) == 1 and flags != before  # what nobody will ask for is removed
    *_, shapes = model_from_meta(META)
    save_weights(weights, jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), shapes), META)
    predictor = load_instantly(weights, cache)
    assert len(os.listdir(cache)) == 2
    picture = np.zeros((1, 26, 26, 3), np.uint8)
    np.testing.assert_allclose(predictor(picture), ej.load_predictor(weights)(picture), atol=1e-6)


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "other"])
def test_a_damaged_file_is_made_anew(weights, cache, faces, harm):
    load_instantly(weights, cache)
    [kept] = cache.iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    kept.write_bytes(
        {
            "cut": whole[:middle],
            "bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "empty": b"",
            "other": b"no archive at all",
        }[harm]
    )
    predictor = load_instantly(weights, cache)
    np.testing.assert_allclose(predictor(faces), ej.load_predictor(weights)(faces), atol=1e-6)
    np.load(kept)["arr_0"]  # whole again
    assert load_instantly(weights, cache)(faces).shape == (3, 8) and len(os.listdir(cache)) == 1


def test_two_first_starts_at_once_do_each_other_no_harm(weights, cache, faces, monkeypatch):
    write = executables.write_executable

    def write_after_another(path, *content):
        write(path, *content)
        raise FileNotFoundError("another has removed what was half written")

    monkeypatch.setattr(executables, "write_executable", write_after_another)
    predictor = load_instantly(weights, cache)
    assert isinstance(predictor, InstantPredictor) and predictor(faces).shape == (3, 8)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]


@pytest.mark.parametrize("error", [AttributeError, TypeError, RuntimeError, ImportError])
def test_another_jaxlib_is_done_without(weights, cache, faces, monkeypatch, error):
    def fail(*_, **__):
        raise error("nothing of that name")

    monkeypatch.setattr(executables, "Executable", fail)
    assert isinstance(load_instantly(weights, cache), ej.Predictor)
    # Nor is it compiled for that at every start.
    monkeypatch.setattr(ej.Predictor, "compile", lambda self: pytest.fail("compiled again"))
    predictor = load_instantly(weights, cache)
    assert isinstance(predictor, ej.Predictor) and predictor(faces).shape == (3, 8)


def test_nothing_is_kept_where_jax_may_choose_or_nobody_may_write(weights, cache, monkeypatch):
    assert isinstance(load_instantly(weights, None), ej.Predictor)
    assert isinstance(load_instantly(weights, cache / "missing"), ej.Predictor)
    monkeypatch.setattr(instant, "_OTHER_DEVICES", ("json",))
    assert isinstance(load_instantly(weights, cache), ej.Predictor)
    assert os.listdir(cache) == []


def test_errors_are_those_of_load_predictor(weights, cache):
    with pytest.raises(ej.EmotionError, match="is no workdir with checkpoints"):
        load_instantly(cache, cache)
    load_instantly(weights, cache)
    (weights / "model.safetensors").write_bytes(b"")
    with pytest.raises(ej.EmotionError, match="is not the file its config.json names"):
        load_instantly(weights, cache)
    (weights / "config.json").write_text("{")
    with pytest.raises(ej.EmotionError, match=r"config.json' cannot be read"):
        load_instantly(weights, cache)
