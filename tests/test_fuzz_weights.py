"""Damaged weights, checkpoints, Keras' files and configs: loaded, or refused in one sentence."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import h5py
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from fuzzing import Tripwire, damaged
from hypothesis import given

from emotion_jax.config import default_config, flatten
from emotion_jax.host.manifest import MANIFEST, write_manifest
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import make_meta, model_from_meta
from emotion_jax.weights import read_meta, save_weights

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
SPEC = ImageSpec(size=28, grey=True, channels=1)
META = make_meta("simplenet", {"width": 0.05, "dropout": [0.0, 0.1], "dtype": "float32"}, SPEC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of weights, which each example spoils anew."""
    *_, shapes = model_from_meta(META)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.uniform(0.1, 0.2, x.shape).astype(np.float32), shapes)
    place = tmp_path_factory.mktemp("weights")
    save_weights(place / "whole", variables, META)
    return place / "whole"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([0, -1, 1, 3, 10**9, 10**400, 1e300, 1e-300, "float32", "bfloat16", "int8"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def spoilt(draw, tree):
    """A tree of JSON in which some values are others, or gone, or have company."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 2))):
        places = [(tree, key) for key in tree]
        places += [(tree[k], key) for k in tree if isinstance(tree[k], dict) for key in tree[k]]
        places += [
            (x, i) for at, k in list(places) if isinstance(x := at[k], list) for i in range(len(x))
        ]
        at, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["other", "other", "gone", "more"]))
        if kind == "other":
            at[key] = draw(JSON)
        elif kind == "gone":
            del at[key]
        elif isinstance(at, dict):
            at[draw(st.text(max_size=4))] = draw(JSON)
        if not tree:
            break
    return tree


def copy(folder):
    place = folder.with_name("spoilt")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    return place


@given(data=st.data())
def test_meta(child, folder, data):
    place = copy(folder)
    meta = data.draw(spoilt({**read_meta(folder), "temperature": 1.5}))
    text = json.dumps(meta).encode()
    if data.draw(st.booleans()):
        text = data.draw(damaged(text, head=600))
    (place / "config.json").write_bytes(text)
    child("read_weights", place)
    child("read_teachers", place)


@given(data=st.data())
def test_safetensors(child, folder, data):
    place = copy(folder)
    (place / "config.json").write_text(json.dumps({**META, "sha256": None}))
    content = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    if data.draw(st.booleans()):
        header = data.draw(spoilt(json.loads(content[8 : 8 + size])))
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + content[8 + size :]
    else:
        content = data.draw(damaged(content, head=3000))
    (place / "model.safetensors").write_bytes(content)
    child("load_weights", place)
    child("read_teachers", place)
    child("read_variables", place)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with one checkpoint."""
    import optax

    from emotion_jax.checkpoint import Checkpoints
    from emotion_jax.steps import init_state
    from emotion_jax.training.workdir import write_config

    place = tmp_path_factory.mktemp("runs") / "whole"
    model, spec, _ = model_from_meta(META)
    state = init_state(jax.random.key(0), model=model, tx=optax.sgd(0.1), spec=spec)
    with Checkpoints(place / "checkpoints") as checkpoints:
        checkpoints.save(state, META, {"val/accuracy": 0.5})
    write_config(default_config(), place)
    return place


@given(data=st.data())
def test_checkpoints(child, run, data):
    place = copy(run)
    step = place / "checkpoints" / "0"
    files = sorted(p for p in step.rglob("*") if p.is_file() and p.name != MANIFEST)
    if data.draw(st.booleans()):
        path = data.draw(st.sampled_from(files))
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    else:
        (path,) = (step / "meta").glob("metadata")
        path.write_text(json.dumps(data.draw(spoilt(META))))
    hashes = data.draw(st.sampled_from(["as they were", "none", "new", "damaged"]))
    if hashes == "none":
        (step / MANIFEST).unlink()
    elif hashes == "new":
        write_manifest(step)
    elif hashes == "damaged":
        (step / MANIFEST).write_bytes(data.draw(damaged((step / MANIFEST).read_bytes())))
    child("read_manifest", step)
    child("load_weights", place)


# Of an item of a checkpoint, as seen from there and from anywhere.
OUTSIDE = "../../../../outside"


@pytest.fixture(scope="module")
def outside(run):
    """A whole item beside the run's folder, and what tells whether anybody looks into it."""
    place = run.with_name("outside")
    shutil.copytree(run / "checkpoints" / "0" / "model", place)
    wire = Tripwire(place)
    yield wire
    wire.close()


def nodes(tree):
    """Every (container, key) of a tree of JSON."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from nodes(tree[key])


@linux
@given(data=st.data())
def test_references_in_checkpoints(child, run, outside, data):
    """Hashes that fit what was forged: only what reads it can refuse it."""
    place = copy(run)
    step = place / "checkpoints" / "0"
    names = ["model/_METADATA", "model/_sharding", "model/array_metadatas/process_0"]
    path = step / data.draw(st.sampled_from([*names, "_CHECKPOINT_METADATA"]))
    tree = json.loads(path.read_bytes())
    there = str(run.with_name("outside"))
    paths = st.sampled_from([OUTSIDE, f"{OUTSIDE}/", there, f"file://{there}", f"{there}/d"])
    for _ in range(data.draw(st.integers(1, 3))):
        at, key = data.draw(st.sampled_from(list(nodes(tree))))
        if isinstance(at, dict) and data.draw(st.booleans()):
            at[data.draw(paths)] = at.pop(key)
        else:
            at[key] = data.draw(paths | JSON)
    path.write_text(json.dumps(tree))
    write_manifest(step)
    child("load_weights", place)
    assert not outside.touched()


def crc32c(data):
    """The check sum of OCDBT's files."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@linux
def test_a_tree_of_arrays_that_lies_outside_is_not_followed(child, run, outside):
    """The root of a checkpoint's arrays names the files of its branches: made to name another."""

    def forge(name):
        place = copy(run)
        step = place / "checkpoints" / "0"
        root = step / "model" / "manifest.ocdbt"
        (branch,) = (step / "model" / "d").iterdir()
        old, new = f"d/{branch.name}".encode(), name.encode()
        data = root.read_bytes()[:-4]
        assert data.count(old) == 1 and len(new) == len(old)
        data = data.replace(old, new)
        root.write_bytes(data + crc32c(data).to_bytes(4, "little"))
        return place, step, branch

    (name,) = [path.name for path in run.glob("checkpoints/0/model/d/*")]
    # Where what it names lies within, it is read: the forgery is a good one.
    place, step, branch = forge(f"e/{name}")
    branch.parent.rename(branch.parent.with_name("e"))
    write_manifest(step)
    assert child("load_weights", place)
    # A link to it, for the name must be as long as the one that it takes the place of.
    there = "x" * (len(f"d/{name}") - len(f"{OUTSIDE}/"))
    (run.with_name("outside") / there).symlink_to(run.with_name("outside") / "d" / name)
    place, step, _ = forge(f"{OUTSIDE}/{there}")
    assert (step / "model" / OUTSIDE / there).exists()
    write_manifest(step)
    assert not child("load_weights", place)
    assert not outside.touched()


@given(data=st.data())
def test_config_of_a_run(child, run, data):
    place = copy(run)
    stored = json.loads((run / "config.json").read_text())
    text = json.dumps(data.draw(spoilt(stored))).encode()
    (place / "config.json").write_bytes(
        data.draw(damaged(text)) if data.draw(st.booleans()) else text
    )
    child("read_config", place)


KEYS = sorted(key for key, _ in flatten(default_config()))
VALUES = st.sampled_from(
    ["", "()", "(1,", "('a',)", "(((1,),),)", "(" * 500, "nan", "-inf", "1e999", "True", "None"]
    + ["9" * 5000, str(10**12), "-1", "0", "0.5", "(0.5,)", "(nan, 1)", "{}", "a b", "~x/y", "1_0"]
)
FLAGS = st.builds(
    "--config.{}={}".format,
    st.sampled_from(KEYS) | st.text(max_size=8),
    VALUES | st.text(max_size=12) | st.floats().map(str) | st.integers().map(str),
)


@given(flags=st.lists(FLAGS, min_size=1, max_size=4))
def test_flags(child, run, flags):
    quick = Path(__file__).parents[1] / "configs" / "quickstart.py"
    place = run.with_name("flags.json")
    place.write_text(json.dumps([f"--config={quick}", *flags]))
    child("read_flags", place)


def write_keras(path, names):
    """A narrow SimpleNetV2 as Keras 2 or 3 lays it out, by h5py alone."""
    from emotion_jax.models.layers import scale_features
    from emotion_jax.models.simplenet import BLOCKS

    rng, before = np.random.default_rng(0), 3
    with h5py.File(path, "w") as file:
        layers = []
        for i, block in enumerate(BLOCKS):
            n = scale_features(block.features, 0.05)
            end = f"_{i}" if i else ""
            layers.append((f"conv2d{end}", [(3, 3, before, n), (n,)]))
            layers.append((f"batch_normalization{end}", [(n,)] * 4))
            before = n
        layers.append(("dense", [(before, 8), (8,)]))
        for name, shapes in layers:
            group = file.create_group(f"{name}/{name}" if names else f"layers/{name}/vars")
            for i, shape in enumerate(shapes):
                group[f"w{i}:0" if names else str(i)] = rng.uniform(0.1, 0.2, shape).astype("f4")
            if names:
                file[name].attrs["weight_names"] = [
                    f"{name}/w{i}:0".encode() for i in range(len(shapes))
                ]
        if names:
            file.attrs["layer_names"] = [name.encode() for name, _ in layers]
            file.attrs["model_config"] = describe_keras()
    return path


def describe_keras():
    """The JSON with which Keras would describe it."""
    from emotion_jax.models.simplenet import BLOCKS

    layers = []
    for block in BLOCKS:
        pool = [("MaxPooling2D", {"pool_size": [2, 2]})] if block.pool else []
        layers += [("Conv2D", {"padding": block.padding.lower(), "strides": [1, 1]})]
        layers += [("BatchNormalization", {"epsilon": 0.001}), ("ReLU", {}), *pool]
    layers += [("GlobalMaxPooling2D", {}), ("Dense", {"activation": "softmax"})]
    described = [{"class_name": kind, "config": options} for kind, options in layers]
    return json.dumps({"class_name": "Sequential", "config": {"layers": described}})


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    place = tmp_path_factory.mktemp("keras")
    files = {
        "old": write_keras(place / "old.h5", True),
        "new": write_keras(place / "new.h5", False),
    }
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = place / f"{kind}.keras"
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("config.json", describe_keras())
            archive.write(files["new"], "model.weights.h5")
        files[str(kind)] = path
    return lambda name: files[name]


@pytest.mark.parametrize("name", ["old", "new", "0", "8"])
@given(data=st.data())
def test_keras_files(child, keras, name, data):
    path = keras(name).with_name("spoilt" + keras(name).suffix)
    path.write_bytes(data.draw(damaged(keras(name).read_bytes(), head=20_000)))
    child("read_keras", path)


def test_the_whole_ones_are_read(child, folder, run, keras):
    assert child("read_weights", folder) and child("load_weights", run)
    assert child("read_teachers", folder)
    assert child("read_variables", folder) and child("read_config", run)
    for name in ("old", "new", "0", "8"):
        assert child("read_keras", keras(name)), name
