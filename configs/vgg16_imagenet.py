"""VGG16 on AffectNet from ImageNet's weights, at 224 pixels in colour.

python -m emotion_jax.export --model=vgg16_weights_tf_dim_ordering_tf_kernels.h5 \
    --preprocessing=caffe --output=weights/vgg16_imagenet
python launch.py --config=configs/vgg16_imagenet.py --config.init_from=weights/vgg16_imagenet \
    --config.data.dir=FOLDER

The first line turns Keras' file into ours (the one without a top, `..._notop.h5`, will do too);
the last layer, and a top that is not there, are drawn. FOLDER as in `configs/simplenet.py`. Not yet
trained on the real data: no score to name.
"""

from emotion_jax.config import affectnet_config


def get_config():
    config = affectnet_config()
    # ImageNet's pixels, as the weights know them: intensities 0..255 less its mean colours.
    config.image_size = 224
    config.mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
    config.std = (1 / 255,)
    # The paper's dropout.
    config.model.name = "vgg16"
    config.model.dropout = (0.5, 0.5)
    # A third of the steps from scratch: only what is particular to faces remains to be learnt.
    config.num_epochs = 10
    # As configs/vgg16.py, for cards with little memory.
    config.batch_size = 64
    config.eval_batch_size = 128
    # A tenth of the paper's rate, so that, with the slow start, the drawn head's first, wild
    # gradients leave the features whole.
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 1.0
    return config
