"""A narrow SimpleNetV2 on the real faces of FER+, small enough for two CPU cores.

python launch.py --config=configs/ferplus_narrow.py --config.data.dir=FOLDER

FOLDER holds `fer2013.csv` and `fer2013new.csv`, plain or as `.xz`. Ten epochs took 51 minutes on
two busy cores of an AMD EPYC; it was right on 81.2 % of the 3,199 PublicTest faces with a majority
(67.9 after two epochs, 75.9 after four). Its weights ship as `simplenet-narrow-ferplus`.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "ferplus"
    # FER2013's own size and colours, one channel.
    config.image_size = 48
    config.grey = True
    config.channels = 1
    config.model.width = 1 / 8
    # A narrow network underfits in so few epochs: hardly any dropout.
    config.model.dropout = (0.0, 0.1)
    config.num_epochs = 10
    config.batch_size = 64
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup_epochs = 1.0
    # Faces in FER2013 are centred but tilted and cropped unevenly: small moves of each kind.
    config.augment.flip = 0.5
    config.augment.crop_area = 0.8
    config.augment.rotate = 10.0
    config.augment.translate = 0.05
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    # About the last half epoch of 392 steps.
    config.ema_decay = 0.995
    return config
