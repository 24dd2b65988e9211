"""The whole SimpleNetV2 on AffectNet, at 64 pixels in colour.

python launch.py --config=configs/simplenet.py --config.data.dir=FOLDER

FOLDER holds AffectNet in either layout: `training.csv`, `validation.csv` and
`Manually_Annotated_Images`, or `train_set` and `val_set`. Selects on a part of training and
reports on AffectNet's own validation set, as "test", once at the end. Not yet trained on the real
data: no score to name.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "affectnet"
    # 5 % of 287,651 faces: 14,383, of which the rarest class, contempt, has 188.
    config.data.holdout = 0.05
    # The given box is centred on the face already.
    config.data.crop_shift = 0.0
    # Ten times as many faces as FER2013, where 100 to 300 epochs are best: as many steps.
    config.num_epochs = 30
    # Tensor cores; parameters, statistics and logits stay float32. On a CPU use float32.
    config.model.dtype = "bfloat16"
    # The network's published dropout: 0.2, and 0.3 from the second pool on.
    config.model.dropout = (0.2, 0.3)
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup_epochs = 1.0
    # Happy faces are 36 times as many as contemptuous ones; the test set has 500 of each.
    config.loss.class_weight_power = 1.0
    # Judges every class alike, as that test set does; the held-out part has training's shares.
    config.best = "val/macro_f1"
    # What is published to help from scratch on FER2013.
    config.loss.label_smoothing = 0.1
    config.augment.flip = 0.5
    config.augment.crop_area = 0.8
    config.augment.rotate = 10.0
    config.augment.translate = 0.1
    config.augment.erase = 0.5
    # Poor light is what people complain of.
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    # The last 1,000 steps, about half an epoch.
    config.ema_decay = 0.999
    return config
