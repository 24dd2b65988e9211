"""The hobby project's experiment anew: SimpleNetV2 on 20,000 faces of AffectNet, for 40 epochs.

python launch.py --config=configs/simplenet_20k.py --config.data.dir=FOLDER

The original, in Keras on a GTX 1070 Ti, reached 83.3 % on its training and 54 % on its 5,000
validation faces. Its second row, 85.1 and 59.7 %, had 46,000 faces to train on: add
`--config.data.train_images=46000 --workdir=runs/simplenet_46k`. FOLDER as in
`configs/simplenet.py`. Here the 5,000 faces come from a held-out part of training; AffectNet's own
validation set is the "test" at the end.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "affectnet"
    # The original's numbers, in the shares that the classes have.
    config.data.train_images = 20_000
    config.data.val_images = 5_000
    # 14,383 of 287,651 faces: enough to draw the 5,000 from.
    config.data.holdout = 0.05
    # The given box is centred on the face already.
    config.data.crop_shift = 0.0
    # The original's.
    config.num_epochs = 40
    # Tensor cores; parameters, statistics and logits stay float32. On a CPU use float32.
    config.model.dtype = "bfloat16"
    # 20,000 faces are few for 5.5 million parameters: the least that adds possible faces.
    config.augment.flip = 0.5
    return config
