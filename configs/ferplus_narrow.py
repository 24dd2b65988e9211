"""A narrow SimpleNetV2 on the real faces of FER+, small enough for two CPU cores and for a camera.

python launch.py --config=configs/ferplus_narrow.py --config.data.dir=FOLDER

FOLDER holds `fer2013.csv` and `fer2013new.csv`, plain or as `.xz`. The weights that
ship as `simplenet-narrow-ferplus` began with it and were widened since: their card lists every run,
how long it took and how well they read.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "ferplus"
    # Every face that somebody gave an emotion, with the shares of all ten votes: 3,498 faces more
    # than those with a majority, and what the doubtful ones look like.
    config.data.train_votes = "distribution"
    # FER2013's own size and colours, one channel.
    config.image_size = 48
    config.grey = True
    config.channels = 1
    # A sixteenth of the full network's products a pixel.
    config.model.width = 1 / 4
    # A narrow network underfits in so few epochs: hardly any dropout.
    config.model.dropout = (0.0, 0.1)
    config.num_epochs = 12
    config.batch_size = 64
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup_epochs = 1.0
    # Faces in FER2013 are centred but tilted and cropped unevenly: small moves of each kind.
    config.augment.flip = 0.5
    config.augment.crop_area = 0.75
    config.augment.rotate = 15.0
    config.augment.translate = 0.05
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    # What cameras see and FER2013 hardly shows. Each face meets one of them or none, mostly, so
    # that most of what is learned is still learned from faces as they are.
    config.augment.glasses = 0.2
    config.augment.darkness = 0.15
    config.augment.backlight = 0.1
    config.augment.blur = 0.15
    config.augment.erase = 0.25
    config.augment.erase_area = 0.2
    # About the last epoch of 446 steps.
    config.ema_decay = 0.998
    return config
