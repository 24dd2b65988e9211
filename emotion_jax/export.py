"""From a training run to weights to share.

python -m emotion_jax.export --model=runs/ferplus_narrow --output=weights/mine

The output folder receives `model.safetensors` and `config.json`; it can be given to
`predict.py --model=...` and `emotion_jax.load_predictor` wherever it is copied.
"""

from __future__ import annotations

import sys

from absl import flags

from emotion_jax.errors import EmotionError, run
from emotion_jax.inference import load_predictor
from emotion_jax.weights import save_weights

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "a run's workdir, or one of its checkpoints", FLAGS)
flags.DEFINE_string("output", None, "the folder to write", FLAGS)
flags.DEFINE_boolean("debug", False, "show the traceback of an error", FLAGS)
flags.DEFINE_boolean("help", False, "print this", FLAGS, short_name="h")


def main() -> None:
    """Writes the weights of one model to a folder."""
    try:
        words = FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise EmotionError(" ".join(str(error).split())) from error
    if FLAGS.help:
        print(__doc__)
        return
    if words or not FLAGS.model or not FLAGS.output:
        raise EmotionError("usage: python -m emotion_jax.export --model=WORKDIR --output=FOLDER")
    predictor = load_predictor(FLAGS.model)
    # What belongs to the unfinished run, not to its weights.
    own = ("data", "epoch", "running", "sha256")
    meta = {k: v for k, v in predictor.meta.items() if k not in own}
    save_weights(FLAGS.output, predictor.variables, meta)
    print(f"wrote {FLAGS.output}")


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
