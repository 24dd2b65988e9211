"""VGG16 on AffectNet from ImageNet's weights, at 224 pixels in colour.

python -m emotion_jax.export --model=vgg16_weights_tf_dim_ordering_tf_kernels.h5 \
    --preprocessing=caffe --output=weights/vgg16_imagenet
python launch.py --config=configs/vgg16_imagenet.py --config.init_from=weights/vgg16_imagenet \
    --config.data.dir=FOLDER

The first line turns Keras' file into ours (the one without a top, `..._notop.h5`, will do too);
the last layer, and a top that is not there, are drawn. FOLDER as in `configs/simplenet.py`. Not yet
trained on the real data: no score to name.
"""

from emotion_jax.config import default_config


def get_config():
    config = default_config()
    # ImageNet's pixels, as the weights know them: intensities 0..255 less its mean colours.
    config.image_size = 224
    config.mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
    config.std = (1 / 255,)
    config.data.source = "affectnet"
    # 5 % of 287,651 faces: 14,383, of which the rarest class, contempt, has 188.
    config.data.holdout = 0.05
    # The given box is centred on the face already.
    config.data.crop_shift = 0.0
    config.model.name = "vgg16"
    # The paper's dropout; bfloat16 for tensor cores, on a CPU use float32.
    config.model.dropout = (0.5, 0.5)
    config.model.dtype = "bfloat16"
    # A third of the steps from scratch: only what is particular to faces remains to be learnt.
    config.num_epochs = 10
    config.batch_size = 64
    config.eval_batch_size = 128
    # A tenth of the rate from scratch, and a slow start, so that the drawn head's first, wild
    # gradients leave the features whole.
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup_epochs = 1.0
    # As in configs/vgg16.py, for the same reasons.
    config.loss.class_weight_power = 1.0
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
