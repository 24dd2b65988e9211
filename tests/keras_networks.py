"""The two networks in Keras, written down from the papers and apart from ours; and what shows that
ours answer as these do."""

from functools import partial

import jax
import numpy as np

from emotion_jax.models import make_model

# features, padding
SIMPLENET = [
    (66, "same"),
    (128, "same"),
    (128, "valid"),
    (128, "valid"),
    (192, "valid"),
    (192, "same"),
    (192, "same"),
    (192, "same"),
    (192, "same"),
    (288, "same"),
    (288, "same"),
    (355, "valid"),
    (432, "valid"),
]
VGG = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]


def keras_simplenet(
    height,
    width,
    features,
    *,
    channels=3,
    classes=8,
    dropout=0.0,
    named=True,
    pad_all=False,
    epsilon=1e-3,
):
    """Its layers are named as ours, or by Keras; with dropout there is a softmax, too."""
    import keras
    from keras import layers as kl

    def name(text):
        return {"name": text} if named else {}

    x = image = keras.Input((height, width, channels))
    for i, (n, (_, padding)) in enumerate(zip(features, SIMPLENET, strict=True), start=1):
        x = kl.Conv2D(n, 3, padding="same" if pad_all else padding, **name(f"conv{i:02}"))(x)
        x = kl.BatchNormalization(momentum=0.95, epsilon=epsilon, **name(f"bn{i:02}"))(x)
        x = kl.MaxPool2D(2)(x) if i == 5 else x
        x = kl.ReLU()(x)
        x = kl.Dropout(dropout)(x) if dropout else x
        x = kl.MaxPool2D(2)(x) if i == 10 else x
    x = kl.GlobalMaxPool2D()(x)
    activation = "softmax" if dropout else None
    return keras.Model(image, kl.Dense(classes, activation=activation, **name("head"))(x))


def keras_vgg16(height, width, scale, *, classes=8, named=True):
    """Every width divided by `scale`; `classes=None` leaves the top off."""
    import keras
    from keras import layers as kl

    def name(text):
        return {"name": text} if named else {}

    x = image = keras.Input((height, width, 3))
    for stage, (number, features) in enumerate(VGG, start=1):
        for i in range(number):
            options = {"padding": "same", "activation": "relu", **name(f"conv{stage}_{i + 1}")}
            x = kl.Conv2D(features // scale, 3, **options)(x)
        x = kl.MaxPool2D(2)(x)
    if classes is None:
        return keras.Model(image, x)
    x = kl.Flatten()(x)
    x = kl.Dense(4096 // scale, activation="relu", **name("fc1"))(x)
    x = kl.Dense(4096 // scale, activation="relu", **name("fc2"))(x)
    return keras.Model(image, kl.Dense(classes, **name("head"))(x))


def perturb(model, seed=0):
    """Random weights and statistics of a scale that keeps what runs through them near 1."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        last = w.path.rsplit("/", 1)[-1]
        if last == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(w.shape[:-1])), w.shape)
        elif last in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, w.shape)
        else:
            value = rng.normal(0, 0.3, w.shape)
        w.assign(value.astype(np.float32))
    return model


def write(model, path):
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def assert_same(ours, model):
    """The same outputs as Keras has for random pictures, softmax or not."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, *model.input_shape[1:]), np.float32)
    expected = model(x, training=False).numpy()
    network = make_model(ours.name, num_classes=ours.num_classes, **ours.options)
    got = jax.jit(partial(network.apply, train=False))(ours.variables, x * ours.scale + ours.offset)
    if np.allclose(expected.sum(1), 1):
        got = jax.nn.softmax(got)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it looks at the pictures
    assert np.abs(got - expected).max() < 1e-4 * max(1, np.abs(expected).max())
