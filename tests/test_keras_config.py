"""What a Keras file says of its network: followed where ours can do as it says, else refused."""

import json
import os

import h5py
import numpy as np
import pytest
from keras_networks import SIMPLENET, assert_same, keras_simplenet, keras_vgg16, perturb, write

from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import Predictor
from emotion_jax.keras.config import Architecture, check_architecture
from emotion_jax.keras.files import convert, read_keras
from emotion_jax.models import make_model
from emotion_jax.models.layers import scale_features

FEATURES = [scale_features(n, 1 / 8) for n, _ in SIMPLENET]


@pytest.fixture(scope="module", autouse=True)
def _tensorflow():
    os.environ["KERAS_BACKEND"] = "tensorflow"


@pytest.fixture(scope="module")
def padded():
    """A SimpleNetV2 that pads everywhere, has an epsilon of its own and scales its pictures."""
    import keras

    inner = keras_simplenet(40, 40, FEATURES, pad_all=True, epsilon=0.1, dropout=0.1, named=False)
    image = keras.Input((40, 40, 3))
    scaled = keras.layers.Rescaling(2.0, -0.5)(keras.layers.Rescaling(0.25)(image))
    return perturb(keras.Model(image, inner(scaled)))


@pytest.fixture(scope="module")
def coloured():
    """A SimpleNetV2 that scales each channel otherwise."""
    import keras

    inner = keras_simplenet(40, 40, FEATURES, dropout=0.1, named=False)
    image = keras.Input((40, 40, 3))
    scaled = keras.layers.Rescaling([0.1, 0.2, 0.4], [0.1, -0.2, 0.3])(image)
    return perturb(keras.Model(image, inner(scaled)))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_padding_epsilon_and_scale_are_the_file_s(padded, suffix, tmp_path):
    network = read_keras(write(padded, tmp_path / f"x{suffix}"))
    assert (network.padding, network.scale, network.offset) == ("SAME", (0.5,), (-0.5,))
    assert network.image_size == 40
    assert_same(network, padded)


def test_weights_alone_are_taken_as_ours(padded, tmp_path):
    network = read_keras(write(padded, tmp_path / "x.weights.h5"))
    assert (network.padding, network.scale, network.offset) == ("", (1.0,), (0.0,))


def test_the_file_s_scale_comes_after_ours(padded, tmp_path):
    network = read_keras(write(padded, tmp_path / "x.keras"))
    # The mean and deviation outside, and then what the network does with it.
    variables, meta = convert(network, ImageSpec(size=40, mean=(0.3, 0.4, 0.5), std=(0.2,)))
    model = make_model("simplenet", **network.options)
    predictor = Predictor(model, variables, ImageSpec(**meta["spec"]), meta=meta)
    faces = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    expected = padded((faces / 255.0 - (0.3, 0.4, 0.5)) / 0.2, training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(predictor(faces), expected, atol=1e-4)
    assert meta["model"] == {"name": "simplenet", "width": 1 / 8, "padding": "SAME"}


@pytest.mark.parametrize("bgr", [False, True])
def test_a_scale_a_channel_is_followed(coloured, bgr, tmp_path):
    network = read_keras(write(coloured, tmp_path / "x.keras"))
    assert (network.scale, network.offset) == ((0.1, 0.2, 0.4), (0.1, -0.2, 0.3))
    assert_same(network, coloured)
    spec = ImageSpec(size=40, mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))
    variables, meta = convert(network, spec, bgr=bgr)
    model = make_model("simplenet", **network.options)
    faces = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    pixels = (faces / 255.0 - spec.mean) / spec.std
    expected = coloured(pixels[..., ::-1] if bgr else pixels, training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 0.01
    predictor = Predictor(model, variables, ImageSpec(**meta["spec"]), meta=meta)
    np.testing.assert_allclose(predictor(faces), expected, atol=1e-4)


def test_the_file_s_size_is_the_picture_s(padded, tmp_path):
    network = read_keras(write(padded, tmp_path / "x.keras"))
    with pytest.raises(EmotionError, match="image_size: 48; the file is of a network for 40"):
        convert(network, ImageSpec(size=48))


# One network's own description, changed


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The JSON of each network, as Keras writes it into a file."""
    folder = tmp_path_factory.mktemp("described")
    models = {
        "simplenet": keras_simplenet(40, 40, FEATURES, dropout=0.1),
        "vgg16": keras_vgg16(64, 64, 8),
        "vgg16 without its top": keras_vgg16(64, 64, 8, classes=None),
    }
    found = {}
    for name, model in models.items():
        with h5py.File(write(model, folder / "x.h5")) as file:
            found[name] = json.loads(file.attrs["model_config"])
    return found


def copy_of(described, name):
    return json.loads(json.dumps(described[name]))


def check(config, name):
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    return check_architecture("old.h5", data, name)


def layers_of(config, kind):
    return [x["config"] for x in config["config"]["layers"] if x["class_name"] == kind]


def add(config, place, kind, **options):
    layer = {"class_name": kind, "config": {"name": "added", **options}}
    config["config"]["layers"].insert(place, layer)


def test_our_own_differ_in_nothing(described):
    for name, config in described.items():
        found = check(config, name.split()[0])
        assert (found.padding, found.scale, found.offset) == ("", (1.0,), (0.0,))
        assert set(found.epsilons) == ({0.001} if name == "simplenet" else set())


def test_the_description_of_the_first_keras(described):
    """Other names for the same options, and a list of layers."""
    config = copy_of(described, "simplenet")
    old = []
    for layer in config["config"]["layers"][1:]:
        kind, options = layer["class_name"], dict(layer["config"])
        if kind == "Conv2D":
            kind = "Convolution2D"
            options["border_mode"] = options.pop("padding")
            options["subsample"] = options.pop("strides")
            del options["dilation_rate"], options["groups"]
        if kind == "ReLU":
            kind, options = "Activation", {"activation": "relu", "name": options["name"]}
        old.append({"class_name": kind, "config": options})
    assert check({"class_name": "Sequential", "config": old}, "simplenet").padding == ""


def test_what_changes_no_answer_may_stand_there(described):
    config = copy_of(described, "simplenet")
    layers = config["config"]["layers"]
    end = next(i for i, x in enumerate(layers) if x["class_name"] == "GlobalMaxPooling2D")
    add(config, end + 1, "Flatten")
    add(config, 1, "RandomFlip")
    assert check(config, "simplenet").padding == ""
    add(config, 1, "Dropout", rate=0.1)
    layers[1]["inbound_nodes"] = [[["input", 0, 0, {}]], [["conv01", 0, 0, {}]]]
    assert check(config, "simplenet").padding == ""
    config = copy_of(described, "vgg16 without its top")
    add(config, len(config["config"]["layers"]), "GlobalAveragePooling2D")
    assert check(config, "vgg16").padding == ""


@pytest.mark.parametrize("kind", ["GlobalAveragePooling2D", "GlobalMaxPooling2D"])
def test_a_map_of_one_pixel_alone_may_be_pooled(described, kind):
    config = copy_of(described, "vgg16")
    flat = next(x for x in config["config"]["layers"] if x["class_name"] == "Flatten")
    flat["class_name"] = kind
    shape = layers_of(config, "InputLayer")[0]["batch_shape"]
    for size, same in ((32, True), (63, True), (64, False), (224, False), (None, False)):
        shape[1:3] = size, size
        if same:
            assert check(config, "vgg16").size == size
        else:
            with pytest.raises(EmotionError, match=f"of {size or 'any'} pixels.* for 32 to 63"):
                check(config, "vgg16")


def test_pictures_must_be_square(described):
    config = copy_of(described, "simplenet")
    layers_of(config, "InputLayer")[0]["batch_shape"][1:3] = 48, 64
    with pytest.raises(EmotionError, match="'old.h5' is for pictures of 48x64 pixels"):
        check(config, "simplenet")


def test_a_border_of_zeros_is_the_padding_of_what_follows(described):
    """As the first VGG16 for Keras has it."""
    config = copy_of(described, "vgg16")
    layers = config["config"]["layers"]
    for place in reversed([i for i, x in enumerate(layers) if x["class_name"] == "Conv2D"]):
        layers[place]["config"]["padding"] = "valid"
        add(config, place, "ZeroPadding2D", padding=[[1, 1], [1, 1]])
    assert check(config, "vgg16").padding == ""
    layers[1]["config"]["padding"] = [[2, 2], [2, 2]]
    with pytest.raises(EmotionError, match=r"'added' is: border of \[\[2, 2"):
        check(config, "vgg16")


def test_code_of_the_user_s_own_says_nothing():
    mine = {"class_name": "Mine", "config": {"features": 3, "activation": "elu"}}
    assert check(mine, "simplenet") == Architecture()
    wrapped = {"class_name": "Sequential", "config": {"layers": [mine]}}
    assert check(wrapped, "simplenet") == Architecture()


def test_what_stands_beside_code_of_the_user_s_own_is_not_left_out():
    """Else the scale would be lost, without a word."""
    layers = [
        {"class_name": "Rescaling", "config": {"scale": 1 / 255, "offset": 0.0}},
        {"class_name": "Mine", "config": {"name": "mine"}},
    ]
    config = {"class_name": "Sequential", "config": {"layers": layers}}
    with pytest.raises(EmotionError, match="another network: 'mine' is: Mine; simplenet has there"):
        check(config, "simplenet")


def activate(config):
    layers_of(config, "Conv2D")[3]["activation"] = "elu"


def limit(config):
    layers_of(config, "ReLU")[2]["max_value"] = 6.0


def stride(config):
    layers_of(config, "Conv2D")[1]["strides"] = [2, 2]


def pad_some(config):
    layers_of(config, "Conv2D")[2]["padding"] = "same"


def pool_with_padding(config):
    layers_of(config, "MaxPooling2D")[0]["padding"] = "same"


def pool_by_three(config):
    layers_of(config, "MaxPooling2D")[1]["pool_size"] = [3, 3]


def pool_elsewhere(config):
    layers = config["config"]["layers"]
    place = next(i for i, x in enumerate(layers) if x["class_name"] == "MaxPooling2D")
    layers.insert(place - 4, layers.pop(place))


def average(config):
    layers = config["config"]["layers"]
    next(x for x in layers if x["class_name"] == "GlobalMaxPooling2D")["class_name"] = (
        "GlobalAveragePooling2D"
    )


def sigmoid(config):
    layers_of(config, "Dense")[0]["activation"] = "sigmoid"


def scale_late(config):
    add(config, 6, "Rescaling", scale=2.0, offset=0.0)


def share(config):
    relu = next(x for x in config["config"]["layers"] if x["class_name"] == "ReLU")
    relu["inbound_nodes"] = [relu["inbound_nodes"][0]] * 3


def channels_first(config):
    layers_of(config, "Conv2D")[0]["data_format"] = "channels_first"


def unknown(config):
    add(config, 1, "Lambda")


def cut(config):
    del config["config"]["layers"][-3:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (activate, "'conv04' is: elu; simplenet has there: BatchNorm"),
        (limit, r"is: relu with \[6.0"),
        (stride, r"'conv02' is: convolution with \[\[2, 2\]"),
        (pad_some, "pad same, same, same, valid, valid"),
        (pool_with_padding, r"is: maximum of \[2, 2\]"),
        (pool_by_three, r"is: maximum of \[3, 3\]; simplenet has there: maximum of 2x2"),
        (pool_elsewhere, "is: maximum of 2x2; simplenet has there: convolution"),
        (average, "is: global average; simplenet has there: global maximum"),
        (sigmoid, "'head' is: sigmoid; simplenet has there: nothing"),
        (scale_late, "'added' is: Rescaling"),
        (share, "is: ReLU, used 3 times; simplenet has there: relu"),
        (channels_first, "'conv01' is: convolution of channels that come first"),
        (unknown, "'added' is: Lambda; simplenet has there: convolution"),
        (cut, "it ends where simplenet has: global maximum"),
    ],
)
def test_another_network_of_the_same_shapes_is_refused(described, change, said):
    config = copy_of(described, "simplenet")
    change(config)
    with pytest.raises(EmotionError, match=said) as error:
        check(config, "simplenet")
    assert "'old.h5' is another network" in str(error.value)
    assert "save_weights" in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        b"no JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"class_name": "Sequential", "config": {"layers": 3}}',
        b'{"class_name": "Sequential", "config": {"layers": [{"class_name": "Conv2D"}]}}',
        b'{"class_name": ["Conv2D"], "config": {}}',
        b'{"class_name": "MaxPooling2D", "config": {}}',
    ],
)
def test_a_damaged_description_is_one_sentence(config):
    with pytest.raises(EmotionError, match="description of the network cannot be read"):
        check(config, "simplenet")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), "wide", [1.0, 2.0], [1, 0, 1], None])
def test_a_scale_that_cannot_be_followed_is_told(described, scale):
    config = copy_of(described, "simplenet")
    add(config, 1, "Rescaling", scale=scale, offset=0.0)
    with pytest.raises(EmotionError, match="description of the network cannot be read"):
        check(config, "simplenet")


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, float("nan"), 7.0])
def test_an_epsilon_that_cannot_be_meant_is_told(padded, epsilon, tmp_path):
    path = write(padded, tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        text = file.attrs["model_config"].replace('"epsilon": 0.1', f'"epsilon": {epsilon}')
        file.attrs["model_config"] = text.replace("nan", "NaN")
    with pytest.raises(EmotionError, match=f"the epsilon of 'batch_normalization.*' is {epsilon}"):
        read_keras(path)
