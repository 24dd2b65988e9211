"""Weights to share: small, hashed, and refused where they are not what they say."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import load_predictor, make_meta, model_from_meta
from emotion_jax.labels import EMOTIONS
from emotion_jax.weights import DEFAULT, FAST, load_weights, save_weights, shipped_names

SPEC = ImageSpec(size=28, grey=True, channels=1, mean=(0.4,), crop_scale=1.3)
META = make_meta("simplenet", {"width": 0.125, "dropout": [0.0, 0.1], "dtype": "float32"}, SPEC)


@pytest.fixture(scope="module")
def variables():
    """Random weights and statistics, a variance too large for float16 among them."""
    *_, shapes = model_from_meta(META)
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    stats = tree["batch_stats"]
    for layer in stats.values():
        layer["var"] = np.abs(layer["var"]) + 0.5
    stats["bn05"]["var"][:] = 1e5
    return tree


@pytest.fixture()
def folder(variables, tmp_path):
    save_weights(tmp_path / "weights", variables, META)
    return tmp_path / "weights"


def sha256(folder):
    return json.loads((folder / "config.json").read_text())["sha256"]


def test_kernels_come_back_as_float16_and_the_rest_exactly(folder, variables):
    *_, shapes = model_from_meta(META)
    got = load_weights(folder, shapes, sha256(folder))

    def check(place, a, b):
        assert a.dtype == np.float32
        kernel = place[-1].key == "kernel"
        np.testing.assert_array_equal(a, b.astype(np.float16) if kernel else b)

    jax.tree_util.tree_map_with_path(check, got, variables)
    count = sum(x.size for x in jax.tree.leaves(variables))
    assert (folder / "model.safetensors").stat().st_size < 2.4 * count


def test_a_cpu_computes_in_float32_what_was_trained_in_bfloat16(variables, folder, tmp_path):
    half = {**META, "model": {**META["model"], "dtype": "bfloat16"}}
    save_weights(tmp_path / "half", variables, half)
    faces = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    predictor = load_predictor(tmp_path / "half")
    assert predictor.model.dtype == jnp.float32 and predictor.meta["model"]["dtype"] == "bfloat16"
    np.testing.assert_array_equal(predictor(faces), load_predictor(folder)(faces))


def test_a_transposed_array_is_written_right(variables, tmp_path):
    kernel = variables["params"]["head"]["kernel"]
    turned = jax.tree.map(lambda x: x, variables)
    turned["params"]["head"]["kernel"] = np.ascontiguousarray(kernel.T).T
    save_weights(tmp_path, turned, META)
    *_, shapes = model_from_meta(META)
    got = load_weights(tmp_path, shapes, None)["params"]["head"]["kernel"]
    np.testing.assert_array_equal(got, kernel.astype(np.float16))


def test_a_predictor_of_the_folder_knows_its_pixels(folder, variables):
    predictor = load_predictor(folder)
    assert predictor.spec == SPEC
    faces = np.random.default_rng(1).integers(0, 256, (3, 28, 28, 3), np.uint8)
    grey = faces @ np.array([0.299, 0.587, 0.114])
    x = (grey[..., None] / 255 - 0.4) / 0.25
    logits = predictor.model.apply(variables, jnp.asarray(x, jnp.float32), train=False)
    np.testing.assert_allclose(predictor(faces), jax.nn.softmax(logits), atol=0.01)


def flip(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 16
    (folder / "model.safetensors").write_bytes(data)


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def change(folder, **changes):
    meta = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**meta, **changes}))


BROKEN = {
    "a flipped bit": (flip, "is not the file"),
    "cut short": (cut, "is not the file"),
    "cut short, unhashed": (lambda f: (cut(f), change(f, sha256=None)), "cannot be read"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json' cannot be read"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "another width": (
        lambda f: change(f, model={"name": "simplenet", "width": 0.25}),
        "of another network: .* is",
    ),
    "another network": (
        lambda f: change(f, model={"name": "vgg16"}, spec={"size": 32}),
        "of another network: it differs in",
    ),
    "other classes": (lambda f: change(f, emotions=["joy"]), "its classes are"),
    "no such option": (lambda f: change(f, spec={"depth": 3}), "meta is not ours"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(folder, name):
    damage, message = BROKEN[name]
    damage(folder)
    with pytest.raises(EmotionError, match=message):
        load_predictor(folder)


def export(*flags):
    command = [sys.executable, "-m", "emotion_jax.export", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True)


def test_export_takes_a_model_along_without_the_run(folder, tmp_path):
    change(folder, epoch=3, running=[1.0])
    done = export(f"--model={folder}", f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    meta = json.loads((tmp_path / "out/config.json").read_text())
    assert meta == {**META, "sha256": sha256(folder)} | {"spec": meta["spec"]}
    done = export(f"--model={folder}")
    assert done.returncode == 2 and "usage" in done.stderr


def test_export_blends_what_a_run_made_with_what_it_began_from(folder, tmp_path):
    *_, shapes = model_from_meta(META)
    old = load_weights(folder, shapes, None)
    new = jax.tree.map(lambda x: 3 * x + 0.5, old)
    save_weights(tmp_path / "new", new, META)
    flags = [f"--model={tmp_path}/new", f"--blend={folder}", f"--output={tmp_path}/out"]
    done = export(*flags, "--share=0.25")
    assert done.returncode == 0, done.stderr
    blended = load_weights(tmp_path / "out", shapes, None)
    # Of x and 3 x + 0.5; kernels are written as float16.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(y, 1.5 * x + 0.125, rtol=2e-3, atol=1e-3),
        old,
        blended,
    )
    assert "temperature" not in done.stdout
    change(tmp_path / "new", temperature=0.7)
    done = export(*flags, "--share=0.25")
    assert done.returncode == 0 and "the temperature is the unblended model's" in done.stdout
    done = export(flags[0], flags[2], "--share=0.25")
    assert done.returncode == 2 and "--share: there is nothing to blend with" in done.stderr
    done = export(*flags, "--share=1.5")
    assert done.returncode == 2 and "share" in done.stderr and "Traceback" not in done.stderr
    done = export(*flags, "--blend=simplenet-narrow-ferplus")
    assert done.returncode == 2 and "is another network than" in done.stderr
    change(folder, spec={**json.loads(json.dumps(META["spec"])), "mean": [0.5]})
    done = export(*flags)
    assert done.returncode == 2 and "or sees other pixels" in done.stderr


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_weights_load_and_fit_their_card(name):
    predictor = load_predictor(name)
    probs = predictor(np.full((2, 48, 48, 3), 128, np.uint8))
    assert probs.shape == (2, len(EMOTIONS)) and np.isfinite(probs).all()


def test_the_defaults_are_shipped():
    assert {DEFAULT, FAST} == {*shipped_names()}
    width = {name: load_predictor(name).meta["model"]["width"] for name in (None, FAST)}
    assert width[None] == 1 and width[FAST] < 0.5
    assert load_predictor().spec.size >= 26
