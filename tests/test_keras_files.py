"""Keras' files: the same outputs as Keras has, whatever it wrote; and nothing read that it did not.

Keras writes every file here, but for the old layouts, which are written down by hand.
"""

import json
import os
import subprocess
import sys
import zipfile
from functools import partial

import h5py
import jax
import numpy as np
import pytest
from keras_networks import (
    SIMPLENET,
    assert_same,
    keras_simplenet,
    keras_vgg16,
    perturb,
    write,
)

from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import Predictor, load_predictor
from emotion_jax.keras.files import convert, read_keras
from emotion_jax.labels import EMOTIONS
from emotion_jax.models import make_model
from emotion_jax.models.layers import scale_features

FEATURES = [scale_features(n, 1 / 8) for n, _ in SIMPLENET]


@pytest.fixture(scope="module", autouse=True)
def _tensorflow():
    os.environ["KERAS_BACKEND"] = "tensorflow"


def train(model, classes=8):
    """A step of Adam: files then hold its moments and the random state of dropout too."""
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    x = np.random.default_rng(1).random((4, *model.input_shape[1:]), np.float32)
    model.fit(x, np.arange(4) % classes, batch_size=4, verbose=0)
    return model


def nested(model):
    """The network as one layer of another, as people wrap it around their preparation."""
    import keras

    image = keras.Input(model.input_shape[1:])
    return keras.Model(image, model(keras.layers.Rescaling(1.0)(image)))


def sequential(model):
    import keras

    return keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers[1:]])


simplenet = partial(keras_simplenet, 40, 40, FEATURES)
vgg16 = partial(keras_vgg16, 64, 64, 8)
# What our network is called, and how Keras' is made: built where a test asks for it.
NETWORKS = {
    "simplenet": lambda: perturb(simplenet()),
    "simplenet, trained": lambda: train(perturb(simplenet(classes=7, dropout=0.2, named=False)), 7),
    "simplenet, grey": lambda: sequential(perturb(simplenet(channels=1, named=False))),
    "vgg16 of 1000 classes": lambda: perturb(vgg16(classes=1000)),
    "vgg16 in another model": lambda: nested(perturb(vgg16(named=False))),
}


@pytest.fixture(scope="module")
def networks():
    class Built(dict):
        def __missing__(self, name):
            return self.setdefault(name, NETWORKS[name]())

    return Built()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("simplenet, trained", ".h5"),
        ("simplenet, trained", ".weights.h5"),
        ("simplenet, trained", ".keras"),
        ("simplenet, grey", ".h5"),
        ("simplenet, grey", ".keras"),
        ("vgg16 of 1000 classes", ".weights.h5"),
        ("vgg16 in another model", ".h5"),
        ("vgg16 in another model", ".keras"),
    ],
)
def test_what_keras_wrote_answers_as_keras_does(networks, name, suffix, tmp_path):
    model = networks[name]
    network = read_keras(write(model, tmp_path / f"x{suffix}"))
    assert name.startswith(network.name) and network.width == 1 / 8
    assert network.channels == model.input_shape[-1]
    assert network.num_classes == model.output_shape[-1]
    count = sum(x.size for x in jax.tree.leaves(network.variables))
    assert count == model.count_params()
    assert_same(network, model)


def write_old(model, path):
    """The layout of Keras 1 and of ImageNet's file: a layer without weights has an empty list."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{x}_1:0" for x in "Wb"][: len(layer.get_weights())]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value
    return path


def test_the_layout_of_imagenet_s_file(networks, tmp_path):
    model = networks["vgg16 of 1000 classes"]
    network = read_keras(write_old(model, tmp_path / "vgg16_weights_tf_dim_ordering.h5"))
    assert (network.num_classes, network.size) == (1000, 64)
    assert_same(network, model)
    bare = perturb(keras_vgg16(64, 64, 8, classes=None))
    network = read_keras(write_old(bare, tmp_path / "notop.h5"))
    assert network.num_classes is network.size is None
    kernels = [w for w in bare.get_weights() if w.ndim == 4]
    ours = [network.variables["params"][key]["kernel"] for key in network.variables["params"]]
    for a, b in zip(ours, kernels, strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_in_several_attributes(networks, tmp_path):
    """As Keras stores a list of more than 64 kB."""
    model = networks["simplenet"]
    path = write(model, tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        attributes = file["model_weights"].attrs
        for i, part in enumerate(np.array_split(attributes["layer_names"], 3)):
            attributes[f"layer_names{i}"] = part
        del attributes["layer_names"]
    assert_same(read_keras(path), model)


def test_twelve_layers_and_more_stand_in_order(networks, tmp_path):
    """ "conv2d_10" comes after "conv2d_2": layers of equal shapes would change places unseen."""
    model = networks["simplenet, trained"]
    network = read_keras(write(model, tmp_path / "x.weights.h5"))
    kernels = [w.numpy() for w in model.weights if w.path.endswith("kernel")]
    for i, kernel in enumerate(kernels[:-1], start=1):
        np.testing.assert_array_equal(network.variables["params"][f"conv{i:02}"]["kernel"], kernel)


# What a file does not say


def faces(size, count=3):
    return np.random.default_rng(6).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_preprocessing_is_that_of_keras_applications(mode, networks, tmp_path):
    from keras.src.applications.imagenet_utils import preprocess_input

    from emotion_jax.keras.files import PREPROCESSING

    model = networks["vgg16 in another model"]
    network = read_keras(write(model, tmp_path / "x.h5"))
    mean, std, bgr = PREPROCESSING[mode]
    variables, meta = convert(network, ImageSpec(size=64, mean=mean, std=std), bgr=bgr)
    predictor = Predictor(
        make_model("vgg16", width=1 / 8), variables, ImageSpec(**meta["spec"]), meta=meta
    )
    x = preprocess_input(faces(64).astype(np.float32), mode=mode)
    expected = jax.nn.softmax(model(x).numpy() / 1.0)
    np.testing.assert_allclose(predictor(faces(64)), expected, atol=1e-4)


def test_outputs_are_put_in_our_order_by_name(networks, tmp_path):
    model = networks["simplenet"]
    network = read_keras(write(model, tmp_path / "x.h5"))
    theirs = ["angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "Surprise"]
    spec = ImageSpec(size=40, mean=(0.0,), std=(1.0,))
    variables, meta = convert(network, spec, labels=theirs)
    apply = partial(make_model("simplenet", width=1 / 8).apply, train=False)
    got = jax.jit(apply)(variables, faces(40) / 255)
    expected = model(faces(40) / 255.0).numpy()
    names = ["anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    for place, name in enumerate(names):
        column = got[:, EMOTIONS.index(name)]
        np.testing.assert_allclose(column, expected[:, place], atol=1e-4)
    for wrong in (theirs[1:], [*theirs[1:], "fear"]):
        with pytest.raises(EmotionError, match="each of the 8 outputs once"):
            convert(network, spec, labels=wrong)


def export(*flags):
    command = [sys.executable, "-m", "emotion_jax.export", *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_export_turns_a_file_into_a_folder_that_predicts(networks, tmp_path):
    model = networks["simplenet, trained"]
    path, folder = write(model, tmp_path / "old.keras"), tmp_path / "folder"
    flags = [f"--model={path}", f"--output={folder}", "--preprocessing=unit"]
    done = export(*flags, "--crop_scale=1.3")
    assert done.returncode == 0, done.stderr
    assert "simplenet of width 0.125, 40x40x3: neutral" in done.stdout
    predictor = load_predictor(folder)
    assert predictor.spec.crop_scale == 1.3
    got, expected = predictor(faces(40)), model(faces(40) / 255.0).numpy()
    # Kernels are stored in float16; contempt, which the network does not know, is never said.
    np.testing.assert_allclose(got[:, :7], expected, atol=0.02)
    assert not got[:, 7].any()


def test_export_asks_for_the_size_that_weights_alone_do_not_say(networks, tmp_path):
    path = write(networks["simplenet"], tmp_path / "x.weights.h5")
    flags = [f"--model={path}", f"--output={tmp_path / 'folder'}", "--preprocessing=unit"]
    done = export(*flags)
    assert done.returncode == 2 and "--image_size=64" in done.stderr
    assert export(*flags, "--image_size=40").returncode == 0


def test_imagenet_s_classes_are_no_emotions(networks, tmp_path):
    path, folder = write(networks["vgg16 of 1000 classes"], tmp_path / "x.h5"), tmp_path / "f"
    done = export(f"--model={path}", f"--output={folder}", "--preprocessing=caffe")
    assert done.returncode == 0 and "init_from" in done.stdout, done.stderr
    with pytest.raises(EmotionError, match="set init_from"):
        load_predictor(folder)
    done = export(f"--model={path}", f"--output={folder}", "--std=0", "--mean=0.5")
    assert done.returncode == 2 and "--std=0;" in done.stderr


# Files that do not fit


def test_another_network_is_named_by_its_layers(tmp_path):
    import keras
    from keras import layers as kl

    model = keras.Sequential([keras.Input((20, 20, 3)), kl.Conv2D(8, 3), kl.Flatten(), kl.Dense(8)])
    with pytest.raises(EmotionError, match="has 1 convolutions, 1 dense layers and 0 BatchNorms"):
        read_keras(write(model, tmp_path / "x.h5"))


def test_a_layer_of_another_shape_is_named(networks, tmp_path):
    model = networks["simplenet"]
    path = write(model, tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        group = file["model_weights/conv07"]
        name = next(n for n in group.attrs["weight_names"] if "kernel" in n)
        del group[name]
        group[name] = np.zeros((5, 5, 24, 24), np.float32)
    message = (
        r"layer 'conv07' has a kernel \(5, 5, 24, 24\), where .* has \(3, 3, 24, 24\) in conv0"
    )
    with pytest.raises(EmotionError, match=message):
        read_keras(path)


def test_features_of_no_width_are_told(tmp_path):
    features = [*FEATURES[:6], 80, *FEATURES[7:]]
    with pytest.raises(EmotionError, match="or these times a width"):
        read_keras(write(keras_simplenet(40, 40, features), tmp_path / "x.h5"))


def test_failed_training_is_told(networks, tmp_path):
    path = write(networks["simplenet"], tmp_path / "x.weights.h5")
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/0"][3, 4] = np.nan
    with pytest.raises(EmotionError, match="kernel of layer '/layers/dense' is not finite"):
        read_keras(path)


# Files made to harm


@pytest.fixture()
def hostile(networks, tmp_path):
    """A good file to be spoilt, the group and name of one of its arrays, and another good file."""
    path = write(networks["simplenet"], tmp_path / "x.weights.h5")
    other = write(networks["simplenet"], tmp_path / "other.weights.h5")
    return path, "layers/conv2d_3/vars", "0", other


def replace(hostile, make):
    """Puts what `make(group, name, old values, the other file)` makes in the array's place."""
    path, place, name, other = hostile
    with h5py.File(path, "a") as file:
        group = file[place]
        old = group[name][()]
        del group[name]
        make(group, name, old, other)


def external(group, name, old, other):
    group[name] = h5py.ExternalLink(str(other), "layers/conv2d_3/vars/0")


def soft(group, name, old, other):
    group[name] = h5py.SoftLink("/layers/conv2d_4/vars/0")


def virtual(group, name, old, other):
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource(str(other), "layers/conv2d_3/vars/0", old.shape)
    group.create_virtual_dataset(name, layout)


def outside(group, name, old, other):
    group.create_dataset(name, old.shape, old.dtype, external=[(str(other), 0, old.nbytes)])


def references(group, name, old, other):
    values = np.full(old.shape, group.file["layers"].ref, h5py.ref_dtype)
    group.create_dataset(name, data=values, dtype=h5py.ref_dtype)


def huge(group, name, old, other):
    group.create_dataset(name, (3, 3, 1 << 20, 1 << 20), "f4")  # nothing is written: a few bytes


def compressed(group, name, old, other):
    group.create_dataset(name, (3, 3, 1 << 12, 1 << 12), "f4", compression="gzip")


def circle(group, name, old, other):
    group[name] = old
    group["again"] = group.file["/layers"]


HOSTILE = {
    external: "is a link",
    soft: "is a link",
    virtual: "lies in another file",
    outside: "lies in another file",
    references: "does not lie in the file as floating-point",
    huge: "does not lie in the file as floating-point",
    compressed: "is compressed",
    circle: "cannot be read|lies too deep",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_keras_never_writes_is_refused(hostile, make):
    replace(hostile, make)
    with pytest.raises(EmotionError, match=HOSTILE[make]):
        read_keras(hostile[0])


def test_circles_among_groups_end(networks, tmp_path):
    path = write(networks["simplenet"], tmp_path / "x.weights.h5")
    with h5py.File(path, "a") as file:
        file["layers/again"] = file["layers"]
        file["layers/more"] = file["layers"]
    with pytest.raises(EmotionError, match="too deep|more groups"):
        read_keras(path)


def test_nothing_is_run_and_no_other_file_opened(networks, hostile, tmp_path):
    """A config that would run code, were it followed; a link that would wait, were it."""
    path, pipe = write(networks["simplenet"], tmp_path / "x.keras"), hostile[3]
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(path, "w") as archive:
        trap = {"module": "os", "class_name": "mkdir", "config": {"path": str(tmp_path / "trap")}}
        archive.writestr("config.json", json.dumps(trap))
        archive.writestr("model.weights.h5", weights)
    replace(hostile, external)
    pipe.unlink()
    os.mkfifo(pipe)
    code = (
        "import sys; from emotion_jax.keras.files import read_keras\n"
        f"read_keras({str(path)!r}); assert not {{'keras', 'tensorflow'}} & set(sys.modules)\n"
        f"read_keras({str(hostile[0])!r})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert "is a link" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "trap").exists()


def test_an_archive_that_swells_is_refused(tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(50_000_000))
    with pytest.raises(EmotionError, match="unpacks to far more"):
        read_keras(path)


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04 cut"])
def test_other_files_are_told(content, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(EmotionError, match="cannot be read as a Keras file"):
        read_keras(path)
    with pytest.raises(EmotionError, match="no file"):
        read_keras(tmp_path / "none.h5")


def test_a_file_cut_short_is_told(networks, tmp_path):
    path = write(networks["simplenet"], tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(EmotionError, match="cannot be read"):
        read_keras(path)
