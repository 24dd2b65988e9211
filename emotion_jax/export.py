"""Weights to share, from a training run or from a Keras file.

python -m emotion_jax.export --model=runs/ferplus_narrow --output=weights/mine
python -m emotion_jax.export --model=runs/ferplus_narrow --output=weights/mine --calibrate
python -m emotion_jax.export --model=runs/next --blend=weights/mine --share=0.3 --output=weights/b
python -m emotion_jax.export --model=old.h5 --output=weights/old --image_size=64 --preprocessing=tf

The output folder receives `model.safetensors` and `config.json`; it can be given to
`predict.py --model=...` and `emotion_jax.load_predictor` wherever it is copied.

--calibrate fits the temperature that makes confidences honest, on the run's validation faces.

--blend goes a share of the way only from the weights that a run began from to what it made of them:
what it learnt for harmed faces stays for the most part, and so does what it would have lost on
others (Wortsman et al., Robust fine-tuning of zero-shot models, arXiv 2109.01903, section 3).

A Keras file (.h5, .weights.h5, .keras; SimpleNetV2 or VGG16) does not say how its pictures were
prepared before they came to it, nor what its outputs mean; a Rescaling inside is followed. A VGG16
of other outputs than emotions, ImageNet's with or without its top, becomes weights to train from:
init_from in a config.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from emotion_jax import metrics
from emotion_jax.calibration import fit_temperature
from emotion_jax.data.pipeline import evaluation_order
from emotion_jax.errors import EmotionError, run
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import Predictor, load_predictor
from emotion_jax.keras.files import PREPROCESSING, convert, is_keras_file, read_keras
from emotion_jax.preprocess import normalize
from emotion_jax.training.conclude import NOT_ITS_FACES
from emotion_jax.training.experiment import make_experiment
from emotion_jax.training.workdir import read_config
from emotion_jax.weights import save_weights

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, "a run's workdir, one of its checkpoints, or a Keras file", FLAGS
)
flags.DEFINE_string("output", None, "the folder to write", FLAGS)
flags.DEFINE_boolean("calibrate", False, "fit the temperature on the run's validation faces", FLAGS)
flags.DEFINE_string("data_dir", None, "where those faces lie now, if they have moved", FLAGS)
flags.DEFINE_string(
    "blend",
    None,
    "a run: the weights that it began from; a workdir, an exported folder, a name",
    FLAGS,
)
flags.DEFINE_float(
    "share", 0.5, "with --blend: of the way from those to the model's", 0.0, 1.0, flag_values=FLAGS
)
flags.DEFINE_integer(
    "image_size", None, "Keras: height and width of its input, in pixels", flag_values=FLAGS
)
flags.DEFINE_enum(
    "preprocessing",
    None,
    list(PREPROCESSING),
    "Keras: what its pictures went through. caffe: ImageNet's means taken off 0..255, BGR, as "
    "keras.applications.vgg16 does; tf: -1..1; torch: ImageNet's means and deviations; unit: "
    "0..1; raw: 0..255",
    FLAGS,
)
flags.DEFINE_list("mean", None, "Keras: in place of the preprocessing's, of RGB in 0..1", FLAGS)
flags.DEFINE_list("std", None, "Keras: likewise", FLAGS)
flags.DEFINE_boolean("bgr", None, "Keras: it was trained on BGR; the default is as above", FLAGS)
flags.DEFINE_boolean("grey", False, "Keras: it was trained on grey pictures in 3 channels", FLAGS)
flags.DEFINE_float(
    "crop_scale", ImageSpec.crop_scale, "Keras: see image_spec.ImageSpec", flag_values=FLAGS
)
flags.DEFINE_float(
    "crop_shift", ImageSpec.crop_shift, "Keras: see image_spec.ImageSpec", flag_values=FLAGS
)
flags.DEFINE_list("labels", None, "Keras: the emotions of its outputs, in their order", FLAGS)
flags.DEFINE_boolean("debug", False, "show the traceback of an error", FLAGS)
flags.DEFINE_boolean("help", False, "print this", FLAGS, short_name="h")


def main() -> None:
    """Writes the weights of one model to a folder."""
    try:
        words = FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise EmotionError(" ".join(str(error).split())) from error
    if FLAGS.help:
        print(__doc__ + "\n" + FLAGS.main_module_help())
        return
    if words or not FLAGS.model or not FLAGS.output:
        raise EmotionError("usage: python -m emotion_jax.export --model=WORKDIR --output=FOLDER")
    if FLAGS["share"].present and not FLAGS.blend:
        raise EmotionError(
            "--share: there is nothing to blend with; add --blend=, the weights that the run began "
            "from"
        )
    if is_keras_file(FLAGS.model):
        if FLAGS.calibrate:
            raise EmotionError("--calibrate: a Keras file has no validation faces; leave it out")
        if FLAGS.blend:
            raise EmotionError("--blend: a Keras file began from no weights; leave it out")
        variables, meta = _from_keras()
    else:
        variables, meta = _from_run()
    save_weights(FLAGS.output, variables, meta)
    print(f"wrote {FLAGS.output}")


def _from_run() -> tuple[Any, dict[str, Any]]:
    predictor = load_predictor(FLAGS.model)
    if FLAGS.blend:
        predictor = _blend(load_predictor(FLAGS.blend), predictor, FLAGS.share)
        if "temperature" in predictor.meta and not FLAGS.calibrate:
            print("the temperature is the unblended model's; --calibrate fits one for the blend")
    # What belongs to the unfinished run, not to its weights.
    own = ("faces", "teachers", "seed", "epoch", "running", "sha256")
    meta = {k: v for k, v in predictor.meta.items() if k not in own}
    if FLAGS.calibrate:
        meta["temperature"] = _calibrate(predictor)
    return predictor.variables, meta


def _blend(old: Predictor, new: Predictor, share: float) -> Predictor:
    """A predictor whose every number lies `share` of the way from the old to the new."""
    trees = [predictor.variables for predictor in (old, new)]
    shapes = [jax.tree.map(jnp.shape, tree) for tree in trees]
    if shapes[0] != shapes[1] or old.spec != new.spec:
        raise EmotionError(
            f"--blend: '{FLAGS.blend}' is another network than '{FLAGS.model}', or sees other "
            "pixels; name the weights that the run began from"
        )
    variables = jax.tree.map(lambda a, b: (1 - share) * a + share * b, *trees)
    return Predictor(new.model, variables, new.spec, meta=new.meta)


def _calibrate(predictor: Predictor) -> float:
    """The temperature of the run's validation faces; says what it does to them."""
    folder = Path(os.path.expanduser(FLAGS.model))
    if folder.parent.name == "checkpoints":
        folder = folder.parent.parent
    config = read_config(folder)
    config.num_devices = 1
    if FLAGS.data_dir is not None:
        config.data.dir = FLAGS.data_dir
    experiment = make_experiment(config)
    if not experiment.knows(predictor.meta):
        print(NOT_ITS_FACES)
    split = experiment.splits["validation"]

    @jax.jit
    def apply(images: jax.Array) -> Any:
        x = normalize(images, predictor.spec)
        return predictor.model.apply(predictor.variables, x, train=False)

    rows = np.maximum(evaluation_order(len(split), config.eval_batch_size), 0)
    batches = [np.asarray(apply(images)) for images in split.pixels.stream(split.rows[rows])]
    logits = np.concatenate(batches)[: len(split)]
    temperature = round(fit_temperature(logits, split.labels.argmax(1)), 4)
    print(f"{len(split)} validation faces, temperature {temperature:g}:")
    for name, divisor in (("before", 1.0), ("after", temperature)):
        parts = (logits / divisor, split.labels, split.weight, 0 * split.weight)
        sums = metrics.measure(*map(jnp.asarray, parts))
        found = metrics.summarize(sums)
        print(
            f"  {name:<6}  calibration error {found['ece']:.4f}  nll {found['nll']:.4f}  "
            f"accuracy {found['accuracy']:.1%}"
        )
    return temperature


def _from_keras() -> tuple[Any, dict[str, Any]]:
    network = read_keras(FLAGS.model)
    size = FLAGS.image_size or network.image_size or network.size
    if size is None:
        raise EmotionError(
            f"--image_size: '{FLAGS.model}' does not say the size of its pictures; add it, "
            "such as --image_size=64"
        )
    if FLAGS.preprocessing is None and None in (FLAGS.mean, FLAGS.std):
        raise EmotionError(
            f"--preprocessing: '{FLAGS.model}' does not say what its pictures went through; add "
            f"one of {', '.join(PREPROCESSING)} (--help says what they mean), or --mean and --std"
        )
    mean, std, bgr = PREPROCESSING[FLAGS.preprocessing or "unit"]
    spec = ImageSpec(
        size=size,
        grey=FLAGS.grey or network.channels == 1,
        channels=network.channels,
        mean=mean if FLAGS.mean is None else _numbers("mean", network.channels),
        std=std if FLAGS.std is None else _numbers("std", network.channels),
        crop_scale=FLAGS.crop_scale,
        crop_shift=FLAGS.crop_shift,
    )
    bgr = bgr if FLAGS.bgr is None else FLAGS.bgr
    variables, meta = convert(network, spec, bgr=bgr, labels=FLAGS.labels)
    emotions = ", ".join(meta["emotions"]) or "no emotions: weights to train from, by init_from"
    inside = f", padding {network.padding}" if network.padding else ""
    if any(x != 1 for x in network.scale) or any(network.offset):
        scale, offset = (", ".join(f"{x:g}" for x in xs) for xs in (network.scale, network.offset))
        inside += f", which begins with x * ({scale}) + ({offset})"
    shape = f"{size}x{size}x{network.channels}"
    print(f"{network.name} of width {network.width:g}, {shape}{inside}: {emotions}")
    return variables, meta


def _numbers(flag: str, channels: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(x) for x in FLAGS[flag].value)
    except ValueError:
        numbers = ()
    good = len(numbers) in (1, channels) and all(-1e6 < x < 1e6 for x in numbers)
    if not good or (flag == "std" and min(numbers) <= 0):
        raise EmotionError(
            f"--{flag}={','.join(FLAGS[flag].value)}; use one number or {channels}, such as "
            f"--{flag}=0.5"
        )
    return numbers


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
