"""Train or evaluate a network on what a config describes.

python launch.py --config=FILE [--workdir=DIR] [--config.KEY=VALUE ...] [--mode=train|eval]

python launch.py --config=configs/quickstart.py
python launch.py --config=configs/quickstart.py --config.num_epochs=20 --workdir=runs/longer
python launch.py --config=configs/quickstart.py --mode=eval

The same command again continues where the last one stopped.
"""

from __future__ import annotations

import sys

from absl import flags

from emotion_jax.command_line import FLAGS, config_name, define_config, parse_flags
from emotion_jax.errors import run

CONFIG = define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder; runs/<config> by default", FLAGS)
DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "one of several processes, as the cluster or JAX_* says", FLAGS
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "train or eval", FLAGS)


def main() -> None:
    """Read the flags, then make the one call."""
    parse_flags("python launch.py", __doc__)
    # Imported only now, so that a wrong flag is told at once.
    if DISTRIBUTED.value:
        from emotion_jax.sharding import join_processes

        join_processes()
    from emotion_jax.train import train_and_evaluate
    from emotion_jax.training.conclude import evaluate_workdir

    act = train_and_evaluate if MODE.value == "train" else evaluate_workdir
    act(CONFIG.value, WORKDIR.value or f"runs/{config_name()}")


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
