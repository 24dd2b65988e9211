"""VGG16 on AffectNet, at 224 pixels in colour.

python launch.py --config=configs/vgg16.py --config.data.dir=FOLDER

FOLDER as in `configs/simplenet.py`, of which this keeps the data and the augmentation. Not yet
trained on the real data: no score to name.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    # The network's own size, and that of AffectNet's cropped layout.
    config.image_size = 224
    config.data.source = "affectnet"
    # 5 % of 287,651 faces: 14,383, of which the rarest class, contempt, has 188.
    config.data.holdout = 0.05
    # The given box is centred on the face already.
    config.data.crop_shift = 0.0
    # The paper's dropout; bfloat16 for tensor cores, on a CPU use float32.
    config.model.name = "vgg16"
    config.model.dropout = (0.5, 0.5)
    config.model.dtype = "bfloat16"
    # As configs/simplenet.py: as many steps as hundreds of epochs on FER2013.
    config.num_epochs = 30
    # A quarter of the paper's 256, for cards with little memory, and a quarter of its rate, 0.01.
    config.batch_size = 64
    config.eval_batch_size = 128
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.0025
    # The paper's.
    config.optimizer.weight_decay = 5e-4
    # No BatchNorm tames the first steps: a slow start, and no step that undoes an epoch.
    config.schedule.warmup_epochs = 1.0
    config.optimizer.clip_norm = 1.0
    # Happy faces are 36 times as many as contemptuous ones; the test set has 500 of each.
    config.loss.class_weight_power = 1.0
    # Judges every class alike, as that test set does; the held-out part has training's shares.
    config.best = "val/macro_f1"
    config.loss.label_smoothing = 0.1
    config.augment.flip = 0.5
    config.augment.crop_area = 0.8
    config.augment.rotate = 10.0
    config.augment.translate = 0.1
    config.augment.erase = 0.5
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    return config
