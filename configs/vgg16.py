"""VGG16 on AffectNet, at 224 pixels in colour.

python launch.py --config=configs/vgg16.py --config.data.dir=FOLDER

FOLDER as in `configs/simplenet.py`, with which this shares data and augmentation. Not yet
trained on the real data: no score to name.
"""

from emotion_jax.config import affectnet_config


def get_config():
    config = affectnet_config()
    # The network's own size, and that of AffectNet's cropped layout.
    config.image_size = 224
    # The paper's dropout.
    config.model.name = "vgg16"
    config.model.dropout = (0.5, 0.5)
    # A quarter of the paper's 256, for cards with little memory, and a quarter of its rate, 0.01.
    config.batch_size = 64
    config.eval_batch_size = 128
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.0025
    # The paper's.
    config.optimizer.weight_decay = 5e-4
    # No BatchNorm tames the first steps: beside the slow start, no step that undoes an epoch.
    config.optimizer.clip_norm = 1.0
    return config
