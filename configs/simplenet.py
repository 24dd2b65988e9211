"""The whole SimpleNetV2 on AffectNet, at 64 pixels in colour.

python launch.py --config=configs/simplenet.py --config.data.dir=FOLDER

FOLDER holds AffectNet in either layout: `training.csv`, `validation.csv` and
`Manually_Annotated_Images`, or `train_set` and `val_set`. Selects on a part of training and
reports on AffectNet's own validation set, as "test", once at the end. Not yet trained on the real
data: no score to name.

The first layout's faces are cut by their boxes with the margin `data.crop_scale`; the second's are
cut already, and for them it only says how much of a face `predict.py` is to show this network.
"""

from emotion_jax.config import affectnet_config


def get_config():
    config = affectnet_config()
    # The network's published dropout: 0.2, and 0.3 from the second pool on.
    config.model.dropout = (0.2, 0.3)
    config.optimizer.weight_decay = 0.01
    # The last 1,000 steps, about half an epoch.
    config.ema_decay = 0.999
    return config
