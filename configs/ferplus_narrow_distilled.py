"""The narrow SimpleNetV2 of `configs/ferplus_narrow.py`, taught by full ones.

python benchmarks/recipe.py --overrides data.dir=FOLDER

trains the teachers, exports them and then this. With teachers at hand:

python launch.py --config=configs/ferplus_narrow_distilled.py --config.data.dir=FOLDER \
    --config.distill.teachers="('weights/a', 'weights/b')"

Not yet run at full size: there is no score to name.
"""

import runpy
from pathlib import Path


def get_config():
    # The same network, pixels, votes and augmentation.
    config = runpy.run_path(str(Path(__file__).with_name("ferplus_narrow.py")))["get_config"]()
    # Where benchmarks/recipe.py leaves them.
    config.distill.teachers = tuple(f"runs/recipe/weights/ferplus-{seed}" for seed in range(3))
    # Low: the teachers learnt votes, and of eight answers hardly one is out of the question.
    config.distill.temperature = 2.0
    # The mean of three networks has less noise than the votes of ten people.
    config.distill.share = 0.7
    # The faces as in `configs/ferplus.py`, for the same reasons; what the teachers never saw must
    # judge this network, too.
    config.data.drop_seen = True
    config.data.holdout = 0.05
    # Eight times those of two CPU cores: a student goes on learning where labels alone are learnt.
    config.num_epochs = 100
    # A GPU is idle with 64 faces of this network; the rate stays.
    config.batch_size = 256
    # The last 1,000 steps, about ten epochs.
    config.ema_decay = 0.999
    config.report_mirrored = True
    return config
