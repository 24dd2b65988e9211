"""The two networks in Keras, written down from the papers and apart from ours."""

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


def keras_simplenet(height, width, features, *, channels=3, classes=8, dropout=0.0, named=True):
    """Its layers are named as ours, or by Keras; with dropout there is a softmax, too."""
    import keras
    from keras import layers as kl

    def name(text):
        return {"name": text} if named else {}

    x = image = keras.Input((height, width, channels))
    for i, (n, (_, padding)) in enumerate(zip(features, SIMPLENET, strict=True), start=1):
        x = kl.Conv2D(n, 3, padding=padding, **name(f"conv{i:02}"))(x)
        x = kl.BatchNormalization(momentum=0.95, **name(f"bn{i:02}"))(x)
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
