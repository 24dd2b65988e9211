"""Read the emotions in pictures: flags, then one call of `emotion_jax.analyze`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from absl import flags

from emotion_jax.compilation_cache import enable_compilation_cache
from emotion_jax.errors import EmotionError, run

if TYPE_CHECKING:
    from emotion_jax.analyze import Predictor

EXAMPLES = """\
Read the emotions of the faces in pictures.

  python predict.py --image=portrait.jpg
  python predict.py --image=holiday --image=party.png --output=results
  python predict.py --image="shots/**/*.jpg" --format=jsonl > faces.jsonl
  python predict.py --camera
"""

# Flags of their own: the libraries' global ones would crowd the help.
FLAGS = flags.FlagValues()
FLAGS.set_gnu_getopt(True)  # flags count after plain words, too
flags.DEFINE_multi_string("image", [], "a file, a folder or a glob", FLAGS)
flags.DEFINE_boolean("camera", False, "what a camera sees, in a window", FLAGS)
flags.DEFINE_string("device", "0", "of --camera: index, path, address or a film", FLAGS)
flags.DEFINE_string("model", None, "weights: a path or a shipped name", FLAGS)
flags.DEFINE_string("output", None, "folder for the rows and the annotated pictures", FLAGS)
flags.DEFINE_enum("format", "csv", ["csv", "jsonl"], "of the rows", FLAGS)
flags.DEFINE_float(
    "smoothing", 0.5, "seconds of averaging a person's", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_float(
    "min_face", None, "width in pixels of the smallest faces", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_boolean("show", None, "open a window (--camera does); q or Esc quits", FLAGS)
flags.DEFINE_boolean("debug", False, "show the traceback of an error", FLAGS)
flags.DEFINE_boolean("version", False, "print the version", FLAGS)
flags.DEFINE_boolean("help", False, "print this", FLAGS, short_name="h")
HELPED = [name for name in FLAGS if len(name) > 1]
# Of a later version; known here to be refused with a word of their own.
flags.DEFINE_string("video", None, "", FLAGS)


def parse_flags(argv: list[str]) -> list[str]:
    """Set FLAGS from the command line and return the pictures to read.

    Raises:
      EmotionError: a flag is unknown or has a wrong value, or a word belongs to no flag.
    """
    try:
        words = FLAGS(argv)[1:]
    except flags.Error as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise EmotionError(f"{what}; python predict.py --help lists the flags") from error
    for name in ("model", "output"):
        if FLAGS[name].value == "":
            raise EmotionError(f"--{name} is empty; give it a value or leave it out")
    if words and not FLAGS.image:
        raise EmotionError(f"'{words[0]}' belongs to no flag; write --image={words[0]}")
    return [*FLAGS.image, *words]  # a shell that expands `--image *.jpg` leaves words over


def main() -> None:
    """Parse the flags and do what they say; every import that takes time waits for its turn."""
    pictures = parse_flags(sys.argv)
    if FLAGS.version:
        import emotion_jax

        print(f"emotion_jax {emotion_jax.__version__}")
    elif FLAGS.camera:
        enable_compilation_cache()
        watch_camera()
    elif FLAGS.video:
        raise EmotionError("--video is not in this version yet; read pictures with --image=PATH")
    elif FLAGS.help or not pictures:
        print(EXAMPLES)
        for name in HELPED:
            print(f"  --{name:8} {' '.join(FLAGS[name].help.split())}")
    else:
        enable_compilation_cache()
        from emotion_jax import load_predictor
        from emotion_jax.analyze import analyze_pictures

        analyze_pictures(
            pictures,
            load_predictor(FLAGS.model),
            output=FLAGS.output,
            format=FLAGS.format,
            show=bool(FLAGS.show),
        )


def watch_camera() -> None:
    """Do what --camera says."""
    from emotion_jax.live import watch

    def load() -> Predictor:
        from emotion_jax import load_predictor

        return load_predictor(FLAGS.model)

    watch(
        FLAGS.device,
        load,
        min_face=FLAGS.min_face,
        smoothing=FLAGS.smoothing,
        output=FLAGS.output,
        format=FLAGS.format,
        show=FLAGS.show is not False,
    )


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
