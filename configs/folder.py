"""SimpleNetV2 on your own faces, or on AffectNet re-packed into a folder for each emotion.

python launch.py --config=configs/folder.py --config.data.dir=FOLDER

FOLDER holds `train/<emotion>/*` and `val/<emotion>/*` (or `valid`, `validation`, `test`), already
cropped. Emotions in any common spelling (happy, Happiness), or as AffectNet's numbers, 0 to 7; 7
of the 8 do. Without a folder to validate on, hold out a part: `--config.data.holdout=0.1`.
`data.crop_scale` and `data.crop_shift` say how `predict.py` is to cut faces for this network: 1.12
widths of the detector's box, unless yours show more or less around the face.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    # Own faces are few: a quarter of the parameters.
    config.model.width = 0.5
    # So that a folder of a few dozen faces fills a batch.
    config.batch_size = 32
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup_epochs = 1.0
    # Half the way to balance: classes of a few faces each must not rule.
    config.loss.class_weight_power = 0.5
    # Own faces are cropped unevenly and lit as they come: small moves of each kind.
    config.augment.flip = 0.5
    config.augment.crop_area = 0.8
    config.augment.rotate = 10.0
    config.augment.translate = 0.05
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    return config
